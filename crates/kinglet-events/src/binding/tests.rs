//! Requests as they were recorded from Knative, each mode there and back, and what is refused.

use http::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::event::{ATTRIBUTES_BYTES_MAX, Attribute, EXTENSIONS_MAX, ExtensionName, Value};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect()
}

/// A valid event in binary mode, with changes: an empty value takes a header away.
fn binary(changes: &[(&str, &str)], body: &'static str) -> Result<Event, DecodeError> {
    let mut all = headers(&[
        ("Ce-Specversion", "1.0"),
        ("Ce-Id", "1"),
        ("Ce-Type", "foo"),
        ("Ce-Source", "/src"),
        ("Content-Type", "application/json"),
    ]);
    for (name, value) in changes {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        all.remove(&name);
        if *value != "-" {
            all.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
    }
    decode(&all, Bytes::from_static(body.as_bytes()))
}

fn structured(body: &str) -> Result<Event, DecodeError> {
    let all = headers(&[(
        "Content-Type",
        "application/cloudevents+json; charset=UTF-8",
    )]);
    decode(&all, Bytes::copy_from_slice(body.as_bytes()))
}

/// As it is sent in binary mode.
fn sent(event: &Event) -> (Vec<(String, String)>, String) {
    let mut headers = HeaderMap::new();
    let body = encode(event, Format::Binary, &mut headers);
    let mut pairs: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8(value.as_bytes().to_vec()).unwrap(),
            )
        })
        .collect();
    pairs.sort();
    (pairs, String::from_utf8(body.to_vec()).unwrap())
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn recorded_requests_and_their_status() {
    let large: &'static str = Box::leak("x".repeat(2_000_002).into_boxed_str());
    for (what, request, accepted) in [
        ("binary", binary(&[("Ce-Myext", "v"), ("Ce-Traceparent", "x")], "{\"a\":1}"), true),
        (
            "every attribute",
            binary(&[
                ("Ce-Time", "2020-01-02T03:04:05.678Z"),
                ("Ce-Subject", "sub"),
                ("Ce-Dataschema", "http://x/y"),
                ("X-Custom", "dropped?"),
            ], "{}"),
            true,
        ),
        (
            "structured",
            structured("{\"specversion\": \"1.0\", \"id\": \"s1\", \"type\": \"foo\", \"source\": \"/s\", \"datacontenttype\": \"application/json\", \"ext1\": 7, \"ext2\": true, \"data\": {\"x\": 1}}"),
            true,
        ),
        ("no id", binary(&[("Ce-Id", "-")], "{}"), false),
        ("no type", binary(&[("Ce-Type", "-")], "{}"), false),
        ("empty source", binary(&[("Ce-Source", "")], "{}"), false),
        ("bad specversion", binary(&[("Ce-Specversion", "9.9")], "{}"), false),
        ("19.0", binary(&[("Ce-Specversion", "19.0")], "{}"), false),
        ("9000.1", binary(&[("Ce-Specversion", "9000.1")], "{}"), false),
        ("0.3", binary(&[("Ce-Specversion", "0.3")], "{}"), true),
        ("not an event", decode(&headers(&[("Content-Type", "application/json")]), "{}".into()), false),
        ("broken structured", structured("{\"a\""), false),
        ("bad ext name", binary(&[("Ce-Bad_name", "v")], "{}"), false),
        ("bad time", binary(&[("Ce-Time", "yesterday")], "{}"), false),
        ("no content type", binary(&[("Content-Type", "-")], "abc"), true),
        ("text", binary(&[("Content-Type", "text/plain")], "abc"), true),
        ("empty body", binary(&[], ""), true),
        ("bad json body", binary(&[], "{nope"), true),
        ("escapes", binary(&[("Ce-Subject", "Euro %E2%82%AC %F0%9F%98%80 %20")], "{}"), true),
        ("2 MB", binary(&[], large), true),
        ("thrift", binary(&[("Content-Type", "application/vnd.apache.thrift.binary")], "x"), true),
        ("xml", binary(&[("Content-Type", "application/xml")], "<a/>"), true),
        ("not a media type", binary(&[("Content-Type", "a/b/c")], "x"), false),
        (
            "batch",
            decode(
                &headers(&[("Content-Type", "application/cloudevents-batch+json")]),
                "[{\"specversion\": \"1.0\", \"id\": \"t1\", \"type\": \"foo\", \"source\": \"/s\"}]".into(),
            ),
            false,
        ),
        ("events as xml", binary(&[("Content-Type", "application/cloudevents+xml"), ("Ce-Specversion", "-")], "<a/>"), false),
        ("Latin-1", decode(&{
            let mut all = headers(&[("Ce-Specversion", "1.0"), ("Ce-Id", "1"), ("Ce-Type", "t"), ("Ce-Source", "/s")]);
            all.insert("ce-subject", HeaderValue::from_bytes(b"caf\xe9").unwrap());
            all
        }, Bytes::new()), false),
        ("UTF-8", binary(&[("Ce-Subject", "café")], ""), true),
    ] {
        match &request {
            Ok(_) => assert!(accepted, "{what}"),
            Err(error) => {
                assert!(!accepted, "{what}: {error}");
                assert_eq!(error.status(), 400, "{what}");
                assert!(error.to_string().len() > 20, "{what}: {error}");
            }
        }
    }
}

