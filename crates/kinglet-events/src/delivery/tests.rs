//! Tables: schedules, statuses, `Retry-After`, dead letters, TTL, and what admission refuses.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::binding::Format;
use crate::event::{Event, ExtensionName, Value};

fn now() -> Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn spec(json: &str) -> DeliverySpec {
    serde_json::from_str(json).unwrap()
}

fn answered(status: u16) -> Attempt<'static> {
    Attempt::Answered {
        status,
        retry_after: None,
    }
}

/// Waits in milliseconds before every retry of an answer 500.
fn waits(json: &str) -> Vec<u128> {
    let delivery = spec(json).read().unwrap();
    let mut waits = Vec::new();
    for attempt in 0.. {
        match delivery.after(attempt, answered(500), now()) {
            Step::RetryAfter(wait) => waits.push(wait.as_millis()),
            Step::GiveUp => break,
            Step::Delivered => panic!("delivered"),
        }
    }
    assert_eq!(waits.len() + 1, delivery.attempts() as usize);
    waits
}

#[test]
fn schedules() {
    for (json, expected) in [
        (r#"{}"#, &[][..]),
        (r#"{"retry":0}"#, &[]),
        (r#"{"retry":3}"#, &[0, 0, 0]),
        // Recorded: 66.65, 66.86, 67.26, 68.06.
        (
            r#"{"retry":3,"backoffPolicy":"exponential","backoffDelay":"PT0.2S"}"#,
            &[200, 400, 800],
        ),
        // Recorded: 71.09, 71.09, 71.40. The first retry is at once.
        (
            r#"{"retry":2,"backoffPolicy":"linear","backoffDelay":"PT0.3S"}"#,
            &[0, 300],
        ),
        (
            r#"{"retry":5,"backoffPolicy":"linear","backoffDelay":"PT1S"}"#,
            &[0, 1000, 2000, 3000, 4000],
        ),
        // One of the two alone waits no time, and neither does less than none.
        (r#"{"retry":2,"backoffPolicy":"linear"}"#, &[0, 0]),
        (r#"{"retry":2,"backoffDelay":"PT1S"}"#, &[0, 0]),
        (
            r#"{"retry":2,"backoffPolicy":"exponential","backoffDelay":"-PT1S"}"#,
            &[0, 0],
        ),
        (
            r#"{"retry":2,"backoffPolicy":"exponential","backoffDelay":"PT0S"}"#,
            &[0, 0],
        ),
    ] {
        assert_eq!(waits(json), expected, "{json}");
    }
}

#[test]
fn no_wait_is_longer_than_the_longest() {
    for policy in [BackoffPolicy::Linear, BackoffPolicy::Exponential] {
        for delay in [Duration::from_secs(1), Duration::MAX] {
            for retry in [0, 31, 32, 64, 1_000, u32::MAX] {
                assert!(Backoff { policy, delay }.wait(retry) <= WAIT_MAX);
            }
        }
    }
    assert_eq!(
        waits(r#"{"retry":40,"backoffPolicy":"exponential","backoffDelay":"PT1S"}"#)[39],
        WAIT_MAX.as_millis()
    );
}

#[test]
fn statuses() {
    let delivery = Delivery {
        retries: 1,
        ..Delivery::default()
    };
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(
            delivery.after(0, answered(status), now()),
            Step::Delivered,
            "{status}"
        );
    }
    for status in [404, 408, 409, 429, 500, 501, 502, 503, 504, 505, 599, 600] {
        assert_eq!(
            delivery.after(0, answered(status), now()),
            Step::RetryAfter(Duration::ZERO),
            "{status}"
        );
        assert_eq!(
            delivery.after(1, answered(status), now()),
            Step::GiveUp,
            "{status}"
        );
    }
    for status in [
        100, 199, 300, 302, 304, 400, 401, 403, 405, 406, 410, 413, 415, 418, 422, 425, 499,
    ] {
        assert_eq!(
            delivery.after(0, answered(status), now()),
            Step::GiveUp,
            "{status}"
        );
    }
    assert_eq!(
        delivery.after(0, Attempt::NoAnswer, now()),
        Step::RetryAfter(Duration::ZERO)
    );
    assert_eq!(delivery.after(1, Attempt::NoAnswer, now()), Step::GiveUp);
}

#[test]
fn retry_after_in_all_its_forms() {
    for (value, seconds) in [
        ("0", Some(0)),
        ("120", Some(120)),
        (" 5 ", Some(5)),
        ("Sat, 21 Nov 2026 10:00:30 GMT", Some(30)),
        ("Saturday, 21-Nov-26 10:00:30 GMT", Some(30)),
        ("Sat Nov 21 10:00:30 2026", Some(30)),
        // Over.
        ("Sat, 21 Nov 2026 09:00:00 GMT", Some(0)),
        ("99999999999999999999999999", Some(WAIT_MAX.as_secs())),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("2026-11-21T10:00:30Z", None),
    ] {
        assert_eq!(
            retry_after(value, now()),
            seconds.map(Duration::from_secs),
            "{value:?}"
        );
    }
}

#[test]
fn retry_after_is_followed_up_to_its_bound() {
    let read = |json: &str| spec(json).read().unwrap();
    let unset = read(r#"{"retry":2}"#);
    let zero = read(r#"{"retry":2,"retryAfterMax":"PT0S"}"#);
    let ten = read(r#"{"retry":2,"retryAfterMax":"PT10S"}"#);
    let both = read(
        r#"{"retry":2,"retryAfterMax":"PT10S","backoffPolicy":"exponential","backoffDelay":"PT4S"}"#,
    );
    for (delivery, status, header, seconds) in [
        (unset, 429, Some("5"), 0),
        (zero, 429, Some("5"), 0),
        (ten, 429, Some("5"), 5),
        (ten, 503, Some("5"), 5),
        (ten, 503, Some("60"), 10),
        (ten, 503, Some("Sat, 21 Nov 2026 10:00:07 GMT"), 7),
        (ten, 503, Some("soon"), 0),
        (ten, 503, None, 0),
        (ten, 500, Some("5"), 0),
        (ten, 404, Some("5"), 0),
        (both, 503, Some("1"), 4),
        (both, 503, Some("6"), 6),
    ] {
        let ended = Attempt::Answered {
            status,
            retry_after: header,
        };
        let expected = Step::RetryAfter(Duration::from_secs(seconds));
        assert_eq!(
            delivery.after(0, ended, now()),
            expected,
            "{status} {header:?}"
        );
    }
    // What is taken needs no retry, whatever its header says.
    let taken = Attempt::Answered {
        status: 202,
        retry_after: Some("5"),
    };
    assert_eq!(ten.after(0, taken, now()), Step::Delivered);
}

#[test]
fn specs_are_read() {
    let read = spec(r#"{"retry":3,"timeout":"PT1.5S","backoffPolicy":"linear","backoffDelay":"PT1S","retryAfterMax":"PT1M","format":"json","deadLetterSink":{"uri":"http://x"}}"#).read().unwrap();
    assert_eq!(
        read,
        Delivery {
            retries: 3,
            backoff: Some(Backoff {
                policy: BackoffPolicy::Linear,
                delay: Duration::from_secs(1)
            }),
            timeout: Some(Duration::from_millis(1_500)),
            retry_after_max: Some(Duration::from_mins(1)),
            format: Format::Json,
        }
    );
    let error = spec(r#"{"timeout":"1s"}"#).read().unwrap_err();
    assert_eq!(
        error.to_string(),
        "delivery.timeout \"1s\" is a duration of ISO 8601, such as PT0.2S, PT5M or P1DT2H"
    );
}

#[test]
fn admission_refuses_in_knatives_words() {
    let defaults = DeliveryFlags::default();
    let all = DeliveryFlags {
        timeout: true,
        retry_after: true,
    };
    let none = DeliveryFlags {
        timeout: false,
        retry_after: false,
    };
    for (json, flags, refused) in [
        (
            r#"{"retry":-1}"#,
            defaults,
            "invalid value: -1: delivery.retry",
        ),
        (
            r#"{"backoffPolicy":"sometimes"}"#,
            defaults,
            "invalid value: sometimes: delivery.backoffPolicy",
        ),
        (
            r#"{"backoffDelay":"1s"}"#,
            defaults,
            "invalid value: 1s: delivery.backoffDelay",
        ),
        (
            r#"{"timeout":"PT0S"}"#,
            defaults,
            "invalid value: PT0S: delivery.timeout",
        ),
        (
            r#"{"timeout":"x"}"#,
            defaults,
            "invalid value: x: delivery.timeout",
        ),
        (
            r#"{"timeout":"PT1S"}"#,
            none,
            "must not set the field(s): delivery.timeout",
        ),
        (
            r#"{"retryAfterMax":"PT1S"}"#,
            defaults,
            "must not set the field(s): delivery.retryAfterMax",
        ),
        (
            r#"{"retryAfterMax":"-PT1S"}"#,
            defaults,
            "must not set the field(s): delivery.retryAfterMax",
        ),
        (
            r#"{"retryAfterMax":"-PT1S"}"#,
            all,
            "invalid value: -PT1S: delivery.retryAfterMax",
        ),
        (
            r#"{"retryAfterMax":"x"}"#,
            all,
            "invalid value: x: delivery.retryAfterMax",
        ),
        (
            r#"{"format":"xml"}"#,
            defaults,
            "invalid value: xml: delivery.format",
        ),
    ] {
        let refusals = spec(json).validate(flags);
        let words: Vec<String> = refusals
            .iter()
            .map(|one| format!("{}: {}", one.message, one.path))
            .collect();
        assert_eq!(words, [refused], "{json}");
    }
    for (json, flags) in [
        (r#"{}"#, defaults),
        (r#"{"retry":0}"#, defaults),
        (
            r#"{"retry":3,"backoffPolicy":"exponential","backoffDelay":"PT1S"}"#,
            defaults,
        ),
        (r#"{"backoffDelay":"PT0S"}"#, defaults),
        (r#"{"backoffDelay":"-PT1S"}"#, defaults),
        (r#"{"backoffDelay":"P1DT2H"}"#, defaults),
        (r#"{"timeout":"PT1S","format":"json"}"#, defaults),
        (r#"{"retryAfterMax":"PT0S","format":"binary"}"#, all),
    ] {
        assert_eq!(spec(json).validate(flags), [], "{json}");
    }
}

fn event() -> Event {
    Event::new("1", "/s", "t").unwrap()
}

/// The three extensions of a dead letter.
fn annotated(status: Option<u16>, body: &[u8]) -> [String; 3] {
    let mut event = event();
    annotate(&mut event, "http://sub/x?y=z", status, body).unwrap();
    ["knativeerrordest", "knativeerrorcode", "knativeerrordata"].map(|name| {
        let value = event.extension(name).unwrap();
        value.with_text(|text| String::from_utf8(text.to_vec()).unwrap())
    })
}

#[test]
fn dead_letters_say_what_failed() {
    assert_eq!(
        annotated(Some(500), b"boom"),
        ["http://sub/x?y=z", "500", "Ym9vbQ=="]
    );
    // Recorded: the data is there, and empty.
    assert_eq!(annotated(Some(422), b""), ["http://sub/x?y=z", "422", ""]);
    let refused = b"dispatch error: Post \"http://10.244.0.1:9998/\": dial tcp 10.244.0.1:9998: connect: connection refused";
    assert_eq!(
        annotated(None, refused),
        [
            "http://sub/x?y=z",
            "500",
            "ZGlzcGF0Y2ggZXJyb3I6IFBvc3QgImh0dHA6Ly8xMC4yNDQuMC4xOjk5OTgvIjogZGlhbCB0Y3AgMTAuMjQ0LjAuMTo5OTk4OiBjb25uZWN0OiBjb25uZWN0aW9uIHJlZnVzZWQ="
        ]
    );
    for bytes in [767, 768, 769, 100_000] {
        let [_, _, data] = annotated(Some(500), &vec![b'a'; bytes]);
        assert_eq!(data.len(), ERROR_DATA_CHARACTERS_MAX, "{bytes}");
    }
    assert!(annotate(&mut event(), "http://a\nb", None, b"").is_err());
}

#[test]
fn a_dead_letter_that_fails_again_says_the_last_failure() {
    let mut event = event();
    annotate(&mut event, "http://a", Some(500), b"a").unwrap();
    annotate(&mut event, "http://b", Some(404), b"").unwrap();
    assert_eq!(event.extension("knativeerrordest"), Some("http://b".into()));
    assert_eq!(
        event.extension("knativeerrorcode"),
        Some(Value::Integer(404))
    );
    assert_eq!(event.extension("knativeerrordata"), Some("".into()));
}

#[test]
fn the_answer_of_a_filter_names_the_subscriber() {
    let answer = FilterAnswer::new("http://sub/", b"boom");
    let json = answer.to_json();
    assert_eq!(
        json,
        b"{\"errdestination\":\"http://sub/\",\"errresponsebody\":\"Ym9vbQ==\"}"
    );
    let read = FilterAnswer::read(&json).unwrap();
    assert_eq!(
        (read.destination.as_str(), read.body()),
        ("http://sub/", Some(b"boom".to_vec()))
    );
    assert_eq!(FilterAnswer::read(b"dispatch error: timeout"), None);
    assert_eq!(FilterAnswer::read(b""), None);
    assert_eq!(
        FilterAnswer::read(b"{\"errdestination\":\"x\",\"errresponsebody\":\"?\"}")
            .unwrap()
            .body(),
        None
    );
}

/// What stages add must not make the next stage refuse the event.
#[test]
fn a_full_event_has_room_for_what_stages_add() {
    use crate::event::{ATTRIBUTES_BYTES_MAX, EXTENSIONS_MAX, OWN_EXTENSIONS};
    let mut event = event();
    for number in 0..EXTENSIONS_MAX {
        let name = ExtensionName::parse(&format!("n{number:02}")).unwrap();
        event.set_extension(name, "".into()).unwrap();
    }
    let room = ATTRIBUTES_BYTES_MAX - event.attributes_bytes();
    let name = ExtensionName::parse("n00").unwrap();
    event
        .set_extension(name, "x".repeat(room).as_str().into())
        .unwrap();
    let taken_again = |event: &Event| {
        let mut headers = http::HeaderMap::new();
        let body = crate::binding::encode(event, Format::Binary, &mut headers);
        crate::binding::decode(&headers, body).is_ok()
    };
    assert!(taken_again(&event));
    arrive(&mut event, TTL_DEFAULT, now()).unwrap();
    let address = format!("http://sub/{}", "x".repeat(2_000));
    annotate(&mut event, &address, None, &[b'x'; 10_000]).unwrap();
    assert!(taken_again(&event));
    let own = [
        &TTL,
        &ARRIVAL_TIME,
        &ERROR_CODE,
        &ERROR_DATA,
        &ERROR_DESTINATION,
    ];
    assert!(
        own.iter()
            .all(|name| OWN_EXTENSIONS.contains(&name.as_str()))
    );
    assert_eq!(own.len(), OWN_EXTENSIONS.len());
    // Nobody hides more behind those names.
    let large = "x".repeat(9 << 10);
    event
        .set_extension(ERROR_DESTINATION.clone(), large.as_str().into())
        .unwrap();
    assert!(!taken_again(&event));
    assert!(
        event
            .set_extension(ExtensionName::parse("more").unwrap(), "".into())
            .is_err()
    );
}

#[test]
fn every_pass_costs_one() {
    for (ttl, left) in [
        (None, Ok(255)),
        (Some(Value::from("255")), Ok(254)),
        (Some(Value::Integer(3)), Ok(2)),
        (Some(Value::from("2")), Ok(1)),
        (Some(Value::from("2.9")), Ok(1)),
        (Some(Value::from("1e2")), Ok(99)),
        // Recorded: 400.
        (Some(Value::from("1")), Err(1)),
        (Some(Value::from("0")), Err(0)),
        (Some(Value::from("-5")), Err(-5)),
        (Some(Value::Integer(i32::MIN)), Err(i32::MIN)),
        // What is no number is as absent.
        (Some(Value::from("many")), Ok(255)),
        (Some(Value::from("")), Ok(255)),
        (Some(Value::from("NaN")), Ok(255)),
        (Some(Value::from("9999999999")), Ok(255)),
        (Some(Value::Boolean(true)), Ok(255)),
    ] {
        let mut event = event();
        if let Some(ttl) = ttl {
            event.set_extension(TTL.clone(), ttl).unwrap();
        }
        match (arrive(&mut event, TTL_DEFAULT, now()), left) {
            (Ok(()), Ok(left)) => {
                assert_eq!(remaining_ttl(&event), Some(left), "{ttl:?}");
                assert_eq!(
                    event.extension("knativearrivaltime"),
                    Some("2026-11-21T10:00:00Z".into())
                );
            }
            (Err(TtlExhausted::Exhausted(found)), Err(left)) => assert_eq!(found, left, "{ttl:?}"),
            (found, _) => panic!("{ttl:?}: {found:?}"),
        }
    }
    // A loop ends.
    let mut event = event();
    let passes = (0..)
        .take_while(|_| arrive(&mut event, 3, now()).is_ok())
        .count();
    assert_eq!(passes, 3);
    assert!(event.remove_extension(TTL.as_str()));
    let name: &ExtensionName = &ARRIVAL_TIME;
    assert_eq!(name.as_str(), "knativearrivaltime");
}
