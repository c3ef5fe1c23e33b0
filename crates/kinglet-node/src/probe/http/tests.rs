//! Answers as real servers send them, byte for byte.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// How a server sends its answer.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Reads the request, answers, closes.
    Polite,
    /// Answers without reading, closes at once (a shell loop around `nc`).
    Blurting,
    /// Answers and leaves the connection open.
    Holding,
}

/// Answers every connection with `answer`, in which `PORT` stands for its own port; gives its port and what it was sent.
async fn server(answer: Vec<String>, manner: Manner) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("port");
    let port = listener.local_addr().expect("address").port();
    let (heard, requests) = tokio::sync::mpsc::channel(64);
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move {
        let mut open = Vec::new();
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.expect("connection");
            let bytes = answer[number.min(answer.len() - 1)].replace("PORT", &port.to_string());
            let mut request = vec![0; 4096];
            if manner != Manner::Blurting {
                let length = stream.read(&mut request).await.expect("request");
                let _ = heard.try_send(String::from_utf8_lossy(&request[..length]).into_owned());
            }
            let _ = stream.write_all(bytes.as_bytes()).await;
            if manner == Manner::Holding {
                open.push(stream);
            }
        }
    });
    (port, requests)
}

fn to(port: u16, path: &str) -> HttpGet {
    HttpGet {
        host: None,
        port,
        path: path.to_owned(),
        https: false,
        headers: Vec::new(),
    }
}

async fn ask(get: &HttpGet) -> ProbeResult {
    let answer = get_from(get, "127.0.0.1", prober::USER_AGENT, |port| async move {
        let address = (Ipv4Addr::LOCALHOST, port).into();
        TcpStream::connect(address)
            .await
            .map(|stream| Connected {
                stream,
                loopback_only: false,
            })
            .map_err(|source| ConnectError::Pod { address, source })
    })
    .await;
    match answer {
        Ok(answer) => verdict(answer),
        Err(error) => ProbeResult::Failure(error.to_string()),
    }
}

fn passed() -> ProbeResult {
    ProbeResult::Success(Success::default())
}

#[tokio::test]
async fn a_row_per_kind_of_answer() {
    let long = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n{}",
        "x".repeat(50000)
    );
    let stuck = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n{}",
        "x".repeat(20000)
    );
    let rows: &[(&str, &str, bool)] = &[
        (
            "with a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            true,
        ),
        (
            "told to close",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            true,
        ),
        ("until the end", "HTTP/1.1 200 OK\r\n\r\nhello", true),
        ("until the end, empty", "HTTP/1.1 200 OK\r\n\r\n", true),
        (
            "version 1.0",
            "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello",
            true,
        ),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n", true),
        (
            "no reason",
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        (
            "bare line feeds",
            "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            true,
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            true,
        ),
        (
            "interim first",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            true,
        ),
        (
            "early hints first",
            "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            true,
        ),
        ("longer than read", &long, true),
        ("not modified", "HTTP/1.1 304 Not Modified\r\n\r\n", true),
        (
            "last good status",
            "HTTP/1.1 399 Odd\r\nContent-Length: 0\r\n\r\n",
            true,
        ),
        (
            "first bad status",
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
            false,
        ),
        (
            "unavailable",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno!",
            false,
        ),
        (
            "cut short",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
            false,
        ),
        ("no answer", "", false),
        ("no HTTP", "220 mail ready\r\n", false),
    ];
    for manner in [Manner::Polite, Manner::Blurting] {
        for (name, answer, good) in rows {
            let (port, _requests) = server(vec![(*answer).to_owned()], manner).await;
            let result = ask(&to(port, "/")).await;
            assert_eq!(
                matches!(result, ProbeResult::Success(_)),
                *good,
                "{name}: {result:?}"
            );
        }
    }
    for (name, answer) in [
        (
            "held open",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        ("more than is read", &stuck),
    ] {
        let (port, _requests) = server(vec![answer.to_owned()], Manner::Holding).await;
        assert_eq!(ask(&to(port, "/")).await, passed(), "{name}");
    }
}

#[tokio::test]
async fn a_thousand_short_connections_all_answer() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    let (port, _requests) = server(vec![answer.to_owned()], Manner::Polite).await;
    for _ in 0..1000 {
        assert_eq!(ask(&to(port, "/")).await, passed());
    }
}

#[tokio::test]
async fn the_request_is_a_kubelets() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (port, mut requests) = server(vec![answer], Manner::Polite).await;
    assert_eq!(
        ask(&to(port, "health/a%20b?q=1&r=%2F#fragment")).await,
        passed()
    );
    let plain = requests.recv().await.expect("request");
    assert!(
        plain.starts_with("GET /health/a%20b?q=1&r=%2F HTTP/1.1\r\n"),
        "{plain}"
    );
    for header in [
        format!("Host: 127.0.0.1:{port}\r\n"),
        "User-Agent: kube-probe/1.34\r\n".to_owned(),
        "Accept: */*\r\n".to_owned(),
        "Connection: close\r\n".to_owned(),
    ] {
        assert!(plain.contains(&header), "{header} in {plain}");
    }
    let own = HttpGet {
        headers: [
            ("Host", "name.example"),
            ("X-Twice", "1"),
            ("X-Twice", "2"),
            ("user-agent", "mine"),
            ("Accept", ""),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        ..to(port, "/a b")
    };
    assert_eq!(ask(&own).await, passed());
    let own = requests.recv().await.expect("request");
    assert!(own.starts_with("GET /a%20b HTTP/1.1\r\n"), "{own}");
    for header in [
        "Host: name.example\r\n",
        "X-Twice: 1\r\n",
        "X-Twice: 2\r\n",
        "User-Agent: mine\r\n",
    ] {
        assert!(own.contains(header), "{header} in {own}");
    }
    assert!(
        !own.contains("Accept") && own.matches("Host:").count() == 1,
        "{own}"
    );
}

#[tokio::test]
async fn redirects_stay_on_the_host() {
    let good = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
    let redirect = |status: u16, location: &str| {
        format!(
            "HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nmove"
        )
    };
    let (port, mut requests) = server(
        vec![
            redirect(302, "/second?x=1"),
            redirect(308, "http://127.0.0.1:PORT/third"),
            good,
        ],
        Manner::Polite,
    )
    .await;
    assert_eq!(ask(&to(port, "/first")).await, passed());
    for path in ["/first", "/second?x=1", "/third"] {
        let request = requests.recv().await.expect("request");
        assert!(
            request.starts_with(&format!("GET {path} HTTP/1.1")),
            "{request}"
        );
    }
    // Nobody listens there: had the redirect been followed, the probe would fail.
    for elsewhere in [
        "http://localhost:1/",
        "http://[::1]:1/",
        "http://169.254.169.254/",
        "https://example.com/",
        "ftp://127.0.0.1/",
    ] {
        let (port, _requests) = server(vec![redirect(301, elsewhere)], Manner::Polite).await;
        let warned = ProbeResult::Success(Success {
            warning: Some("Probe terminated redirects, Response body: move".to_owned()),
            ..Success::default()
        });
        assert_eq!(ask(&to(port, "/")).await, warned, "{elsewhere}");
    }
    let (port, _requests) = server(vec![redirect(302, "/again")], Manner::Polite).await;
    assert_eq!(
        ask(&to(port, "/")).await,
        ProbeResult::Failure("stopped after 10 redirects".to_owned())
    );
}