#[test]
fn refusals_say_why() {
    for (request, words) in [
        (
            decode(&HeaderMap::new(), Bytes::new()),
            "this is not a CloudEvent: header ce-specversion is missing, and there is no content type. Send headers ce-specversion (1.0 or 0.3), ce-id, ce-type and ce-source, or a JSON object as application/cloudevents+json",
        ),
        (
            binary(&[("Ce-Specversion", "9.9")], ""),
            "this is not a CloudEvent: version \"9.9\" in ce-specversion is not known, and content type \"application/json\" is not that of an event. Send headers ce-specversion (1.0 or 0.3), ce-id, ce-type and ce-source, or a JSON object as application/cloudevents+json",
        ),
        (
            binary(&[("Ce-Id", "-"), ("Ce-Time", "yesterday")], ""),
            "the event is not valid: attribute \"time\" is a timestamp of RFC 3339, such as 2006-01-02T15:04:05Z, and is \"yesterday\"; attribute \"id\" is required and not empty",
        ),
        (
            binary(&[("Ce-Source", "1:2")], ""),
            "the event is not valid: attribute \"source\" is a URI reference (RFC 3986), and is \"1:2\"",
        ),
        (
            structured("{\"specversion\":\"1.0\",\"ID\":\"1\",\"type\":\"t\",\"source\":\"/s\"}"),
            "the event is not valid: attribute \"ID\" is written \"id\": names of attributes are in lower case; attribute \"id\" is required and not empty",
        ),
        (
            structured("[]"),
            "reading the body as a CloudEvent in JSON: invalid type: sequence, expected an object with the attributes of an event at line 1 column 0",
        ),
        (
            structured("{\"id\":\"1\"}"),
            "the event is not valid: attribute \"specversion\" is required: 1.0 or 0.3",
        ),
    ] {
        assert_eq!(request.unwrap_err().to_string(), words);
    }
}

#[test]
fn structured_members() {
    let event = |members: &str| {
        structured(&format!(
            "{{\"specversion\":\"1.0\",\"id\":\"1\",\"type\":\"t\",\"source\":\"/s\"{members}}}"
        ))
    };
    for (members, accepted) in [
        ("", true),
        (",\"subject\":null,\"time\":null", true),
        (",\"subject\":\"\"", true),
        (",\"subject\":\"  \"", false),
        (",\"subject\":5", false),
        (",\"time\":\"2020-01-02T03:04:05Z\"", true),
        (",\"time\":5", false),
        (",\"dataschema\":\"/relative\"", false),
        (",\"ext\":{}", false),
        (",\"ext\":[]", false),
        (",\"ext\":2147483647", true),
        (",\"ext\":2147483648", false),
        (",\"ext\":-2147483649", false),
        (",\"ext\":1e300", false),
        (",\"ext\":7.9", true),
        (",\"a_b\":1", false),
        (",\"UPPER\":1", true),
        (",\"Type\":\"t\"", false),
        (",\"datacontenttype\":\"text/plain\",\"data\":\"x\"", true),
        (",\"datacontenttype\":\"text/plain\",\"data\":{}", false),
        (
            ",\"datacontenttype\":\"application/vnd.x+json\",\"data\":{}",
            true,
        ),
        (",\"data\":[1,2", false),
        (",\"data_base64\":\"AAEC\"", true),
        (",\"data_base64\":\"?\"", false),
        (",\"data_base64\":5", false),
        (",\"ext\":\"a\\nb\"", false),
        (",\"ext\":\"\\ud800\"", false),
    ] {
        assert_eq!(
            event(members).is_ok(),
            accepted,
            "{members}: {:?}",
            event(members)
        );
    }
    let read =
        event(",\"Ext\":7.9,\"no\":false,\"gone\":1,\"gone\":null,\"twice\":1,\"twice\":\"b\"")
            .unwrap();
    assert_eq!(read.extension("ext"), Some(Value::Integer(7)));
    assert_eq!(read.extension("no"), Some(Value::Boolean(false)));
    assert_eq!(read.extension("gone"), None);
    assert_eq!(read.extension("twice"), Some("b".into()));
}

