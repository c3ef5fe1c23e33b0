//! The scraper against queue-proxies of the test.

use std::time::Duration;

use kinglet_dataplane::stats::{QueueProxy, ScrapeError, Scraper};
use kinglet_decide::feed::Stat;
use kinglet_decide::wire::encode_stat;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const STABLE: Duration = Duration::from_secs(60);

/// A queue-proxy that gives every request this answer.
async fn pod(answer: Vec<u8>) -> QueueProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_err() {
                    break;
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            assert!(head.starts_with("get /metrics http/1.1\r\n"), "{head}");
            assert!(
                head.contains("\r\naccept: application/protobuf\r\n"),
                "{head}"
            );
            let _ = stream.write_all(&answer).await;
        }
    });
    QueueProxy {
        address,
        age: STABLE,
    }
}

fn answer(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn stat(concurrency: f64) -> Vec<u8> {
    let stat = Stat {
        average_concurrent_requests: concurrency,
        request_count: 2.0 * concurrency,
        process_uptime: 7.0,
        ..Stat::default()
    };
    answer("200 OK", "application/protobuf", &encode_stat("p", &stat))
}

async fn scrape(answers: Vec<Vec<u8>>) -> Result<Option<Stat>, ScrapeError> {
    let mut ready = Vec::new();
    for answer in answers {
        ready.push(pod(answer).await);
    }
    Scraper::default().scrape(&ready, STABLE).await
}

#[tokio::test]
async fn the_mean_of_all_stands_for_all() {
    let all = scrape(vec![stat(1.0), stat(3.0)]).await.unwrap().unwrap();
    let expected = Stat {
        average_concurrent_requests: 4.0,
        request_count: 8.0,
        ..Stat::default()
    };
    assert_eq!(all, expected);
    assert_eq!(scrape(Vec::new()).await, Ok(None));
}

#[tokio::test]
async fn others_stand_in_for_a_pod_that_does_not_answer() {
    let mut answers = vec![stat(2.0); 10];
    answers.push(answer("500 Internal Server Error", "text/plain", b"x"));
    answers.push(Vec::new());
    let all = scrape(answers).await.unwrap().unwrap();
    assert!(
        (all.average_concurrent_requests - 24.0).abs() < 1e-9,
        "{all:?}"
    );
}

#[tokio::test]
async fn without_enough_answers_there_is_no_statistic() {
    let good = || stat(1.0);
    let long = [stat(1.0), vec![b'x'; 400]].concat();
    assert!(
        scrape(vec![long]).await.is_ok(),
        "what follows an answer is not its body"
    );
    let padded = {
        let mut body = encode_stat("p", &Stat::default());
        // An unknown field of 400 bytes: Knative reads 336 and cannot parse them.
        body.extend([0xfa, 0x01, 0x90, 0x03]);
        body.extend([b'x'; 400]);
        answer("200 OK", "application/protobuf", &body)
    };
    let rows = [
        (answer("404 Not Found", "text/plain", b""), "404"),
        (
            answer("200 OK", "text/plain", b""),
            "instead of application/protobuf",
        ),
        (
            answer("200 OK", "application/protobuf; x", b""),
            "instead of application/protobuf",
        ),
        (
            answer("200 OK", "application/protobuf", b"<html>"),
            "not protobuf",
        ),
        (padded, "ends within a field"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/protobuf\r\nContent-Length: 10\r\n\r\nx"
                .to_vec(),
            "",
        ),
        (b"garbage\r\n\r\n".to_vec(), ""),
    ];
    for (bad, words) in rows {
        let error = scrape(vec![good(), bad]).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("1 of 2 pods answered"), "{text}");
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn a_mesh_that_answers_for_all_pods_is_told_apart() {
    let hidden = || {
        answer(
            "503 Service Unavailable",
            "text/plain",
            b"no healthy upstream",
        )
    };
    assert_eq!(
        scrape(vec![hidden(), hidden()]).await,
        Err(ScrapeError::Mesh)
    );
    let mixed = scrape(vec![hidden(), stat(1.0)]).await.unwrap_err();
    assert!(
        matches!(mixed, ScrapeError::Exhausted { answered: 1, .. }),
        "{mixed:?}"
    );
}
