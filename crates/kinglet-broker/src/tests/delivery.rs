//! Attempts, waits, replies, dead letters: numbers from the specification and the recordings.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::StreamBody;
use kinglet_decide::call::{BoxError, CallBody};
use kinglet_events::binding::Format;
use kinglet_events::delivery::BackoffPolicy::{Exponential, Linear};
use kinglet_events::delivery::Delivery as Policy;
use proptest::prelude::*;

use super::world::*;
use crate::feed::{ChannelRoute, Delivery, Destination, Report, Update};

/// For tests that hold whichever way a stage is called.
const BOTH: [bool; 2] = [true, false];

fn milliseconds(got: &[Got]) -> Vec<u128> {
    got.iter().map(|one| one.after.as_millis()).collect()
}

/// A gigabyte in pieces of a megabyte.
fn gigabyte(status: u16, event: bool) -> Act {
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let pieces = (0..1024).map(move |_| Ok::<_, BoxError>(Frame::data(piece.clone())));
    let body: CallBody = Box::pin(StreamBody::new(futures_util::stream::iter(pieces)));
    let mut answer = http::Response::builder().status(status);
    if event {
        answer = answer
            .header("ce-specversion", "1.0")
            .header("ce-id", "big")
            .header("ce-type", "big")
            .header("ce-source", "/s");
    }
    Act::Answer(answer.body(body).unwrap())
}

