//! Rules of attributes.

use proptest::prelude::*;

use super::*;

fn event() -> Event {
    Event::new("1", "/s", "t").unwrap()
}

#[test]
fn required_attributes_are_not_blank() {
    for (id, source, kind, wrong) in [
        ("", "/s", "t", "id"),
        ("  ", "/s", "t", "id"),
        ("1", "", "t", "source"),
        ("1", "/s", " ", "type"),
    ] {
        let problems = Event::new(id, source, kind).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.name == wrong),
            "{problems:?}"
        );
    }
    let problem = &Event::new("", "/s", "t").unwrap_err()[0];
    assert_eq!(
        problem.to_string(),
        "attribute \"id\" is required and not empty"
    );
}

#[test]
fn sources_are_uri_references() {
    for source in [
        "/a/b",
        "a",
        "a/b",
        "x:y",
        "urn:uuid:1",
        "http://a/b?c=d#e",
        "http://a:80/",
        "http://[::1]:80/",
        "https://u:p@h/",
        "//host/path",
        "mailto:a@b",
        "/a b",
        "/a%20b",
        "?q",
        "#f",
        "http://h",
        "a/b:c",
        "tel:%zz",
        "é",
        "http://h:/",
        "*",
    ] {
        assert!(Event::new("1", source, "t").is_ok(), "{source}");
    }
    for source in [
        "1:2",
        ":a",
        "/%zz",
        "/%2",
        "http://a:x/",
        "http://[::1",
        "http://a b/",
        "a b:c",
        "http://h/%",
    ] {
        assert!(Event::new("1", source, "t").is_err(), "{source}");
    }
}

#[test]
fn schemas_are_absolute() {
    for (schema, valid) in [
        ("http://s", true),
        ("urn:a", true),
        ("/s", false),
        ("s", false),
        ("1:2", false),
    ] {
        assert_eq!(
            event().set(Attribute::DataSchema, schema).is_ok(),
            valid,
            "{schema}"
        );
    }
    let mut old = Event::empty(SpecVersion::V03);
    assert!(old.set(Attribute::DataSchema, "/s").is_ok());
}

#[test]
fn content_types_are_media_types() {
    for (kind, valid) in [
        ("application/json", true),
        ("application/json; charset=utf-8", true),
        ("application/json;charset=\"utf-8\"", true),
        ("text/plain; a=b; c=\"d\\\"e\"", true),
        ("text/plain;", true),
        ("json", true),
        ("application/x-thrift", true),
        ("a/b/c", false),
        ("/json", false),
        ("application/", false),
        ("text/plain; charset", false),
        ("text/plain; a=b; a=c", false),
        ("text/plain; a=\"b", false),
        ("text/plain; =b", false),
        ("text/plain; a=b c", false),
        ("te xt/plain", false),
        ("; a=b", false),
    ] {
        assert_eq!(
            event().set(Attribute::DataContentType, kind).is_ok(),
            valid,
            "{kind}"
        );
    }
}

#[test]
fn times_are_sent_on_in_utc() {
    for (time, sent) in [
        ("2020-01-02T03:04:05Z", Some("2020-01-02T03:04:05Z")),
        ("2020-01-02T03:04:05.678Z", Some("2020-01-02T03:04:05.678Z")),
        (
            "2020-01-02T03:04:05.678000Z",
            Some("2020-01-02T03:04:05.678Z"),
        ),
        (
            "2020-01-02T03:04:05.123456789Z",
            Some("2020-01-02T03:04:05.123456789Z"),
        ),
        (
            "2020-01-02T03:04:05.1234567891Z",
            Some("2020-01-02T03:04:05.123456789Z"),
        ),
        ("2020-01-02T03:04:05,5Z", Some("2020-01-02T03:04:05.5Z")),
        ("2020-01-02T03:04:05+01:00", Some("2020-01-02T02:04:05Z")),
        ("2020-01-02T23:04:05-02:30", Some("2020-01-03T01:34:05Z")),
        ("2020-02-29T00:00:00Z", Some("2020-02-29T00:00:00Z")),
        ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
        ("yesterday", None),
        ("2020-01-02", None),
        ("2020-01-02T03:04:05", None),
        ("2020-01-02 03:04:05Z", None),
        ("2020-01-02t03:04:05z", None),
        ("2020-01-02T03:04Z", None),
        ("2020-13-02T03:04:05Z", None),
        ("2021-02-29T00:00:00Z", None),
        ("2020-01-02T24:00:00Z", None),
        ("2020-01-02T03:60:05Z", None),
        ("2020-01-02T03:04:60Z", None),
        ("2020-01-02T03:04:05.Z", None),
        ("2020-01-02T03:04:05+0100", None),
        ("2020-01-02T03:04:05+24:00", None),
        ("2020-01-02T03:04:05Z[UTC]", None),
        ("0000-01-01T00:00:00+01:00", None),
        ("1577934245", None),
        ("2020-01-02T03:04:05é", None),
        ("2020-01-02T03:04:0é", None),
    ] {
        let mut event = event();
        let set = event.set(Attribute::Time, time);
        assert_eq!(set.is_ok(), sent.is_some(), "{time}");
        assert_eq!(
            event.text(Attribute::Time),
            sent.unwrap_or_default(),
            "{time}"
        );
    }
}

