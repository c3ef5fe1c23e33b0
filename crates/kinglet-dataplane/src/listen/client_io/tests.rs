//! Streams of requests, cut into pieces at random, as hyper would read them.

use std::collections::VecDeque;
use std::task::Waker;

use proptest::prelude::*;

use super::*;

/// Gives its pieces one by one, then ends.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Debug)]
struct Sent {
    target: &'static str,
    body: &'static str,
    chunked: bool,
}

impl Sent {
    fn head(&self, target: &str) -> String {
        let framing = if self.chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", self.body.len())
        };
        format!("POST {target} HTTP/1.1\r\nHost: <h>\r\nX: \"`\"\r\n{framing}\r\n\r\n")
    }
}

fn sent() -> impl Strategy<Value = Vec<Sent>> {
    let target = prop_oneof![
        Just("/plain"),
        Just("/<x>"),
        Just("/?a=\"b\"&c=`"),
        Just("/\u{fc}")
    ];
    let body = prop_oneof![
        3 => Just(""),
        1 => Just("GET /<y> HTTP/1.1\r\n\r\n"),
        1 => Just("\r\n\r\n\"<>\"\n\n"),
    ];
    let request = (target, body).prop_map(|(target, body)| Sent {
        target,
        body,
        chunked: false,
    });
    let last = Just(Sent {
        target: "/<last>",
        body: "2\r\n<<\r\n0\r\n\r\nGET /<z> HTTP/1.1\r\n\r\n",
        chunked: true,
    });
    (proptest::collection::vec(request, 0..6), last).prop_map(|(mut requests, last)| {
        requests.push(last);
        requests
    })
}

/// Reads as hyper does: heads to their end, then says how long the body is, then the body.
fn read_like_hyper(io: &mut ClientIo<Pieces>, requests: &[Sent], buffer_bytes: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut parsed = 0;
    let mut next = requests.iter();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        // As long as hyper has a whole head, it does not read.
        while let Some(end) = seen[parsed..]
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
        {
            let Some(request) = next.next() else { break };
            let length = request.body.len() as u64 + LENGTH;
            let body = if request.chunked { UNKNOWN } else { length };
            io.log.body.store(body, Ordering::Relaxed);
            let raw = io.log.raw_target.lock().take();
            assert_eq!(
                raw.map(|target| target.raw),
                (request.target != "/plain").then(|| Bytes::from_static(request.target.as_bytes()))
            );
            parsed += end + 4 + request.body.len();
            while seen.len() < parsed && !request.chunked {
                if !read(io, &mut cx, &mut seen, buffer_bytes) {
                    return seen;
                }
            }
            if request.chunked {
                while read(io, &mut cx, &mut seen, buffer_bytes) {}
                return seen;
            }
        }
        if !read(io, &mut cx, &mut seen, buffer_bytes) {
            return seen;
        }
    }
}

fn read(io: &mut ClientIo<Pieces>, cx: &mut Context<'_>, seen: &mut Vec<u8>, bytes: usize) -> bool {
    let mut buffer = vec![0; bytes];
    let mut buffer = ReadBuf::new(&mut buffer);
    assert!(Pin::new(io).poll_read(cx, &mut buffer).is_ready());
    seen.extend_from_slice(buffer.filled());
    !buffer.filled().is_empty()
}

proptest! {
    #[test]
    fn only_targets_are_changed(
        requests in sent(),
        cuts in proptest::collection::vec(1usize..60, 1..40),
        buffer_bytes in 1usize..200,
    ) {
        let (mut sent, mut expected) = (String::new(), String::new());
        for request in &requests {
            sent.push_str(&request.head(request.target));
            sent.push_str(request.body);
            let target = encode(request.target.as_bytes());
            expected.push_str(&request.head(&String::from_utf8(target).expect("ASCII")));
            expected.push_str(request.body);
        }
        let mut pieces = VecDeque::new();
        let mut rest = sent.as_bytes();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, left) = rest.split_at(rest.len().min(*cut));
            pieces.push_back(piece.to_vec());
            rest = left;
        }
        let mut io = ClientIo::new(Pieces(pieces), Arc::default(), Arc::default());
        let seen = read_like_hyper(&mut io, &requests, buffer_bytes);
        prop_assert_eq!(String::from_utf8_lossy(&seen), expected);
    }
}

#[test]
fn bare_line_feeds_pass_as_they_are() {
    for sent in [
        "GET /<x> HTTP/1.1\nHost: h\n\n<y>",
        "GET /x HTTP/1.1\r\nHost: h\n\nGET /<y> HTTP/1.1\r\n\r\n",
        "GET /<x>",
    ] {
        let mut io = ClientIo::new(
            Pieces([sent.as_bytes().to_vec()].into()),
            Arc::default(),
            Arc::default(),
        );
        let mut cx = Context::from_waker(Waker::noop());
        let mut seen = Vec::new();
        while read(&mut io, &mut cx, &mut seen, 64) {}
        assert_eq!(String::from_utf8_lossy(&seen), sent);
    }
}