/// What traces/eventing/02-retry-dead-letter recorded: per Trigger its attempts in milliseconds after the event, and the
/// error extensions of the dead letter.
#[tokio::test(start_paused = true)]
async fn retries_and_dead_letters_are_those_that_were_recorded() {
    let broker = || retries(3, Exponential, 200);
    let base = "http://10.244.0.1:9999";
    type Expected = (&'static str, &'static [u128], Option<[&'static str; 3]>);
    let cases: [(Policy, Expected); 12] = [
        (
            broker(),
            (
                "/always500?status=500&errbody=boom",
                &[0, 200, 600, 1400],
                Some(["500", "Ym9vbQ==", ""]),
            ),
        ),
        (broker(), ("/twice?fails=2", &[0, 200, 600], None)),
        (
            retries(2, Linear, 300),
            ("/linear?status=503", &[0, 0, 300], Some(["503", "", ""])),
        ),
        (
            broker(),
            ("/bad400?status=400", &[0], Some(["400", "", ""])),
        ),
        (
            broker(),
            (
                "/s404?status=404",
                &[0, 200, 600, 1400],
                Some(["404", "", ""]),
            ),
        ),
        // Retry-After is not followed without retryAfterMax.
        (
            retries(2, Linear, 100),
            (
                "/s429?status=429&retryafter=1",
                &[0, 0, 100],
                Some(["429", "", ""]),
            ),
        ),
        (
            broker(),
            (
                "/s408?status=408",
                &[0, 200, 600, 1400],
                Some(["408", "", ""]),
            ),
        ),
        (
            broker(),
            (
                "/s409?status=409",
                &[0, 200, 600, 1400],
                Some(["409", "", ""]),
            ),
        ),
        (broker(), ("/s302?status=302", &[0], Some(["302", "", ""]))),
        (
            Policy::default(),
            ("/noretry?status=500", &[0], Some(["500", "", ""])),
        ),
        (
            broker(),
            (
                "/refused?refused",
                &[0, 200, 600, 1400],
                Some([
                    "500",
                    // dispatch error: Post "http://10.244.0.1:9999/refused?refused": dial tcp 10.244.0.1:9999: connect: connection refused
                    "ZGlzcGF0Y2ggZXJyb3I6IFBvc3QgImh0dHA6Ly8xMC4yNDQuMC4xOjk5OTkvcmVmdXNlZD9yZWZ1c2VkIjogZGlhbCB0Y3AgMTAuMjQ0LjAuMTo5OTk5OiBjb25uZWN0OiBjb25uZWN0aW9uIHJlZnVzZWQ=",
                    "",
                ]),
            ),
        ),
        (
            Policy {
                timeout: Some(Duration::from_secs(1)),
                ..retries(1, Linear, 100)
            },
            ("/slow?sleep", &[0, 1000], Some(["none", "none", "none"])),
        ),
    ];
    for shortcuts in BOTH {
        let world = Setup::new(shortcuts).start(|got, time| {
            let (_, query) = got.url.split_once('?').unwrap_or(("", ""));
            let value = |name: &str| {
                let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs
                    .clone()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| value.to_owned())
            };
            if query == "refused" {
                return Act::Refuse("dial tcp 10.244.0.1:9999: connect: connection refused");
            }
            if query == "sleep" {
                return Act::After(Duration::from_secs(3), Box::new(answer(200, &[], "")));
            }
            let fails = value("fails").map_or(usize::MAX, |fails| fails.parse().unwrap());
            match value("status") {
                Some(status) => {
                    let body = value("errbody").unwrap_or_default();
                    answer(status.parse().unwrap(), &[("retry-after", "1")], &body)
                }
                None if fails == usize::MAX => answer(200, &[], ""),
                None => answer(if time <= fails { 500 } else { 200 }, &[], ""),
            }
        });
        let mut triggers = Vec::new();
        for (number, (policy, (path, ..))) in cases.iter().enumerate() {
            let name: &'static str = Box::leak(format!("t{number}").into_boxed_str());
            let delivery = dead(*policy, &format!("{base}/dead{number}."));
            triggers.push(trigger(name, Some(name), &format!("{base}{path}")).with(delivery));
        }
        world.broker("InMemoryChannel", &triggers).await;
        for (number, (_, (path, attempts, error))) in cases.iter().enumerate() {
            let began = world
                .sinks
                .at("")
                .last()
                .map_or(Duration::ZERO, |got| got.after);
            let _ = began;
            let before = tokio::time::Instant::now();
            let (status, _) = world
                .send(&format!("id-{number}"), &format!("t{number}"))
                .await;
            assert_eq!(
                status,
                StatusCode::ACCEPTED,
                "{path}: a dead letter counts as delivered"
            );
            let got = world.sinks.at(path);
            let first = got[0].after.as_millis();
            let times: Vec<u128> = milliseconds(&got).iter().map(|time| time - first).collect();
            assert_eq!(times, *attempts, "{path}, shortcuts {shortcuts}");
            // As Knative's channel in memory: after the last attempt.
            assert!(before.elapsed().as_millis() >= *attempts.last().unwrap());
            for one in &got {
                assert_eq!(one.header("prefer"), Some("reply"));
                assert_eq!(one.header("kn-namespace"), Some("ns"));
                assert_eq!(
                    one.header("ce-knativebrokerttl"),
                    None,
                    "the subscriber does not see it"
                );
                assert!(one.header("ce-knativearrivaltime").is_some());
                assert_eq!(one.header("host"), Some("10.244.0.1:9999"));
            }
            let letters = world.sinks.at(&format!("/dead{number}."));
            let Some([code, data, _]) = error else {
                assert!(letters.is_empty(), "{path}");
                continue;
            };
            let [letter] = &letters[..] else {
                panic!("{path}: {letters:?}")
            };
            assert_eq!(letter.header("prefer"), None);
            assert_eq!(letter.header("kn-namespace"), Some("ns"));
            assert_eq!(letter.header("ce-knativebrokerttl"), Some("255"));
            let has = |name: &str| letter.header(name).unwrap_or("none").to_owned();
            assert_eq!(has("ce-knativeerrorcode"), *code, "{path}");
            assert_eq!(has("ce-knativeerrordata"), *data, "{path}");
            let destination = match *code {
                "none" => "none".to_owned(),
                _ => format!("{base}{path}"),
            };
            assert_eq!(has("ce-knativeerrordest"), destination);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_followed_up_to_its_bound() {
    for (header, longest, waits) in [
        ("1", Some(5), vec![0, 1000, 2000]),
        ("60", Some(5), vec![0, 5000, 10_000]),
        ("60", None, vec![0, 0, 100]),
        (
            "Sat, 21 Nov 2026 10:00:03 GMT",
            Some(5),
            vec![0, 3000, 3100],
        ),
        ("soon", Some(5), vec![0, 0, 100]),
    ] {
        for (status, shortcuts) in [(429, true), (503, true), (429, false)] {
            let world = Setup::new(shortcuts).start(move |_, time| match time {
                3 => answer(200, &[], ""),
                _ => answer(status, &[("retry-after", header)], ""),
            });
            let policy = Policy {
                retry_after_max: longest.map(Duration::from_secs),
                ..retries(2, Linear, 100)
            };
            let delivery = Delivery {
                dead_letter: None,
                policy,
            };
            world
                .broker(
                    "InMemoryChannel",
                    &[trigger("t", None, "http://sink/").with(delivery)],
                )
                .await;
            assert_eq!(world.send("1", "foo").await.0, StatusCode::ACCEPTED);
            assert_eq!(
                milliseconds(&world.sinks.at("sink")),
                waits,
                "{header} {longest:?} {status}"
            );
        }
    }
}

/// traces/eventing/01: a reply comes back as another event; the trace goes with it.
#[tokio::test(start_paused = true)]
async fn a_reply_reenters_the_broker() {
    for shortcuts in BOTH {
        let mut world = Setup::new(shortcuts).start(|got, _| match got.url.as_str() {
            "http://sink/2" => replies("reply-1", "bar"),
            _ => answer(202, &[], ""),
        });
        let triggers = [
            trigger("t1", Some("foo"), "http://sink/1"),
            trigger("t2", Some("foo"), "http://sink/2"),
            trigger("t3", Some("bar"), "http://sink/3"),
        ];
        world.broker("InMemoryChannel", &triggers).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let request = event_request("/ns/default", "1", "foo")
            .header("traceparent", trace)
            .header("x-request-id", "r1")
            .header("knative-foo", "k")
            .header("x-custom", "dropped")
            .header("authorization", "Bearer secret");
        let (status, headers, body) = world
            .post(world.handle.ingress(false), request, "{\"a\":1}")
            .await;
        assert_eq!((status, body.as_str()), (StatusCode::ACCEPTED, ""));
        assert_eq!(headers["allow"], "POST, OPTIONS");
        until("the reply", || !world.sinks.at("/3").is_empty()).await;
        for path in ["/1", "/2", "/3"] {
            let [got] = &world.sinks.at(path)[..] else {
                panic!("{path}, shortcuts {shortcuts}")
            };
            assert_eq!(got.header("traceparent"), Some(trace), "{path}");
            assert_eq!(got.header("x-custom"), None);
            assert_eq!(got.header("authorization"), None);
            if path != "/3" {
                assert_eq!(got.header("x-request-id"), Some("r1"));
                assert_eq!(got.header("knative-foo"), Some("k"));
                assert_eq!(got.body, "{\"a\":1}");
            } else {
                assert_eq!(got.header("ce-id"), Some("reply-1"));
                assert_eq!(got.body, "{\"reply\":true}");
            }
        }
        let mut types = Vec::new();
        while let Ok(report) = world.reports.try_recv() {
            if let Report::EventTypeSeen(seen) = report {
                types.push((format!("{:?}", seen.addressable), seen.event_type));
            }
        }
        types.sort();
        let seen = |kind: &str, event_type: &str| (kind.to_owned(), event_type.to_owned());
        assert_eq!(
            types,
            [
                seen("Broker", "bar"),
                seen("Broker", "foo"),
                seen("Trigger", "bar")
            ]
        );
    }
}

/// The first pass sets 255, each reply takes one, and the pass that would leave none is refused: 254 more.
#[tokio::test(start_paused = true)]
async fn a_loop_of_replies_ends() {
    for shortcuts in BOTH {
        let world = Setup::new(shortcuts).start(|got, _| match got.url.as_str() {
            "http://sink/loop" => replies(got.header("ce-id").unwrap(), "foo"),
            _ => answer(200, &[], ""),
        });
        let delivery = dead(Policy::default(), "http://sink/dead");
        world
            .broker(
                "InMemoryChannel",
                &[trigger("t", None, "http://sink/loop").with(delivery)],
            )
            .await;
        assert_eq!(world.send("1", "foo").await.0, StatusCode::ACCEPTED);
        until("the last pass", || !world.sinks.at("/dead").is_empty()).await;
        assert_eq!(world.sinks.at("/loop").len(), 255);
        let letter = &world.sinks.at("/dead")[0];
        assert_eq!(letter.header("ce-knativebrokerttl"), Some("1"));
        assert_eq!(letter.header("ce-knativeerrorcode"), Some("400"));
        let destination = letter.header("ce-knativeerrordest").unwrap();
        assert_eq!(destination, format!("{INGRESS}/ns/default"));
    }
}

/// More events than a subscription has places for, each with replies that it gets itself.
#[tokio::test(start_paused = true)]
async fn replies_to_oneself_do_not_wait_for_ones_own_places() {
    for shortcuts in BOTH {
        let world = Setup::new(shortcuts).start(|got, time| match time {
            1..=3 => replies(got.header("ce-id").unwrap(), "foo"),
            _ => answer(200, &[], ""),
        });
        world
            .broker("InMemoryChannel", &[trigger("t", None, "http://sink/loop")])
            .await;
        let ids: Vec<String> = (0..120).map(|number| number.to_string()).collect();
        let sent = futures_util::future::join_all(ids.iter().map(|id| world.send(id, "foo"))).await;
        assert!(
            sent.iter()
                .all(|(status, _)| *status == StatusCode::ACCEPTED)
        );
        until("all passes", || {
            world.sinks.at("/loop").len() == 4 * ids.len()
        })
        .await;
    }
}

/// The table of spec/eventing.md 7.4: what a subscriber's answer means.
#[tokio::test(start_paused = true)]
async fn answers_of_subscribers_are_read_as_knative_does() {
    let structured = "{\"specversion\":\"1.0\",\"id\":\"r\",\"type\":\"bar\",\"source\":\"/s\"}";
    let cloud_event = ("content-type", "application/cloudevents+json");
    type Case = (
        u16,
        Vec<(&'static str, &'static str)>,
        &'static str,
        Option<&'static str>,
        bool,
    );
    let cases: Vec<Case> = vec![
        (200, vec![], "", None, false),
        (202, vec![], "", None, false),
        (204, vec![], "", None, false),
        (200, vec![cloud_event], structured, None, true),
        (202, vec![cloud_event], structured, None, true),
        (200, vec![], "not an event", Some("502"), false),
        (200, vec![cloud_event], "{nope", Some("502"), false),
        (200, vec![("ce-specversion", "1.0")], "", Some("502"), false),
        (
            200,
            vec![("content-type", "application/cloudevents-batch+json")],
            "[]",
            Some("502"),
            false,
        ),
        (422, vec![], "why", Some("422"), false),
        (418, vec![cloud_event], structured, Some("418"), false),
    ];
    for shortcuts in BOTH {
        for (status, headers, body, error, replied) in &cases {
            let (status, headers, body) = (*status, headers.clone(), *body);
            let world = Setup::new(shortcuts).start(move |got, _| match got.url.as_str() {
                "http://sink/" => answer(status, &headers, body),
                _ => answer(200, &[], ""),
            });
            let delivery = dead(Policy::default(), "http://dead/");
            let triggers = [
                trigger("t", Some("foo"), "http://sink/").with(delivery),
                trigger("replies", Some("bar"), "http://reply/"),
            ];
            world.broker("InMemoryChannel", &triggers).await;
            assert_eq!(world.send("1", "foo").await.0, StatusCode::ACCEPTED);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let letters = world.sinks.at("http://dead/");
            let code = letters
                .first()
                .and_then(|letter| letter.header("ce-knativeerrorcode"));
            assert_eq!(code, *error, "{status} {body}, shortcuts {shortcuts}");
            assert_eq!(
                !world.sinks.at("http://reply/").is_empty(),
                *replied,
                "{status} {body}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_format_is_the_triggers_and_redirects_are_followed() {
    for shortcuts in BOTH {
        let world = Setup::new(shortcuts).start(|got, _| match got.url.as_str() {
            "http://sink/307" => answer(307, &[("location", "/there")], ""),
            "http://sink/302" => answer(302, &[("location", "http://other/there")], ""),
            "http://sink/circle" => answer(308, &[("location", "/circle")], ""),
            _ => answer(200, &[], ""),
        });
        let json = Policy {
            format: Format::Json,
            ..Policy::default()
        };
        let triggers = [
            trigger("json", None, "http://sink/json").with(Delivery {
                dead_letter: None,
                policy: json,
            }),
            trigger("t307", None, "http://sink/307"),
            trigger("t302", None, "http://sink/302"),
            trigger("circle", None, "http://sink/circle")
                .with(dead(Policy::default(), "http://dead/")),
        ];
        world.broker("InMemoryChannel", &triggers).await;
        assert_eq!(world.send("1", "foo").await.0, StatusCode::ACCEPTED);
        let structured = &world.sinks.at("/json")[0];
        assert_eq!(
            structured.header("content-type"),
            Some("application/cloudevents+json")
        );
        assert_eq!(structured.header("ce-id"), None);
        assert_eq!(structured.event().id(), "1");
        let repeated = &world.sinks.at("http://sink/there")[0];
        assert_eq!(
            (repeated.method.as_str(), &*repeated.body),
            ("POST", &b"{\"a\":1}"[..])
        );
        let asked = &world.sinks.at("http://other/there")[0];
        assert_eq!((asked.method.as_str(), &*asked.body), ("GET", &b""[..]));
        assert_eq!(asked.header("host"), Some("other"));
        assert_eq!(world.sinks.at("/circle").len(), 11);
        assert_eq!(world.sinks.at("http://dead/").len(), 1);
    }
}

/// Subscriptions of a channel: what Knative's retry matrix has (appendix A.4, 16 to 18).
#[tokio::test(start_paused = true)]
async fn a_subscription_replies_and_has_dead_letters() {
    for (fails, expected_replies, letters) in [(0, 1, 0), (1, 2, 0), (2, 2, 1)] {
        let world = Setup::new(true).start(move |got, time| match got.url.as_str() {
            "http://sink/" => replies("r", "answer"),
            "http://reply/" if time <= fails => answer(500, &[], "no"),
            _ => answer(200, &[], ""),
        });
        let mut one = subscriber("one", Some("http://sink/"));
        one.reply = Some(Destination::plain("http://reply/"));
        one.delivery = dead(retries(1, Linear, 10), "http://dead/");
        // A Subscription without subscriber: the event itself goes to the reply.
        let mut only_reply = subscriber("only", None);
        only_reply.reply = Some(Destination::plain("http://only/"));
        let route = channel_of(vec![one, only_reply]);
        let id = channel_id("InMemoryChannel", "c");
        world.apply(Update::Channel(id, Some(route))).await;
        let (status, _) = world.send_to_channel("InMemoryChannel", "c", "1").await;
        assert_eq!(status, StatusCode::ACCEPTED);
        assert_eq!(world.sinks.at("http://reply/").len(), expected_replies);
        assert_eq!(world.sinks.at("http://only/")[0].event().id(), "1");
        let dead = world.sinks.at("http://dead/");
        assert_eq!(dead.len(), letters);
        if let [letter] = &dead[..] {
            assert_eq!(letter.event().id(), "1", "the event itself, not the reply");
            assert_eq!(letter.header("ce-knativeerrordest"), Some("http://reply/"));
            assert_eq!(letter.header("ce-knativeerrordata"), Some("bm8="));
        }
        let reply = &world.sinks.at("http://reply/")[0];
        assert_eq!(
            (reply.header("prefer"), reply.header("kn-namespace")),
            (None, Some("ns"))
        );
    }
}

/// 202 after every delivery, 500 when one failed and no dead letter sink took it; `async-handler` at once.
#[tokio::test(start_paused = true)]
async fn a_channel_in_memory_answers_when_its_deliveries_are_over() {
    for (to, asynchronous, status, took) in [
        ("http://sink/ok", false, 202, 2),
        ("http://sink/bad", false, 500, 2),
        ("http://sink/bad", true, 202, 0),
    ] {
        let world = Setup::new(true).start(|got, _| {
            let status = if got.url.ends_with("ok") { 200 } else { 500 };
            Act::After(Duration::from_secs(2), Box::new(answer(status, &[], "")))
        });
        let subscribers = vec![subscriber("one", Some(to))];
        let route = ChannelRoute {
            asynchronous,
            ..channel_of(subscribers)
        };
        world
            .apply(Update::Channel(
                channel_id("InMemoryChannel", "c"),
                Some(route),
            ))
            .await;
        let began = tokio::time::Instant::now();
        let (answered, body) = world.send_to_channel("InMemoryChannel", "c", "1").await;
        assert_eq!(answered, status, "{to} {body}");
        assert_eq!(began.elapsed().as_secs(), took);
        if status == 500 {
            assert!(body.contains("failed: one"), "{body}");
        }
        until("the delivery", || world.sinks.at("sink").len() == 1).await;
    }
}

/// Subscribers that hang, answer a gigabyte, or break: the others do not notice, and nothing grows.
#[tokio::test(start_paused = true)]
async fn a_bad_subscriber_disturbs_nobody() {
    for shortcuts in BOTH {
        let mut world = Setup::new(shortcuts).start(|got, _| match got.url.as_str() {
            "http://bad/hang" => Act::Hang,
            "http://bad/gigabyte" => gigabyte(200, true),
            "http://bad/gigabyte-500" => gigabyte(500, false),
            "http://bad/gigabyte-200" => gigabyte(200, false),
            _ => answer(200, &[], ""),
        });
        let dead_letter = || dead(Policy::default(), "http://dead/");
        let triggers = [
            trigger("hang", None, "http://bad/hang"),
            trigger("g1", None, "http://bad/gigabyte").with(dead_letter()),
            trigger("g2", None, "http://bad/gigabyte-500").with(dead_letter()),
            trigger("g3", None, "http://bad/gigabyte-200").with(dead_letter()),
            trigger("good", None, "http://good/"),
        ];
        world.broker("InMemoryChannel", &triggers).await;
        let sends =
            (0..150).map(|number| {
                let (world, id) = (&world, number.to_string());
                async move {
                    tokio::time::timeout(Duration::from_millis(100), world.send(&id, "foo")).await
                }
            });
        futures_util::future::join_all(sends).await;
        until("the good one", || {
            world.sinks.at("http://good/").len() == 150
        })
        .await;
        until("the dead letters", || {
            world.sinks.at("http://dead/").len() == 450
        })
        .await;
        assert_eq!(world.sinks.at("http://bad/hang").len(), 100, "in hand");
        for letter in world.sinks.at("http://dead/") {
            let data = letter.header("ce-knativeerrordata").unwrap();
            assert!(data.len() <= 1024, "{}", data.len());
        }
        let states = world.handle.subscriptions();
        let hang = states.iter().find(|state| &*state.name == "hang").unwrap();
        assert_eq!((hang.backlog, hang.in_hand), (150, 100));
        let failing = states.iter().find(|state| &*state.name == "g2").unwrap();
        let words = &failing.failing.as_ref().unwrap().words;
        assert!(
            words.starts_with("http://bad/gigabyte-500 answers 500: xxx"),
            "{words}"
        );
        let changed = |report: &Report| matches!(report, Report::SubscriptionChanged { .. });
        let mut told = 0;
        while let Ok(report) = world.reports.try_recv() {
            told += usize::from(changed(&report));
        }
        assert_eq!(told, 3, "each that fails once, however many times it fails");
    }
}

/// "A filter that cannot be evaluated is a no, said once" (traces/README).
#[tokio::test(start_paused = true)]
async fn a_filter_that_fails_is_a_no_and_said_once() {
    for shortcuts in BOTH {
        let mut world = Setup::new(shortcuts).start(|_, _| answer(200, &[], ""));
        let mut bad =
            trigger("bad", None, "http://bad/").with(dead(retries(3, Linear, 100), "http://dead/"));
        let sql = kinglet_events::filter::SubscriptionsApiFilter {
            cesql: "1 / 0 = 1".to_owned(),
            ..Default::default()
        };
        bad.filters = vec![sql];
        world
            .broker(
                "InMemoryChannel",
                &[bad, trigger("good", None, "http://good/")],
            )
            .await;
        for id in ["1", "2", "3"] {
            assert_eq!(world.send(id, "foo").await.0, StatusCode::ACCEPTED);
        }
        until("the good one", || world.sinks.at("good").len() == 3).await;
        assert!(world.sinks.at("bad").is_empty() && world.sinks.at("dead").is_empty());
        let mut said = Vec::new();
        while let Ok(report) = world.reports.try_recv() {
            if let Report::FilterFailed { trigger, why } = report {
                said.push((trigger.to_string(), why));
            }
        }
        let [(trigger, why)] = &said[..] else {
            panic!("{said:?}")
        };
        assert_eq!(trigger, "ns/bad");
        assert!(!why.is_empty());
    }
}

/// A change of a Trigger or Channel is in force when `apply` returns.
#[tokio::test(start_paused = true)]
async fn changes_are_in_force_at_once() {
    for shortcuts in BOTH {
        let world = Setup::new(shortcuts).start(|_, _| answer(200, &[], ""));
        world
            .broker(
                "InMemoryChannel",
                &[trigger("t", Some("foo"), "http://one/")],
            )
            .await;
        world.send("1", "foo").await;
        world
            .broker(
                "InMemoryChannel",
                &[trigger("t", Some("bar"), "http://two/")],
            )
            .await;
        world.send("2", "foo").await;
        world.send("3", "bar").await;
        world.broker("InMemoryChannel", &[]).await;
        world.send("4", "bar").await;
        world
            .broker("InMemoryChannel", &[trigger("t", None, "http://three/")])
            .await;
        world.send("5", "bar").await;
        let ids = |url: &str| -> Vec<String> {
            world
                .sinks
                .at(url)
                .iter()
                .map(|got| got.event().id().to_owned())
                .collect()
        };
        assert_eq!(ids("http://one/"), ["1"]);
        assert_eq!(ids("http://two/"), ["3"]);
        assert_eq!(ids("http://three/"), ["5"]);
        world
            .apply(Update::Broker(crate::feed::Key::new("ns", "default"), None))
            .await;
        let (status, body) = world.send("6", "bar").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("no Broker default in namespace ns"), "{body}");
    }
}

/// A channel may be fed before the Triggers behind it, as after a start: its events wait for them.
#[tokio::test(start_paused = true)]
async fn events_wait_for_a_trigger_that_is_not_known_yet() {
    let world = Setup::new(true).start(|_, _| answer(200, &[], ""));
    let to = format!("{FILTER}/triggers/ns/t/t-uid");
    let mut one = subscriber("t", Some(&to));
    one.delivery = dead(Policy::default(), "http://dead/");
    let route = ChannelRoute {
        asynchronous: true,
        ..channel_of(vec![one])
    };
    let id = channel_id("InMemoryChannel", "default-kne-trigger");
    world.apply(Update::Channel(id, Some(route))).await;
    let request = event_request("/", "1", "foo")
        .header("host", "default-kne-trigger-kn-channel.ns.svc")
        .header("ce-knativebrokerttl", "255");
    let service = world.handle.channels("InMemoryChannel", false);
    assert_eq!(
        world.post(service, request, "").await.0,
        StatusCode::ACCEPTED
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(world.sinks.at("").is_empty());
    world
        .broker("InMemoryChannel", &[trigger("t", None, "http://sink/")])
        .await;
    until("the delivery", || world.sinks.at("sink").len() == 1).await;
    assert!(world.sinks.at("dead").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever sinks do: nobody misses an event that its retries outlast, and who asked for order has it.
    #[test]
    fn nothing_is_lost_and_order_is_kept(
        failures in proptest::collection::vec(0_usize..4, 1..40),
        slow in proptest::collection::vec(0_u64..50, 1..10),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let count = failures.len();
            let world = Setup::new(true).start(move |got, time| {
                let number: usize = got.header("ce-id").unwrap().parse().unwrap();
                let status = if time <= failures[number] { 503 } else { 200 };
                let wait = Duration::from_millis(slow[number % slow.len()]);
                Act::After(wait, Box::new(answer(status, &[], "")))
            });
            let policy = Delivery { dead_letter: None, policy: retries(3, Exponential, 7) };
            let mut ordered = subscriber("ordered", Some("http://ordered/"));
            ordered.ordered = true;
            ordered.delivery = policy.clone();
            let mut unordered = subscriber("unordered", Some("http://unordered/"));
            unordered.delivery = policy;
            let route = ChannelRoute { asynchronous: true, ..channel_of(vec![ordered, unordered]) };
            world.apply(Update::Channel(channel_id("InMemoryChannel", "c"), Some(route))).await;
            for number in 0..count {
                let id = number.to_string();
                let (status, _) = world.send_to_channel("InMemoryChannel", "c", &id).await;
                assert_eq!(status, StatusCode::ACCEPTED);
            }
            let finished = || world.handle.subscriptions().iter().all(|one| one.backlog == 0);
            until("the deliveries", finished).await;
            let numbers = |url: &str| -> Vec<usize> {
                let got = world.sinks.at(url);
                got.iter().map(|one| one.header("ce-id").unwrap().parse().unwrap()).collect()
            };
            let in_order = numbers("http://ordered/");
            assert!(in_order.is_sorted(), "{in_order:?}");
            for mut all in [in_order, numbers("http://unordered/")] {
                all.sort_unstable();
                all.dedup();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        });
    }
}

/// Without a back-off the first retries are at once; a long series does not keep a processor busy.
#[tokio::test(start_paused = true)]
async fn retries_without_backoff_pause_after_the_first_ones() {
    let world = Setup::new(true).start(|_, _| answer(500, &[], ""));
    let policy = Policy {
        retries: 8,
        ..Policy::default()
    };
    let mut one = subscriber("one", Some("http://sink/"));
    one.delivery.policy = policy;
    let id = channel_id("InMemoryChannel", "c");
    world
        .apply(Update::Channel(id, Some(channel_of(vec![one]))))
        .await;
    let (status, _) = world.send_to_channel("InMemoryChannel", "c", "1").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let times = milliseconds(&world.sinks.at("sink"));
    assert_eq!(times, [0, 0, 0, 0, 0, 0, 10, 20, 30]);
}

/// Another order takes effect although a delivery of the old one hangs.
#[tokio::test(start_paused = true)]
async fn a_subscription_changes_its_order_while_a_delivery_hangs() {
    let world = Setup::new(true).start(|got, _| match got.header("ce-id") {
        Some("hangs") => Act::Hang,
        _ => answer(200, &[], ""),
    });
    let id = channel_id("InMemoryChannel", "c");
    let route = |ordered| {
        let mut one = subscriber("one", Some("http://sink/"));
        one.ordered = ordered;
        ChannelRoute {
            asynchronous: true,
            ..channel_of(vec![one])
        }
    };
    world
        .apply(Update::Channel(id.clone(), Some(route(true))))
        .await;
    for event in ["hangs", "waits"] {
        world.send_to_channel("InMemoryChannel", "c", event).await;
    }
    until("the first one", || world.sinks.at("sink").len() == 1).await;
    let began = tokio::time::Instant::now();
    world.apply(Update::Channel(id, Some(route(false)))).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    until("the next one", || {
        let got = world.sinks.at("sink");
        got.iter().any(|one| one.header("ce-id") == Some("waits"))
    })
    .await;
}
