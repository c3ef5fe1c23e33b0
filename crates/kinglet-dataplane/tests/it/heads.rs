//! Request heads as strange clients write them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kinglet_dataplane::Options;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

/// A container that keeps every byte it is sent and answers each head with 200.
async fn recording() -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Mutex<String>>::default();
    let kept = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    kept.lock().push_str(&text);
                    if text.contains("HTTP/1.1\r\n") {
                        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_reach_the_container_as_they_were_sent() {
    let mut world = World::start().await;
    let (address, seen) = recording().await;
    world.one(backend("one", &[address])).await;
    let targets = [
        "/?q=a>5",
        "/?m=up{j=\"p\"}",
        "/`",
        "/<x>",
        "/a|b^c\\d?e|f^g\\h`i",
        "/\"quoted\"?\"",
        "/%3Cx%3E",
        "/ü?ü=ß",
        "/[1]?a[]=1",
        "/plain",
        "//double//",
    ];
    // One connection: the state of one request must not leak into the next.
    let mut client = TcpStream::connect(world.external).await.unwrap();
    for target in targets {
        for method in ["GET", "POST"] {
            let body = if method == "POST" { "a \"<b>\"" } else { "" };
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: one.test\r\nX-Kept: a \"<b>\" `c`\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(request.as_bytes()).await.unwrap();
            let answer = read_until(&mut client, "ok").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{target}: {answer}");
            let line = format!("{method} {target} HTTP/1.1\r\n");
            let got = std::mem::take(&mut *seen.lock());
            assert!(got.contains(&line), "{line:?} in {got:?}");
            assert!(got.contains("x-kept: a \"<b>\" `c`\r\n"), "{got:?}");
        }
    }
    // Bytes that come one by one, and requests that come at once.
    for byte in "GET /<y> HTTP/1.1\r\nHost: one.test\r\n\r\n".bytes() {
        client.write_all(&[byte]).await.unwrap();
        client.flush().await.unwrap();
    }
    read_until(&mut client, "ok").await;
    assert!(seen.lock().contains("GET /<y> HTTP/1.1\r\n"));
    let two = "GET /<1> HTTP/1.1\r\nHost: one.test\r\n\r\nGET /<2> HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n";
    client.write_all(two.as_bytes()).await.unwrap();
    let mut rest = String::new();
    within(client.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 2, "{rest}");
    let got = seen.lock().clone();
    assert!(
        got.contains("GET /<1> ") && got.contains("GET /<2> "),
        "{got}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_go_refuses_in_a_request_line_is_refused() {
    let mut world = World::start().await;
    world.one(backend("one", &[says("ok").await])).await;
    for line in [
        "GET /a b HTTP/1.1",
        "GET /<a b> HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET nothing HTTP/1.1",
        "GET /<x>",
        "GET",
        "G\"T / HTTP/1.1",
    ] {
        let answer = raw(
            world.external,
            &format!("{line}\r\nHost: one.test\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{line:?}: {answer}");
    }
}

/// Every way of making a front and a back disagree about where a request ends: refused, or made unambiguous.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled() {
    let mut world = World::start().await;
    let (address, seen) = recording().await;
    world.one(backend("one", &[address])).await;
    let head = "POST / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n";
    let hidden = "GET /hidden HTTP/1.1\r\nHost: one.test\r\n\r\n";
    let refused = [
        format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        format!("{head}Content-Length: 1, 2\r\n\r\nab"),
        format!("{head}Content-Length: +1\r\n\r\na"),
        format!("{head}Content-Length: 0x1\r\n\r\na"),
        format!("{head}Content-Length: -1\r\n\r\na"),
        format!("{head}Content-Length:\r\n\r\n"),
        format!("{head}Content-Length : 1\r\n\r\na"),
        format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: identity\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}X: a\r\n folded: b\r\n\r\n"),
        format!("{head}X: a\rContent-Length: 3\r\n\r\n"),
        format!("{head}X: a\0b\r\n\r\n"),
        format!("{head}: nameless\r\n\r\n"),
        format!("{head}Host: two.test\r\n\r\n"),
        "POST / HTTP/1.0\r\nHost: one.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            .to_owned(),
    ];
    for request in refused {
        let answer = raw(world.external, &request).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "501"].contains(&status), "{request:?}: {answer}");
    }
    assert_eq!(*seen.lock(), "", "none of it reached the container");
    let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let normalised = [
        // Chunked wins over a length (RFC 9112, 6.3), and the container is told one of the two only.
        format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
        format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunked}"),
        format!("{head}Transfer-Encoding: Chunked\r\n\r\n{chunked}"),
        format!(
            "{head}Content-Length: {0}\r\nContent-Length: {0}\r\n\r\n{hidden}",
            hidden.len()
        ),
    ];
    for request in normalised {
        let answer = raw(world.external, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{request:?}: {answer}");
        eventually("the body is there", || seen.lock().contains("/hidden")).await;
        let got = std::mem::take(&mut *seen.lock()).to_lowercase();
        assert_eq!(got.matches("post / http/1.1").count(), 1, "{got}");
        // The last chunk of the request before may be read after that request was looked at.
        let start = got.find("post / http/1.1").unwrap();
        let (sent, _) = got[start..].split_once("\r\n\r\n").unwrap();
        let framings = sent.matches("\r\ncontent-length:").count()
            + sent.matches("\r\ntransfer-encoding: chunked").count();
        assert_eq!(framings, 1, "{got}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preface_that_goes_no_further_is_ended() {
    let mut world = World::with(Options {
        client_idle: Duration::from_millis(100),
        ..Options::default()
    })
    .await;
    world.one(backend("one", &[says("ok").await])).await;
    for beginning in [
        "P",
        "PRI",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        raw(world.external, beginning).await; // fails when it is not closed in time
    }
    for almost in [
        "PRX",
        "PRI / HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(world.external).await.unwrap();
        client.write_all(almost.as_bytes()).await.unwrap();
        if almost.ends_with("\r\n\r\n") {
            let answer = read_until(&mut client, "ok").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
}

/// There are servers that look for a request line in what one read brings.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_with_a_raw_target_leaves_in_one_piece() {
    let mut world = World::start().await;
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            let whole = buffer[..count].starts_with(b"GET /<x> HTTP/1.1\r\n")
                && buffer[..count].ends_with(b"\r\n\r\n");
            let status = if whole { "200 OK" } else { "400 In Pieces" };
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    world.one(backend("one", &[address])).await;
    for _ in 0..20 {
        let answer = raw(
            world.external,
            "GET /<x> HTTP/1.1\r\nHost: one.test\r\nConnection: close\r\n\r\n",
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
