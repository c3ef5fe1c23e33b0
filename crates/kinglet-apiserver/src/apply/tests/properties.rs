//! Properties of any apply and update.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// ConfigMap data with keys of one letter.
fn data(letters: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(letters), "[0-2]", 0..5).prop_map(|fields| {
        Value::Object(
            fields
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.into()))
                .collect(),
        )
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "metadata",
        "managedFields",
        "fieldsV1",
        "f:spec",
        "k:{}",
        "v:1",
        ".",
        "spec",
        "containers",
        "name",
        "ports",
        "labels",
        "annotations",
        "manager",
        "operation",
        "template",
        "containerPort",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        names.clone().prop_map(Value::from),
        Just(Value::from("Apply")),
        Just(Value::from("Update")),
    ];
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(|fields| Value::Object(
                fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn applying_again_changes_nothing(first in data(&["a", "b", "c"]), second in data(&["a", "b", "c"])) {
        let live = apply(None, &config_map(first), by("one"), true, config_maps()).unwrap();
        let once = apply(Some(&live), &config_map(second.clone()), by("two"), true, config_maps()).unwrap();
        let twice = apply(Some(&once), &config_map(second), Writer { now: LATER, ..by("two") }, true, config_maps()).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn managers_of_different_fields_never_conflict(one in data(&["a", "b", "c"]), two in data(&["x", "y", "z"])) {
        let live = apply(None, &config_map(one.clone()), by("one"), false, config_maps()).unwrap();
        let both = apply(Some(&live), &config_map(two.clone()), by("two"), false, config_maps()).unwrap();
        for (name, value) in one.as_object().unwrap().iter().chain(two.as_object().unwrap()) {
            prop_assert_eq!(&both["data"][name], value);
        }
    }

    #[test]
    fn what_a_manager_stops_applying_is_gone(first in data(&["a", "b", "c"]), second in data(&["a", "b", "c"])) {
        let live = apply(None, &config_map(first), by("one"), false, config_maps()).unwrap();
        let live = apply(Some(&live), &config_map(second.clone()), by("one"), false, config_maps()).unwrap();
        let left = live.get("data").cloned().unwrap_or_else(|| json!({}));
        prop_assert_eq!(left, second);
    }

    #[test]
    fn no_object_makes_it_panic(live in any_json(), applied in any_json()) {
        for types in [TypeInfo::builtin("", "v1", "Pod").unwrap(), TypeInfo::untyped()] {
            let _ = apply(Some(&live), &applied, by("x"), false, types);
            let _ = apply(None, &applied, by("x"), true, types);
            track_update(Some(&live), &mut applied.clone(), by("x"), types);
            track_update(None, &mut applied.clone(), by("x"), types);
        }
    }
}
