//! Every field has a row, every row a field, and the page is what the table says.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::kinds::builtin;

/// All structs and fields that a client can write, from the served kinds down to where a row speaks for everything below.
fn reachable() -> BTreeSet<(&'static str, &'static str)> {
    let mut found = BTreeSet::new();
    let mut done = BTreeSet::new();
    let mut waiting: Vec<&'static Struct> = builtin::table()
        .filter_map(|kind| table().kind(&kind.group, &kind.version, &kind.kind))
        .collect();
    while let Some(of) = waiting.pop() {
        if !done.insert(of.id) {
            continue;
        }
        table().each_field(of, &mut |field| {
            found.insert((of.id, field.name));
            let row = SUPPORT.rows.get(&(of.id, field.name));
            if row.is_none_or(|row| row.treatment == Treatment::Acted && !row.whole) {
                let mut kind = table().plain(field.kind);
                while let Type::List(at) | Type::Map(at) = kind {
                    kind = table().plain(table().element(at));
                }
                waiting.extend(table().structure(kind));
            }
        });
    }
    found
}

#[test]
fn no_field_is_forgotten() {
    let reachable = reachable();
    let missing: Vec<_> = reachable
        .iter()
        .filter(|key| !SUPPORT.rows.contains_key(*key))
        .collect();
    assert!(missing.is_empty(), "no row in support.txt: {missing:?}");
    let unknown: Vec<_> = SUPPORT
        .rows
        .keys()
        .filter(|key| key.0 != "meta/v1.TypeMeta" && !reachable.contains(*key))
        .collect();
    assert!(unknown.is_empty(), "rows for no field: {unknown:?}");
}

#[test]
fn every_refusal_and_warning_has_words() {
    for ((of, field), row) in &SUPPORT.rows {
        let needs = matches!(row.treatment, Treatment::Ignored | Treatment::Refused);
        assert_eq!(needs, !row.words.is_empty(), "{of}.{field}");
    }
}

#[test]
fn the_page_in_the_documents_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/fields.md");
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == page(),
        "run: cargo run -p kinglet-apiserver --example fields > docs/fields.md"
    );
}

#[test]
fn zero_values_say_nothing_and_others_do() {
    let refused = |spec: Value| -> Vec<String> {
        check_pod_spec(&spec, "spec")
            .0
            .iter()
            .map(|cause| cause.field.clone())
            .collect()
    };
    for (spec, expected) in [
        (
            json!({"hostNetwork": false, "runtimeClassName": null, "os": {"name": "linux"}, "volumes": []}),
            vec![],
        ),
        (json!({"hostNetwork": true}), vec!["spec.hostNetwork"]),
        (json!({"os": {"name": "windows"}}), vec!["spec.os.name"]),
        (
            json!({"containers": [{"name": "a", "volumeDevices": [{"name": "d"}]}, {"name": "b", "volumeMounts": [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}]}]}),
            vec![
                "spec.containers[0].volumeDevices",
                "spec.containers[1].volumeMounts[0].mountPropagation",
            ],
        ),
        (
            json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}, {"name": "e", "emptyDir": {"medium": "Memory"}}]}),
            vec!["spec.volumes[0].persistentVolumeClaim"],
        ),
    ] {
        assert_eq!(refused(spec.clone()), expected, "{spec}");
    }
    let (_, warnings) = check_pod_spec(
        &json!({"topologySpreadConstraints": [{"maxSkew": 1}]}),
        "spec",
    );
    assert_eq!(
        warnings,
        ["spec.topologySpreadConstraints: ignored by Kinglet: there is one node to spread over"]
    );
}