#[test]
fn structured_data_is_a_part_of_the_body() {
    let body = Bytes::from_static(b"{\"specversion\":\"1.0\",\"data\": {\"x\": 1} ,\"id\":\"1\",\"type\":\"t\",\"source\":\"/s\"}");
    let all = headers(&[("content-type", STRUCTURED)]);
    let event = decode(&all, body.clone()).unwrap();
    let data = event.data().unwrap();
    assert_eq!(data, "{\"x\": 1}");
    assert!(body.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn structured_becomes_binary_as_recorded() {
    let event = structured("{\"specversion\": \"1.0\", \"id\": \"s1\", \"type\": \"foo\", \"source\": \"/s\", \"datacontenttype\": \"application/json\", \"ext1\": 7, \"ext2\": true, \"data\": {\"x\": 1}}").unwrap();
    let expected = pairs(&[
        ("ce-ext1", "7"),
        ("ce-ext2", "true"),
        ("ce-id", "s1"),
        ("ce-source", "/s"),
        ("ce-specversion", "1.0"),
        ("ce-type", "foo"),
        ("content-type", "application/json"),
    ]);
    assert_eq!(sent(&event), (expected, "{\"x\": 1}".to_owned()));
}

#[test]
fn binary_becomes_structured_as_recorded() {
    let event = binary(
        &[
            ("Ce-Id", "id-j"),
            ("Ce-Type", "j"),
            ("Ce-Ext", "kept"),
            ("Ce-Knativearrivaltime", "2026-11-21T10:39:00.011280989Z"),
        ],
        "{\"n\":\"j\"}",
    )
    .unwrap();
    let mut headers = HeaderMap::new();
    let body = encode(&event, Format::Json, &mut headers);
    assert_eq!(
        headers.get("content-type").unwrap(),
        "application/cloudevents+json"
    );
    assert_eq!(headers.len(), 1);
    assert_eq!(
        body,
        "{\"specversion\":\"1.0\",\"id\":\"id-j\",\"source\":\"/src\",\"type\":\"j\",\"datacontenttype\":\"application/json\",\"data\":{\"n\":\"j\"},\"ext\":\"kept\",\"knativearrivaltime\":\"2026-11-21T10:39:00.011280989Z\"}"
    );
    // The recorded length.
    assert_eq!(body.len(), 181);
}

#[test]
fn data_in_json_is_json_text_or_base64() {
    let data = |kind: &str, body: &'static str| {
        let event = binary(&[("Content-Type", kind)], body).unwrap();
        let json = encode(&event, Format::Json, &mut HeaderMap::new());
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        (json["data"].to_string(), json["data_base64"].to_string())
    };
    let null = || "null".to_owned();
    assert_eq!(data("application/json", "[1]"), ("[1]".into(), null()));
    assert_eq!(data("-", "[1]"), ("[1]".into(), null()));
    assert_eq!(data("a/b+json", "[1]"), ("[1]".into(), null()));
    assert_eq!(data("text/plain", "a\"b"), ("\"a\\\"b\"".into(), null()));
    assert_eq!(data("text/plain", ""), (null(), null()));
    // Knative writes what is no JSON as it is.
    assert_eq!(
        data("application/json", "{nope"),
        (null(), "\"e25vcGU=\"".into())
    );
    let mut event = binary(&[("Content-Type", "application/octet-stream")], "").unwrap();
    event.set_data(Some(Bytes::from_static(&[0xff, 0])));
    let json = encode(&event, Format::Json, &mut HeaderMap::new());
    assert!(json.ends_with(b",\"data_base64\":\"/wA=\"}"), "{json:?}");
}

#[test]
fn an_event_of_0_3_stays_one() {
    let event = binary(
        &[
            ("Ce-Specversion", "0.3"),
            ("Ce-Schemaurl", "/schema"),
            ("Ce-Dataschema", "an extension"),
        ],
        "{}",
    )
    .unwrap();
    let (sent_headers, _) = sent(&event);
    let expected = pairs(&[
        ("ce-dataschema", "an extension"),
        ("ce-id", "1"),
        ("ce-schemaurl", "/schema"),
        ("ce-source", "/src"),
        ("ce-specversion", "0.3"),
        ("ce-type", "foo"),
        ("content-type", "application/json"),
    ]);
    assert_eq!(sent_headers, expected);
    let event = structured("{\"specversion\":\"0.3\",\"id\":\"1\",\"type\":\"t\",\"source\":\"/s\",\"datacontentencoding\":\"base64\",\"datacontenttype\":\"text/plain\",\"data\":\"YWJj\"}").unwrap();
    assert_eq!(event.data().unwrap(), "abc");
    let json = encode(&event, Format::Json, &mut HeaderMap::new());
    assert_eq!(
        json,
        "{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\",\"datacontenttype\":\"text/plain\",\"datacontentencoding\":\"base64\",\"data\":\"YWJj\"}"
    );
}

#[test]
fn the_first_of_several_headers_counts_and_nothing_is_percent_decoded() {
    let mut all = headers(&[
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-type", "t"),
        ("ce-source", "/s"),
    ]);
    all.append("ce-id", HeaderValue::from_static("2"));
    all.append("ce-ext", HeaderValue::from_static("%20"));
    all.append("ce-ext", HeaderValue::from_static("b"));
    let event = decode(&all, Bytes::new()).unwrap();
    assert_eq!(event.id(), "1");
    assert_eq!(event.extension("ext"), Some("%20".into()));
    assert_eq!(event.data(), None);
}

#[test]
fn a_header_named_like_the_content_type_is_an_extension() {
    let event = binary(&[("ce-datacontenttype", "x")], "{}").unwrap();
    assert_eq!(event.text(Attribute::DataContentType), "application/json");
    assert!(
        sent(&event)
            .0
            .contains(&("ce-datacontenttype".to_owned(), "x".to_owned()))
    );
    let json = encode(&event, Format::Json, &mut HeaderMap::new());
    assert!(structured(std::str::from_utf8(&json).unwrap()).is_ok());
}

#[test]
fn events_are_bounded() {
    let large = "x".repeat(ATTRIBUTES_BYTES_MAX);
    let error = binary(&[("ce-ext", &large)], "").unwrap_err();
    assert_eq!(error.status(), 413);
    let mut all = headers(&[
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-type", "t"),
        ("ce-source", "/s"),
    ]);
    for number in 0..=EXTENSIONS_MAX {
        let name = HeaderName::from_bytes(format!("ce-n{number}").as_bytes()).unwrap();
        all.insert(name, HeaderValue::from_static("1"));
    }
    assert!(matches!(
        decode(&all, Bytes::new()),
        Err(DecodeError::Invalid(_))
    ));
    let many: String = (0..200).map(|number| format!(",\"n{number}\":1")).collect();
    let error = structured(&format!("{{\"specversion\":\"1.0\"{many}}}")).unwrap_err();
    assert!(matches!(error, DecodeError::Json(_)), "{error}");
    let error = decode(&all, Bytes::from(vec![0; BODY_BYTES_MAX + 1])).unwrap_err();
    assert_eq!(error.status(), 413);
    // An answer lists some of many problems, and of each value the beginning.
    let wrong: String = (0..90)
        .map(|number| format!(",\"a_{number}{}\":1", "x".repeat(500)))
        .collect();
    let error = structured(&format!("{{\"specversion\":\"1.0\"{wrong}}}")).unwrap_err();
    assert!(
        error.to_string().len() < 4_000,
        "{}",
        error.to_string().len()
    );
    let deep = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"1\",\"type\":\"t\",\"source\":\"/s\",\"data\":{}1{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let _ = structured(&deep);
}

#[test]
fn batches_are_read_where_they_are_asked_for() {
    let events = vec![
        binary(&[], "{}").unwrap(),
        structured("{\"specversion\":\"1.0\",\"id\":\"2\",\"type\":\"t\",\"source\":\"/s\"}")
            .unwrap(),
    ];
    let mut all = HeaderMap::new();
    let body = encode_batch(&events, &mut all);
    assert_eq!(decode_batch(&all, &body).unwrap(), events);
    assert_eq!(decode_batch(&all, &Bytes::from_static(b"[]")).unwrap(), []);
    assert!(decode_batch(&all, &Bytes::from_static(b"{}")).is_err());
    assert!(decode_batch(&all, &Bytes::from_static(b"[{}]")).is_err());
    assert!(decode_batch(&HeaderMap::new(), &body).is_err());
    let many = format!("[{}]", vec!["{}"; BATCH_EVENTS_MAX + 1].join(","));
    assert!(matches!(
        decode_batch(&all, &many.into()),
        Err(DecodeError::Json(_))
    ));
}

#[test]
fn replies() {
    assert_eq!(
        [100, 199, 200, 404, 599, 600].map(answer_status),
        [200, 200, 200, 404, 599, 200]
    );
    assert_eq!(decode_reply(&HeaderMap::new(), Bytes::new()), Reply::Empty);
    assert_eq!(
        decode_reply(
            &headers(&[("content-type", "text/plain")]),
            "notanevent".into()
        ),
        Reply::Other
    );
    let event = binary(&[], "{}").unwrap();
    let mut all = HeaderMap::new();
    let body = encode(&event, Format::Binary, &mut all);
    assert_eq!(
        decode_reply(&all, body.clone()),
        Reply::Event(Box::new(event))
    );
    all.remove("ce-id");
    assert!(matches!(
        decode_reply(&all, body),
        Reply::Malformed(DecodeError::Invalid(_))
    ));
    assert!(matches!(
        decode_reply(&headers(&[("content-type", STRUCTURED)]), Bytes::new()),
        Reply::Malformed(_)
    ));
    assert!(matches!(
        decode_reply(&headers(&[("content-type", BATCH)]), "[]".into()),
        Reply::Malformed(DecodeError::Batch)
    ));
}

/// Values that HTTP takes and does not trim.
fn text() -> impl Strategy<Value = String> {
    "[!-~é€😀]([ -~é€😀]{0,12}[!-~é€😀])?"
}

fn data() -> impl Strategy<Value = (Option<&'static str>, Option<Vec<u8>>)> {
    let json = Just((
        Some("application/json"),
        Some(b"{\"a\":[1,\"x\"]}".to_vec()),
    ));
    let kinds = prop::sample::select(vec![
        None,
        Some("application/json"),
        Some("text/plain"),
        Some("application/octet-stream"),
    ]);
    prop_oneof![
        json,
        (
            kinds,
            prop::option::of(prop::collection::vec(any::<u8>(), 1..20))
        )
    ]
}

fn events() -> impl Strategy<Value = Event> {
    let extension = (
        "[a-z0-9]{1,10}",
        prop_oneof![
            text().prop_map(Ok),
            any::<i32>().prop_map(|number| Err(Value::Integer(number))),
            any::<bool>().prop_map(|boolean| Err(Value::Boolean(boolean))),
        ],
    );
    (
        text(),
        "/[a-z]{0,5}",
        text(),
        prop::option::of(text()),
        data(),
        prop::collection::vec(extension, 0..4),
    )
        .prop_map(
            |(id, source, kind, subject, (content_type, data), extensions)| {
                let mut event = Event::new(&id, &source, &kind).unwrap();
                event
                    .set(Attribute::Subject, subject.as_deref().unwrap_or_default())
                    .unwrap();
                event
                    .set(Attribute::DataContentType, content_type.unwrap_or_default())
                    .unwrap();
                event.set_data(data.map(Bytes::from));
                for (name, value) in extensions {
                    let reserved = Attribute::parse(event.version(), &name).is_some();
                    if reserved || ["specversion", "data"].contains(&name.as_str()) {
                        continue;
                    }
                    let value = match &value {
                        Ok(text) => text.as_str().into(),
                        Err(value) => *value,
                    };
                    event
                        .set_extension(ExtensionName::parse(&name).unwrap(), value)
                        .unwrap();
                }
                event
            },
        )
}

proptest! {
    #[test]
    fn structured_there_and_back(event in events()) {
        let mut headers = HeaderMap::new();
        let body = encode(&event, Format::Json, &mut headers);
        prop_assert_eq!(decode(&headers, body).unwrap(), event);
    }

    #[test]
    fn binary_there_and_back(event in events()) {
        let mut headers = HeaderMap::new();
        let body = encode(&event, Format::Binary, &mut headers);
        let mut expected = event;
        expected.stringify_extensions();
        prop_assert_eq!(decode(&headers, body).unwrap(), expected);
    }

    #[test]
    fn no_body_is_a_reason_to_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&headers(&[("content-type", STRUCTURED)]), body.into());
    }

    #[test]
    fn what_is_read_can_be_sent(json in "\\{(\"(specversion|id|type|source|time|data|x)\":(\"[01.\\PC]{0,6}\"|1|null|\\{\\}),?){0,7}\\}") {
        if let Ok(event) = structured(&json) {
            let mut headers = HeaderMap::new();
            let body = encode(&event, Format::Binary, &mut headers);
            let read = decode(&headers, body);
            prop_assert!(read.is_ok(), "{:?}", read);
        }
    }
}