#[test]
fn empty_optional_attributes_are_absent_and_blank_ones_are_wrong() {
    let mut event = event();
    event.set(Attribute::Subject, "s").unwrap();
    event.set(Attribute::Subject, "").unwrap();
    assert_eq!(event.attribute(Attribute::Subject), None);
    assert!(event.set(Attribute::Subject, "  ").is_err());
    assert!(event.set(Attribute::Subject, "a\nb").is_err());
    assert!(event.set(Attribute::Subject, "a\u{85}b").is_err());
    assert!(event.set(Attribute::Subject, "tab\there").is_ok());
}

#[test]
fn extensions_are_named_in_letters_and_digits() {
    for (name, parsed) in [
        ("abc", Some("abc")),
        ("ABC", Some("abc")),
        ("1a", Some("1a")),
        ("a_b", None),
        ("a-b", None),
        ("", None),
        ("é", None),
        ("a b", None),
    ] {
        let found = ExtensionName::parse(name).ok();
        assert_eq!(found.as_ref().map(ExtensionName::as_str), parsed, "{name}");
    }
    assert!(ExtensionName::parse(&"a".repeat(ATTRIBUTE_NAME_BYTES_MAX + 1)).is_err());
}

#[test]
fn extensions_are_sorted_single_and_bounded() {
    let mut event = event();
    for name in ["b", "a", "c", "a"] {
        event
            .set_extension(ExtensionName::parse(name).unwrap(), name.into())
            .unwrap();
    }
    let names: Vec<&str> = event.extensions().iter().map(Extension::name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(event.remove_extension("b"));
    assert!(!event.remove_extension("b"));
    for number in 0..EXTENSIONS_MAX {
        let name = ExtensionName::parse(&format!("n{number:03}")).unwrap();
        let set = event.set_extension(name, 1.into());
        assert_eq!(set.is_ok(), number < EXTENSIONS_MAX - 2, "{number}");
    }
    assert!(
        event
            .set_extension(ExtensionName::parse("a").unwrap(), 2.into())
            .is_ok()
    );
}

#[test]
fn numbers_and_booleans_become_text() {
    let mut event = event();
    for (name, value) in [
        ("int", Value::Integer(i32::MIN)),
        ("yes", Value::Boolean(true)),
        ("no", Value::Boolean(false)),
        ("text", "x".into()),
    ] {
        event
            .set_extension(ExtensionName::parse(name).unwrap(), value)
            .unwrap();
    }
    event.stringify_extensions();
    assert_eq!(event.extension("int"), Some("-2147483648".into()));
    assert_eq!(event.extension("yes"), Some("true".into()));
    assert_eq!(event.extension("no"), Some("false".into()));
    assert_eq!(event.extension("text"), Some("x".into()));
}

proptest! {
    #[test]
    fn a_number_has_its_text(number: i32) {
        let expected = number.to_string();
        Value::Integer(number).with_text(|text| assert_eq!(text, expected.as_bytes()));
    }

    #[test]
    fn no_text_is_a_reason_to_panic(text in "\\PC{0,40}", at in 0..Attribute::COUNT) {
        let _ = event().set(Attribute::ALL[at], &text);
    }

    #[test]
    fn a_time_reads_back(seconds in -62_135_596_800_i64..253_402_300_799, nanoseconds in 0..1_000_000_000_i32) {
        let time = jiff::Timestamp::new(seconds, nanoseconds).unwrap();
        let text = format_timestamp(time);
        let mut event = event();
        event.set(Attribute::Time, &text).unwrap();
        prop_assert_eq!(event.text(Attribute::Time), text);
    }
}
