//! What filters cost: `cargo run --release -p kinglet-events --example filter_cost`.
//!
//! Goals: exact ≤ 100 ns, CESQL of five terms ≤ 1 µs; with 10,000 Triggers on one Broker of which 1 % match, the cost of
//! an event follows the matches.

#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::unwrap_used,
    reason = "a report of wall-clock times is what it is for"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use kinglet_events::binding::{Format, decode, encode};
use kinglet_events::event::Event;
use kinglet_events::filter::{Filter, FilterIndex, SubscriptionsApiFilter};

/// Each measurement is the best of so many rounds: the least disturbed one.
const ROUNDS: u32 = 7;
const ROUND: Duration = Duration::from_millis(60);

fn measure(what: &str, mut work: impl FnMut()) -> f64 {
    let best = (0..ROUNDS)
        .map(|_| {
            let (start, mut times) = (Instant::now(), 0_u32);
            while start.elapsed() < ROUND {
                for _ in 0..16 {
                    work();
                }
                times += 16;
            }
            start.elapsed().as_nanos() as f64 / f64::from(times)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what:<64} {best:>12.0} ns");
    best
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "broker-ingress.knative-eventing.svc.cluster.local"),
        ("user-agent", "Go-http-client/1.1"),
        ("content-type", "application/json"),
        ("content-length", "1000"),
        ("ce-specversion", "1.0"),
        ("ce-id", "8f6a7a1e-0c5f-4b86-9f0c-7b3a0b1d2c3e"),
        ("ce-source", "/apis/v1/namespaces/default/pingsources/ping"),
        ("ce-type", "dev.knative.sources.ping"),
        ("ce-time", "2026-11-21T10:47:00.388908451Z"),
        ("ce-region", "eu"),
        ("ce-num", "7"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn filter(json: &str) -> Filter {
    let filters: Vec<SubscriptionsApiFilter> = serde_json::from_str(json).unwrap();
    Filter::compile(None, &filters, None).0
}

/// 10,000 filters that ask for a type, of which `matching` ask for the event's, as [`filter`] writes them.
fn index(triggers: usize, matching: usize, write: impl Fn(&str) -> String) -> FilterIndex {
    FilterIndex::new((0..triggers).map(|at| {
        let kind = if at < matching {
            "dev.knative.sources.ping".to_owned()
        } else {
            format!("type-{at}")
        };
        Arc::new(filter(&write(&kind)))
    }))
}

fn main() {
    let (headers, body) = (headers(), Bytes::from(vec![b'x'; 1_000]));
    let event = decode(&headers, body.clone()).unwrap();
    one_event(&headers, &body, &event);
    for (what, json) in [
        (
            "exact, one attribute, yes",
            r#"[{"exact":{"type":"dev.knative.sources.ping"}}]"#,
        ),
        (
            "exact, one attribute, no",
            r#"[{"exact":{"type":"dev.knative.sources.pong"}}]"#,
        ),
        (
            "exact, type, source and extension, yes",
            r#"[{"exact":{"type":"dev.knative.sources.ping","source":"/apis/v1/namespaces/default/pingsources/ping","region":"eu"}}]"#,
        ),
        ("prefix, yes", r#"[{"prefix":{"type":"dev.knative."}}]"#),
        (
            "CESQL, one term",
            r#"[{"cesql":"type = 'dev.knative.sources.ping'"}]"#,
        ),
        (
            "CESQL, five terms, all evaluated",
            r#"[{"cesql":"type = 'dev.knative.sources.ping' AND source LIKE '/apis/%/ping' AND region IN ('us', 'eu') AND EXISTS time AND num > 5"}]"#,
        ),
        (
            "CESQL, five terms, casts and functions",
            r#"[{"cesql":"UPPER(region) = 'EU' AND LENGTH(type) > 10 AND -num < 0 AND LEFT(type, 3) = 'dev' AND NOT EXISTS nothere"}]"#,
        ),
    ] {
        let filter = filter(json);
        measure(what, || {
            black_box(black_box(&filter).matches(black_box(&event)));
        });
    }
    many_triggers(&event);
}

fn one_event(headers: &HeaderMap, body: &Bytes, event: &Event) {
    measure("decode, binary", || {
        black_box(decode(black_box(headers), body.clone()).unwrap());
    });
    measure("encode, binary, into new headers", || {
        let mut headers = HeaderMap::with_capacity(16);
        black_box(encode(black_box(event), Format::Binary, &mut headers));
    });
    measure("encode, structured", || {
        black_box(encode(
            black_box(event),
            Format::Json,
            &mut HeaderMap::new(),
        ));
    });
}

fn many_triggers(event: &Event) {
    let exact = |kind: &str| format!(r#"[{{"exact":{{"type":"{kind}"}}}}]"#);
    let cesql = |kind: &str| format!(r#"[{{"cesql":"type = '{kind}' AND num > 5"}}]"#);
    let prefix = |kind: &str| format!(r#"[{{"prefix":{{"type":"{kind}"}}}}]"#);
    let mut matching = Vec::new();
    for (triggers, matches) in [
        (100, 1),
        (1_000, 1),
        (10_000, 1),
        (1_000, 100),
        (10_000, 100),
    ] {
        let index = index(triggers, matches, exact);
        measure(
            &format!("index of {triggers} exact Triggers, {matches} match"),
            || {
                index.matching(black_box(event), &mut matching);
            },
        );
        assert_eq!(matching.len(), matches);
    }
    for (what, index) in [
        ("CESQL", index(10_000, 100, cesql)),
        ("prefix (each is asked)", index(10_000, 100, prefix)),
    ] {
        measure(
            &format!("index of 10000 Triggers, 100 match: {what}"),
            || {
                index.matching(black_box(event), &mut matching);
            },
        );
        assert_eq!(matching.len(), 100);
    }
    let start = Instant::now();
    black_box(index(10_000, 100, cesql));
    println!(
        "compiling 10,000 filters and their index: {:?}",
        start.elapsed()
    );
}
