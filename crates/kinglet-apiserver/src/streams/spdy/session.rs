//! A program over SPDY: one stream for each of its streams, one for the size of its terminal, one for its end.

use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::super::Wanted;
use super::super::pump::{FromClient, ToClient};
use super::{Output, Stream};

/// A client opens all its streams at once (a kubelet's patience).
const STREAMS_TIMEOUT: Duration = Duration::from_secs(30);
const STREAMS_WAITING_MAX: usize = 5;

#[derive(Default)]
struct Outputs {
    stdout: Option<Output>,
    stderr: Option<Output>,
    error: Option<Output>,
}

/// Speaks for a program until it has ended or the client is gone.
pub(in super::super) async fn speak(
    connection: TokioIo<Upgraded>,
    from: mpsc::Sender<FromClient>,
    to: mpsc::Receiver<ToClient>,
    wanted: Wanted,
) {
    let (opened, streams) = mpsc::channel(STREAMS_WAITING_MAX);
    let session = async {
        let started = tokio::time::timeout(STREAMS_TIMEOUT, all_streams(streams, wanted)).await;
        let Ok(Some((outputs, stdin, resize))) = started else {
            return;
        };
        let input = async {
            tokio::join!(read_stdin(stdin, &from), read_sizes(resize, &from));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = input => {}
            _ = write(outputs, to) => {}
        }
    };
    let serving = super::serve(connection, opened);
    tokio::pin!(serving);
    tokio::select! {
        // The client is gone, and with this the session.
        _ = &mut serving => {}
        // Its streams are dropped, so the connection ends when it has sent all.
        () = session => {
            let _ = serving.await;
        }
    }
}

type Input = Option<Stream>;

async fn all_streams(
    mut streams: mpsc::Receiver<Stream>,
    wanted: Wanted,
) -> Option<(Outputs, Input, Input)> {
    let mut left = 1
        + usize::from(wanted.stdin)
        + usize::from(wanted.stdout)
        + usize::from(wanted.stderr)
        + usize::from(wanted.tty);
    let mut outputs = Outputs::default();
    let (mut stdin, mut resize) = (None, None);
    while left > 0 {
        let stream = streams.recv().await?;
        left -= 1;
        let output = stream.output.clone();
        match stream.headers.get("streamtype") {
            Some("error") => outputs.error = Some(output),
            Some("stdout") => outputs.stdout = Some(output),
            Some("stderr") => outputs.stderr = Some(output),
            Some("stdin") => stdin = Some(stream),
            Some("resize") => resize = Some(stream),
            _ => return None,
        }
    }
    Some((outputs, stdin, resize))
}

async fn read_stdin(stdin: Input, from: &mpsc::Sender<FromClient>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(piece) = stdin.input.recv().await {
        if from.send(FromClient::Stdin(piece.bytes)).await.is_err() {
            return;
        }
    }
    let _ = from.send(FromClient::StdinEnd).await;
}

/// Sizes are JSON objects, one after the other.
async fn read_sizes(resize: Input, from: &mpsc::Sender<FromClient>) {
    const SIZE_BYTES_MAX: usize = 1024;
    let Some(mut resize) = resize else { return };
    let mut text = Vec::new();
    while let Some(piece) = resize.input.recv().await {
        text.extend_from_slice(&piece.bytes);
        while let Some(end) = text.iter().position(|byte| *byte == b'}') {
            let one: Vec<u8> = text.drain(..=end).collect();
            if let Some(size) = FromClient::resize(&one)
                && from.send(size).await.is_err()
            {
                return;
            }
        }
        if text.len() > SIZE_BYTES_MAX {
            return;
        }
    }
}

async fn write(outputs: Outputs, mut to: mpsc::Receiver<ToClient>) -> Result<(), ()> {
    while let Some(message) = to.recv().await {
        match message {
            ToClient::Stdout(bytes) => {
                if let Some(stdout) = &outputs.stdout {
                    stdout.send(&bytes).await?;
                }
            }
            ToClient::Stderr(bytes) => {
                if let Some(stderr) = &outputs.stderr {
                    stderr.send(&bytes).await?;
                }
            }
            ToClient::End(status) => {
                for output in [&outputs.stdout, &outputs.stderr].into_iter().flatten() {
                    output.finish().await?;
                }
                if let Some(error) = &outputs.error {
                    error.send(&status).await?;
                    error.finish().await?;
                }
                return Ok(());
            }
        }
    }
    Ok(())
}
