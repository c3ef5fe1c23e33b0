//! Between a client, whatever it speaks, and the streams of a program.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};

use super::idle::{Activity, IDLE_MAX};
use super::{Session, Source};

/// What is read of a program's output at once.
const READ_BYTES: usize = 32 << 10;
/// Messages that wait in each direction; whoever sends more waits.
pub(super) const MESSAGES_MAX: usize = 16;
/// After its end a program's output goes on as long as more comes: something that it left behind may hold it open for ever.
const SILENCE_MAX: Duration = Duration::from_millis(500);

/// What a client sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FromClient {
    Stdin(Bytes),
    StdinEnd,
    Resize { columns: u16, rows: u16 },
}

impl FromClient {
    /// The size of a terminal as clients write it.
    pub(super) fn resize(bytes: &[u8]) -> Option<Self> {
        let size: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        let number = |name: &str| size.get(name)?.as_u64()?.try_into().ok();
        Some(Self::Resize {
            columns: number("Width")?,
            rows: number("Height")?,
        })
    }
}

/// What a client is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ToClient {
    Stdout(Bytes),
    Stderr(Bytes),
    /// Comes last: how it ended, as a `Status`.
    End(Bytes),
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its program has, and what it wrote was handed on.
    Program,
    /// Nothing was said for too long.
    Idle,
}

/// Runs until the program has ended and its output is sent, or nobody has said anything for too long. The caller drops it
/// when the client is gone.
pub(super) async fn run(
    session: Session,
    mut from: mpsc::Receiver<FromClient>,
    to: mpsc::Sender<ToClient>,
) -> Ended {
    let activity = Activity::begin();
    let Session {
        mut stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = session;
    let input = async {
        while let Some(message) = from.recv().await {
            activity.note();
            match message {
                FromClient::Stdin(bytes) => {
                    if let Some(open) = &mut stdin
                        && open.write_all(&bytes).await.is_err()
                    {
                        // The program reads no more; the client may go on sending.
                        stdin = None;
                    }
                }
                FromClient::StdinEnd => {
                    if let Some(mut open) = stdin.take() {
                        let _ = open.shutdown().await;
                    }
                }
                FromClient::Resize { columns, rows } => {
                    if let Some(resize) = &resize {
                        resize(columns, rows);
                    }
                }
            }
        }
        std::future::pending().await
    };
    let (ended, is_over) = watch::channel(false);
    let output = async {
        tokio::join!(
            copy(stdout, &to, ToClient::Stdout, is_over.clone(), &activity),
            copy(stderr, &to, ToClient::Stderr, is_over, &activity),
        )
    };
    let exit = async {
        let code = exit.await;
        let _ = ended.send(true);
        code
    };
    let whole = async {
        let (code, _) = tokio::join!(exit, output);
        let _ = to.send(ToClient::End(status(code))).await;
    };
    tokio::select! {
        () = whole => Ended::Program,
        never = input => never,
        () = activity.has_ceased() => {
            let hours = IDLE_MAX.as_secs() / 3600;
            let words = format!("the session was ended: nothing was said in it for {hours} hours");
            // A client that does not read what waits for it is not waited for.
            let _ = to.try_send(ToClient::End(failure("Timeout", &words)));
            Ended::Idle
        }
    }
}

async fn copy(
    from: Option<Source>,
    to: &mpsc::Sender<ToClient>,
    message: impl Fn(Bytes) -> ToClient,
    is_over: watch::Receiver<bool>,
    activity: &Activity,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let mut is_over = is_over.clone();
        let silence = async {
            let _ = is_over.wait_for(|over| *over).await;
            tokio::time::sleep(SILENCE_MAX).await;
        };
        let count = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            () = silence => 0,
        };
        activity.note();
        if count == 0
            || to
                .send(message(Bytes::copy_from_slice(&buffer[..count])))
                .await
                .is_err()
        {
            return;
        }
    }
}

/// The end of a session for which its program is not to blame.
fn failure(reason: &str, message: &str) -> Bytes {
    let status = json!({"metadata": {}, "status": "Failure", "reason": reason, "message": message});
    status.to_string().into()
}

/// How a program ended, in the words that clients look for.
fn status(code: Result<i32, String>) -> Bytes {
    let status = match code {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(why) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: error executing command in container: {why}"),
            "details": {"causes": [{"message": format!("error executing command in container: {why}")}]},
        }),
    };
    status.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn session(stdout: Source, exit: Result<i32, String>) -> Session {
        Session {
            stdin: None,
            stdout: Some(stdout),
            stderr: None,
            resize: None,
            exit: std::future::ready(exit).boxed(),
        }
    }

    async fn heard(session: Session) -> Vec<ToClient> {
        let (_from, from) = mpsc::channel(1);
        let (to, mut heard) = mpsc::channel(MESSAGES_MAX);
        let all = async {
            let mut all = Vec::new();
            while let Some(message) = heard.recv().await {
                all.push(message);
            }
            all
        };
        let (_, all) = tokio::join!(run(session, from, to), all);
        all
    }

    #[tokio::test(start_paused = true)]
    async fn output_comes_whole_before_the_end() {
        let heard = heard(session(Box::new(&b"hello"[..]), Ok(3))).await;
        assert_eq!(heard[0], ToClient::Stdout(Bytes::from_static(b"hello")));
        let ToClient::End(status) = &heard[1] else {
            panic!("{heard:?}")
        };
        let status: serde_json::Value = serde_json::from_slice(status).expect("status");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0]["message"], "3");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_program_left_behind_holds_nothing_open() {
        let (open, stdout) = tokio::io::duplex(16);
        let heard = heard(session(Box::new(stdout), Ok(0))).await;
        assert!(matches!(&heard[..], [ToClient::End(_)]), "{heard:?}");
        drop(open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_in_which_nothing_is_said_ends_in_words() {
        let (mut open, stdout) = tokio::io::duplex(16);
        let silent = Session {
            exit: std::future::pending().boxed(),
            ..session(Box::new(stdout), Ok(0))
        };
        let begun = tokio::time::Instant::now();
        let late = async {
            tokio::time::sleep(IDLE_MAX / 2).await;
            open.write_all(b"x").await.expect("write");
        };
        let both = async { tokio::join!(heard(silent), late) };
        let (heard, ()) = tokio::time::timeout(IDLE_MAX * 2, both)
            .await
            .expect("ends");
        assert!(begun.elapsed() >= IDLE_MAX * 3 / 2);
        let [ToClient::Stdout(_), ToClient::End(status)] = &heard[..] else {
            panic!("{heard:?}")
        };
        let status: serde_json::Value = serde_json::from_slice(status).expect("status");
        assert_eq!(
            status["message"],
            "the session was ended: nothing was said in it for 4 hours"
        );
    }

    #[test]
    fn sizes_of_terminals() {
        let size = FromClient::Resize {
            columns: 80,
            rows: 24,
        };
        assert_eq!(
            FromClient::resize(br#"{"Width":80,"Height":24}"#),
            Some(size)
        );
        assert_eq!(FromClient::resize(br#"{"Width":99999,"Height":24}"#), None);
        assert_eq!(FromClient::resize(b"x"), None);
    }
}
