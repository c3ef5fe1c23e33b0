//! Tables: what Knative delivered, dialects, refusals; and the index against asking every filter.

mod recorded;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::event::{Attribute, ExtensionName, Value};
use std::sync::Arc;

#[derive(Deserialize)]
struct Spec {
    filter: Option<TriggerFilter>,
    #[serde(default)]
    filters: Vec<SubscriptionsApiFilter>,
}

fn spec(json: &str) -> Spec {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn compile(json: &str) -> (Filter, Vec<Skipped>) {
    let spec = spec(json);
    Filter::compile(spec.filter.as_ref(), &spec.filters, None)
}

fn filter(json: &str) -> Filter {
    let (filter, skipped) = compile(json);
    assert_eq!(skipped, [], "{json}");
    filter
}

fn event(attributes: &[(&str, &str)]) -> Event {
    let get = |name| {
        attributes
            .iter()
            .find(|(own, _)| *own == name)
            .map_or("x", |(_, value)| *value)
    };
    let mut event = Event::new(get("id"), get("source"), get("type")).unwrap();
    for (name, value) in attributes {
        match Attribute::parse(event.version(), name) {
            Some(attribute) => event.set(attribute, value).unwrap(),
            None => event
                .set_extension(ExtensionName::parse(name).unwrap(), (*value).into())
                .unwrap(),
        }
    }
    event
}

#[test]
fn the_recorded_verdicts() {
    let events: Vec<Event> = recorded::EVENTS
        .iter()
        .map(|(_, attributes)| event(attributes))
        .collect();
    let filters: Vec<Arc<Filter>> = recorded::TRIGGERS
        .iter()
        .map(|(_, spec, _)| Arc::new(filter(spec)))
        .collect();
    let mut verdicts = 0;
    for ((name, _, delivered), filter) in recorded::TRIGGERS.iter().zip(&filters) {
        for ((event_name, _), (event, delivered)) in
            recorded::EVENTS.iter().zip(events.iter().zip(delivered))
        {
            assert_eq!(
                filter.matches(event),
                *delivered == 1,
                "{name} and {event_name}"
            );
            verdicts += 1;
        }
    }
    assert_eq!(verdicts, 250);
    // And by the index over all of them.
    let index = FilterIndex::new(filters);
    let mut matching = Vec::new();
    for (at, event) in events.iter().enumerate() {
        index.matching(event, &mut matching);
        let expected: Vec<usize> = recorded::TRIGGERS
            .iter()
            .enumerate()
            .filter(|(_, (_, _, delivered))| delivered[at] == 1)
            .map(|(trigger, _)| trigger)
            .collect();
        assert_eq!(matching, expected, "{}", recorded::EVENTS[at].0);
    }
}

fn full() -> Event {
    let mut event = event(&[
        ("id", "1"),
        ("type", "a.b"),
        ("source", "/s"),
        ("datacontenttype", "application/json; charset=utf-8"),
        ("dataschema", "http://s"),
        ("text", "t"),
        ("empty", ""),
    ]);
    event
        .set_extension(ExtensionName::parse("num").unwrap(), Value::Integer(7))
        .unwrap();
    event
        .set_extension(ExtensionName::parse("flag").unwrap(), Value::Boolean(true))
        .unwrap();
    event
}

#[test]
fn dialects() {
    for (spec, passes) in [
        // filter.attributes
        (r#"{"filter":{}}"#, true),
        (r#"{"filter":{"attributes":{}}}"#, true),
        (
            r#"{"filter":{"attributes":{"type":"a.b","source":"/s"}}}"#,
            true,
        ),
        (
            r#"{"filter":{"attributes":{"type":"a.b","source":"/t"}}}"#,
            false,
        ),
        (r#"{"filter":{"attributes":{"type":""}}}"#, true),
        (r#"{"filter":{"attributes":{"text":""}}}"#, true),
        (r#"{"filter":{"attributes":{"empty":""}}}"#, false),
        (r#"{"filter":{"attributes":{"subject":""}}}"#, false),
        (r#"{"filter":{"attributes":{"nothere":""}}}"#, false),
        // An absent time is Go's zero time.
        (r#"{"filter":{"attributes":{"time":""}}}"#, true),
        (
            r#"{"filter":{"attributes":{"time":"0001-01-01T00:00:00Z"}}}"#,
            true,
        ),
        (r#"{"filter":{"attributes":{"specversion":"1.0"}}}"#, true),
        (
            r#"{"filter":{"attributes":{"datamediatype":"application/json"}}}"#,
            true,
        ),
        (
            r#"{"filter":{"attributes":{"datacontenttype":"application/json"}}}"#,
            false,
        ),
        (
            r#"{"filter":{"attributes":{"schemaurl":"http://s"}}}"#,
            true,
        ),
        // A number is equal to no text there, but it is present.
        (r#"{"filter":{"attributes":{"num":"7"}}}"#, false),
        (r#"{"filter":{"attributes":{"num":""}}}"#, true),
        (r#"{"filter":{"attributes":{"flag":"true"}}}"#, false),
        // exact, prefix, suffix: text forms.
        (r#"{"filters":[{"exact":{"num":"7"}}]}"#, true),
        (r#"{"filters":[{"exact":{"flag":"true"}}]}"#, true),
        (
            r#"{"filters":[{"exact":{"type":"a.b","source":"/t"}}]}"#,
            false,
        ),
        (r#"{"filters":[{"exact":{"nothere":"x"}}]}"#, false),
        (
            r#"{"filters":[{"exact":{"time":"0001-01-01T00:00:00Z"}}]}"#,
            false,
        ),
        (r#"{"filters":[{"prefix":{"type":"a."}}]}"#, true),
        (r#"{"filters":[{"prefix":{"type":"b"}}]}"#, false),
        (r#"{"filters":[{"prefix":{"nothere":"b"}}]}"#, false),
        (
            r#"{"filters":[{"suffix":{"type":".b","source":"s"}}]}"#,
            true,
        ),
        (r#"{"filters":[{"suffix":{"datamediatype":"json"}}]}"#, true),
        // all, any, not
        (
            r#"{"filters":[{"all":[{"exact":{"type":"a.b"}},{"prefix":{"source":"/"}}]}]}"#,
            true,
        ),
        (
            r#"{"filters":[{"all":[{"exact":{"type":"a.b"}},{"prefix":{"source":"x"}}]}]}"#,
            false,
        ),
        (
            r#"{"filters":[{"any":[{"exact":{"type":"x"}},{"prefix":{"source":"/"}}]}]}"#,
            true,
        ),
        (
            r#"{"filters":[{"any":[{"exact":{"type":"x"}},{"prefix":{"source":"x"}}]}]}"#,
            false,
        ),
        (r#"{"filters":[{"not":{"exact":{"type":"x"}}}]}"#, true),
        (
            r#"{"filters":[{"not":{"not":{"exact":{"type":"x"}}}}]}"#,
            false,
        ),
        (r#"{"filters":[{"not":{"cesql":"nothere = 'x'"}}]}"#, true),
        // What says nothing drops nothing.
        (r#"{"filters":[{}]}"#, true),
        (r#"{"filters":[{"not":{}}]}"#, true),
        (r#"{"filters":[{"not":{"not":{}}}]}"#, true),
        (r#"{"filters":[{"all":[]}]}"#, true),
        (r#"{"filters":[{"any":[]}]}"#, true),
        (
            r#"{"filters":[{"all":null,"any":null,"not":null,"exact":null,"cesql":null}]}"#,
            true,
        ),
        (r#"{"filter":{"attributes":null}}"#, true),
        (
            r#"{"filters":[{"any":[{"exact":{"type":"x"}},{"not":{}}]}]}"#,
            true,
        ),
        (
            r#"{"filters":[{"any":[{"not":{}},{"exact":{"type":"x"}}]}]}"#,
            false,
        ),
        (
            r#"{"filters":[{"all":[{"not":{}},{"exact":{"type":"x"}}]}]}"#,
            false,
        ),
        // Several are all of them; they replace the old form, and none of them does not.
        (
            r#"{"filters":[{"exact":{"type":"a.b"}},{"exact":{"source":"/t"}}]}"#,
            false,
        ),
        (
            r#"{"filter":{"attributes":{"type":"x"}},"filters":[{"exact":{"type":"a.b"}}]}"#,
            true,
        ),
        (
            r#"{"filter":{"attributes":{"type":"x"}},"filters":[]}"#,
            false,
        ),
        // cesql
        (r#"{"filters":[{"cesql":"num + 1 = 8"}]}"#, true),
        (r#"{"filters":[{"cesql":"type"}]}"#, false),
        (r#"{"filters":[{"cesql":"1"}]}"#, false),
        (r#"{"filters":[{"cesql":"1 / 0 = 1"}]}"#, false),
        (r#"{"filters":[{"cesql":"flag"}]}"#, true),
    ] {
        assert_eq!(filter(spec).matches(&full()), passes, "{spec}");
    }
}

#[test]
fn what_cannot_be_built_is_left_out_and_said() {
    for (spec, passes, skipped) in [
        (r#"{"filters":[{"exact":{"type":""}}]}"#, true, 1),
        (
            r#"{"filters":[{"exact":{"type":"x","source":""}}]}"#,
            true,
            1,
        ),
        (r#"{"filters":[{"prefix":{"":"x"}}]}"#, true, 1),
        (r#"{"filters":[{"cesql":"type ="}]}"#, true, 1),
        (r#"{"filters":[{"not":{"cesql":"type ="}}]}"#, true, 1),
        (
            r#"{"filters":[{"cesql":"type ="},{"exact":{"type":"x"}}]}"#,
            false,
            1,
        ),
        (
            r#"{"filters":[{"any":[{"suffix":{"a":""}},{"exact":{"type":"x"}}]}]}"#,
            false,
            1,
        ),
        // The old form is not the one that replaces it.
        (
            r#"{"filter":{"attributes":{"type":"x"}},"filters":[{"cesql":"type ="}]}"#,
            true,
            1,
        ),
    ] {
        let (filter, found) = compile(spec);
        assert_eq!(filter.matches(&full()), passes, "{spec}");
        assert_eq!(found.len(), skipped, "{spec}");
    }
    let (_, skipped) = compile(r#"{"filters":[{"cesql":"type ="}]}"#);
    assert_eq!(
        skipped[0].to_string(),
        "cesql is left out of the filter: at byte 6: expected an expression, found the end"
    );
}

#[test]
fn what_cannot_be_evaluated_is_a_no_and_said() {
    for (spec, words) in [
        (r#"{"filters":[{"cesql":"type = 'x'"}]}"#, None),
        (r#"{"filters":[{"exact":{"type":"x"}}]}"#, None),
        (r#"{"filters":[{"not":{}}]}"#, None),
        (r#"{"filters":[{}]}"#, None),
        (
            r#"{"filters":[{"any":[{"exact":{"type":"x"}},{"not":{"cesql":"1 / 0 = 1"}}]}]}"#,
            Some("the CESQL expression \"1 / 0 = 1\": math error: division by zero"),
        ),
        (
            r#"{"filters":[{"cesql":"nothere = 'x'"}]}"#,
            Some(
                "the CESQL expression \"nothere = 'x'\": missing attribute: the event has no nothere",
            ),
        ),
        (
            r#"{"filters":[{"cesql":"type > 5"}]}"#,
            Some("the CESQL expression \"type > 5\": cast error: \"a.b\" is no Integer"),
        ),
        (
            r#"{"filters":[{"cesql":"FOO(type)"}]}"#,
            Some(
                "the CESQL expression \"FOO(type)\": missing function: there is no FOO with 1 arguments",
            ),
        ),
        (
            r#"{"filters":[{"cesql":"type"}]}"#,
            Some(
                "the CESQL expression \"type\" is neither true nor false; compare its value with something",
            ),
        ),
    ] {
        assert_eq!(filter(spec).complaint(&full()).as_deref(), words, "{spec}");
    }
    let expression = crate::Expression::parse("type = 'x'").unwrap();
    assert_eq!(expression.to_string(), "type = 'x'");
}

#[test]
fn filters_of_0_3_know_both_names() {
    let mut headers = http::HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "0.3"),
        ("ce-id", "1"),
        ("ce-type", "t"),
        ("ce-source", "/s"),
        ("ce-schemaurl", "/schema"),
        ("ce-datacontentencoding", "base64"),
    ] {
        headers.insert(name, http::HeaderValue::from_static(value));
    }
    let event = crate::binding::decode(&headers, bytes::Bytes::new()).unwrap();
    for (spec, passes) in [
        (r#"{"filters":[{"exact":{"specversion":"0.3"}}]}"#, true),
        (r#"{"filters":[{"exact":{"schemaurl":"/schema"}}]}"#, true),
        (r#"{"filters":[{"exact":{"dataschema":"/schema"}}]}"#, true),
        (
            r#"{"filter":{"attributes":{"datacontentencoding":"base64"}}}"#,
            true,
        ),
        (
            r#"{"filters":[{"cesql":"schemaurl = '/schema' AND datacontentencoding = 'base64'"}]}"#,
            true,
        ),
        (r#"{"filters":[{"cesql":"EXISTS dataschema"}]}"#, false),
    ] {
        assert_eq!(filter(spec).matches(&event), passes, "{spec}");
    }
}

fn refusals(json: &str) -> Vec<String> {
    let spec = spec(json);
    validate(spec.filter.as_ref(), &spec.filters)
        .into_iter()
        .map(|refusal| format!("{}: {}\n{}", refusal.message, refusal.path, refusal.details))
        .collect()
}

#[test]
fn admission_refuses_in_knatives_words() {
    let rule =
        "Attribute name must start with a letter and can only contain lowercase alphanumeric";
    for (spec, name, path) in [
        (
            r#"{"filter":{"attributes":{"a-b":"a"}}}"#,
            "a-b",
            "filter.attributes[a-b]",
        ),
        (
            r#"{"filter":{"attributes":{"1a":"a"}}}"#,
            "1a",
            "filter.attributes[1a]",
        ),
        (
            r#"{"filter":{"attributes":{"a_b":"a"}}}"#,
            "a_b",
            "filter.attributes[a_b]",
        ),
        (
            r#"{"filter":{"attributes":{"":"a"}}}"#,
            "",
            "filter.attributes[]",
        ),
        (
            r#"{"filters":[{"exact":{"Type":"a"}}]}"#,
            "Type",
            "filters[0].exact[Type]",
        ),
        (
            r#"{"filters":[{},{"prefix":{"Type":"a"}}]}"#,
            "Type",
            "filters[1].prefix[Type]",
        ),
        (
            r#"{"filters":[{"all":[{},{"not":{"suffix":{"B":"a"}}}]}]}"#,
            "B",
            "filters[0].all[1].not.suffix[B]",
        ),
        (
            r#"{"filters":[{"any":[{"exact":{"B":"a"}}]}]}"#,
            "B",
            "filters[0].any[0].exact[B]",
        ),
    ] {
        assert_eq!(
            refusals(spec),
            [format!("invalid key name {name:?}: {path}\n{rule}")],
            "{spec}"
        );
    }
    assert_eq!(
        refusals(r#"{"filters":[{"exact":{"type":"a"},"prefix":{"type":"b"}}]}"#),
        ["multiple dialects found, filters can have only one dialect set: \n"]
    );
    assert_eq!(
        refusals(r#"{"filters":[{"cesql":"type ="}]}"#),
        [
            "invalid value: type =: filters[0].cesql\nat byte 6: expected an expression, found the end"
        ]
    );
    for accepted in [
        r#"{}"#,
        r#"{"filter":{"attributes":{"aaaaaaaaaaaaaaaaaaaaa":"b","type":""}}}"#,
        r#"{"filters":[{"exact":{}},{"all":[]},{"not":{}},{}]}"#,
        r#"{"filters":[{"exact":{"type":"a","source":"b"}}]}"#,
        r#"{"filters":[{"cesql":"FOO() = 1"}]}"#,
    ] {
        assert_eq!(refusals(accepted), Vec::<String>::new(), "{accepted}");
    }
}

#[test]
fn depth_is_bounded() {
    let nest = |levels: usize| {
        let mut filter = SubscriptionsApiFilter {
            cesql: "FALSE".to_owned(),
            ..Default::default()
        };
        for _ in 0..levels {
            filter = SubscriptionsApiFilter {
                all: vec![filter],
                ..Default::default()
            };
        }
        vec![filter]
    };
    let fits = nest(FILTER_DEPTH_MAX - 1);
    assert_eq!(validate(None, &fits), []);
    assert!(!Filter::compile(None, &fits, None).0.matches(&full()));
    let deep = nest(FILTER_DEPTH_MAX);
    assert_eq!(validate(None, &deep).len(), 1);
    assert_eq!(Filter::compile(None, &deep, None).1.len(), 1);
}

/// Which filters the index asks for an event is its business; that those it does not ask would say no is the property.
#[test]
fn the_index_asks_few() {
    let filters = (0..1_000).map(|n| {
        Arc::new(filter(&format!(
            r#"{{"filters":[{{"exact":{{"type":"t","source":"/s","tenant":"{n}"}}}}]}}"#
        )))
    });
    let index = FilterIndex::new(filters);
    let mut event = event(&[("type", "t"), ("source", "/s"), ("tenant", "7")]);
    let mut matching = vec![99];
    index.matching(&event, &mut matching);
    assert_eq!(matching, [7]);
    assert_eq!((index.len(), index.is_empty()), (1_000, false));
    event.remove_extension("tenant");
    index.matching(&event, &mut matching);
    assert_eq!(matching, [0_usize; 0]);
}

const TYPES: [&str; 3] = ["a", "b", "ab"];

fn leaves() -> impl Strategy<Value = SubscriptionsApiFilter> {
    let name = prop::sample::select(vec!["type", "source", "subject", "ext", "num", "nothere"]);
    let value = prop::sample::select(vec!["a", "b", "ab", "7", "07", "", "true"]);
    let one = (name, value).prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    let map = prop::collection::btree_map(
        one.clone().prop_map(|(n, _)| n),
        one.prop_map(|(_, v)| v),
        1..3,
    );
    let term = prop::sample::select(vec![
        "type = 'a'",
        "'b' = type",
        "type IN ('a', 'b')",
        "num = '7'",
        "'07' = num",
        "num IN ('07')",
        "ext = 'a'",
        "type LIKE 'a%'",
        "EXISTS subject",
        "type != 'a'",
        "source NOT IN ('a')",
        "num",
        "num = 7",
    ]);
    let operator = prop::sample::select(vec!["AND", "OR", "XOR"]);
    let cesql = prop::collection::vec((term, operator), 1..5).prop_map(|terms| {
        let mut text = String::new();
        for (term, operator) in &terms {
            if !text.is_empty() {
                text = format!("{text} {operator} ");
            }
            text += term;
        }
        text
    });
    prop_oneof![
        map.clone().prop_map(|exact| SubscriptionsApiFilter {
            exact,
            ..Default::default()
        }),
        map.clone().prop_map(|prefix| SubscriptionsApiFilter {
            prefix,
            ..Default::default()
        }),
        map.prop_map(|suffix| SubscriptionsApiFilter {
            suffix,
            ..Default::default()
        }),
        cesql.prop_map(|cesql| SubscriptionsApiFilter {
            cesql,
            ..Default::default()
        }),
        Just(SubscriptionsApiFilter::default()),
    ]
}

fn filters() -> impl Strategy<Value = SubscriptionsApiFilter> {
    leaves().prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            list.clone().prop_map(|all| SubscriptionsApiFilter {
                all,
                ..Default::default()
            }),
            list.prop_map(|any| SubscriptionsApiFilter {
                any,
                ..Default::default()
            }),
            inner.prop_map(|not| SubscriptionsApiFilter {
                not: Some(Box::new(not)),
                ..Default::default()
            }),
        ]
    })
}

fn events() -> impl Strategy<Value = Event> {
    let text = || prop::option::of(prop::sample::select(TYPES.to_vec()));
    let number = prop_oneof![
        Just(None),
        Just(Some(Value::Integer(7))),
        Just(Some(Value::Boolean(true))),
        Just(Some(Value::from("7"))),
        Just(Some(Value::from("07"))),
    ];
    (text(), text(), text(), text(), number).prop_map(|(kind, source, subject, ext, number)| {
        let mut event = Event::new("1", source.unwrap_or("x"), kind.unwrap_or("x")).unwrap();
        event
            .set(Attribute::Subject, subject.unwrap_or_default())
            .unwrap();
        if let Some(ext) = ext {
            event
                .set_extension(ExtensionName::parse("ext").unwrap(), ext.into())
                .unwrap();
        }
        if let Some(number) = number {
            event
                .set_extension(ExtensionName::parse("num").unwrap(), number)
                .unwrap();
        }
        event
    })
}

proptest! {
    #[test]
    fn the_index_follows_changes(
        triggers in prop::collection::vec(prop::collection::vec(filters(), 0..3), 1..12),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        event in events(),
    ) {
        let mut index = FilterIndex::default();
        let mut there = std::collections::BTreeMap::new();
        let compile = |filters: &Vec<SubscriptionsApiFilter>| Arc::new(Filter::compile(None, filters, None).0);
        for (filters, removed) in triggers.iter().zip(removed.iter().map(Some).chain(std::iter::repeat(None))) {
            let filter = compile(filters);
            there.insert(index.insert(filter.clone()), filter);
            if let Some(removed) = removed {
                let slot = removed.index(triggers.len());
                prop_assert_eq!(index.remove(slot).is_some(), there.remove(&slot).is_some());
            }
        }
        let mut matching = Vec::new();
        index.matching(&event, &mut matching);
        let expected: Vec<usize> =
            there.iter().filter(|(_, filter)| filter.matches(&event)).map(|(slot, _)| *slot).collect();
        prop_assert_eq!(matching, expected);
        prop_assert_eq!(index.len(), there.len());
        // What is left of the removed ones is nothing.
        for slot in there.into_keys() {
            index.remove(slot);
        }
        prop_assert!(index.is_empty() && index.files_nothing());
    }

    #[test]
    fn the_index_finds_what_each_filter_says(
        triggers in prop::collection::vec(prop::collection::vec(filters(), 0..3), 0..12),
        events in prop::collection::vec(events(), 1..6),
    ) {
        let compiled: Vec<Arc<Filter>> = triggers
            .iter()
            .map(|filters| Arc::new(Filter::compile(None, filters, None).0))
            .collect();
        let index = FilterIndex::new(compiled.clone());
        let mut matching = Vec::new();
        for event in &events {
            index.matching(event, &mut matching);
            let expected: Vec<usize> =
                (0..compiled.len()).filter(|at| compiled[*at].matches(event)).collect();
            prop_assert_eq!(&matching, &expected);
        }
    }

    #[test]
    fn the_index_finds_what_the_old_form_says(
        attributes in prop::collection::btree_map(
            prop::sample::select(vec!["type", "subject", "ext", "num", "time"]).prop_map(str::to_owned),
            prop::sample::select(vec!["a", "7", ""]).prop_map(str::to_owned),
            0..4,
        ),
        event in events(),
    ) {
        let filter = Filter::compile(Some(&TriggerFilter { attributes }), &[], None).0;
        let expected: Vec<usize> = if filter.matches(&event) { vec![0] } else { vec![] };
        let mut matching = Vec::new();
        FilterIndex::new([Arc::new(filter)]).matching(&event, &mut matching);
        prop_assert_eq!(matching, expected);
    }
}
