//! Updates: signatures, kept names, fields that never change.

use serde_json::json;

use super::*;

fn updated(old: &Value, change: impl FnOnce(&mut Value)) -> Result<Value, String> {
    let mut new = old.clone();
    change(&mut new);
    let request = create("serving.knative.dev", "Service", "ns", "svc");
    let request = Review {
        operation: Operation::Update,
        user: "bob",
        old: Some(old),
        ..request
    };
    review(&request, &mut new, &Configs::default()).map_err(|refused| refused.message)?;
    Ok(new)
}

#[test]
fn only_a_changed_spec_changes_the_signature() {
    let old = stored(&with_container(&json!({})), &Configs::default());
    let signature = |object: &Value| object["metadata"]["annotations"][keys::LAST_MODIFIER].clone();
    assert_eq!(signature(&updated(&old, |_| {}).unwrap()), "ada");
    let relabelled = updated(&old, |new| new["metadata"]["labels"] = json!({"a": "b"})).unwrap();
    assert_eq!(signature(&relabelled), "ada");
    let changed = updated(&old, |new| {
        new["spec"]["template"]["spec"]["timeoutSeconds"] = json!(5)
    })
    .unwrap();
    assert_eq!(signature(&changed), "bob");
    assert_eq!(changed["metadata"]["annotations"][keys::CREATOR], "ada");
    let forged = updated(&old, |new| {
        new["metadata"]["annotations"][keys::CREATOR] = json!("eve")
    })
    .unwrap_err();
    assert!(
        forged.contains(
            "annotation value is immutable: metadata.annotations.serving.knative.dev/creator"
        ),
        "{forged}"
    );
    let forged = updated(&old, |new| {
        new["metadata"]["annotations"][keys::LAST_MODIFIER] = json!("eve")
    })
    .unwrap_err();
    assert!(
        forged
            .contains("invalid value: eve: metadata.annotations.serving.knative.dev/lastModifier"),
        "{forged}"
    );
}

#[test]
fn a_kept_name_keeps_its_template() {
    let manifest = service(
        &json!({"template": {"metadata": {"name": "svc-a"}, "spec": {"containers": [{"image": "ab"}]}}}),
    );
    let old = stored(&manifest, &Configs::default());
    // The same manifest once more, without the defaults: still the same template.
    let again = updated(&old, |new| new["spec"] = manifest["spec"].clone()).unwrap();
    assert_eq!(again, old);
    let message = updated(&old, |new| {
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("cd")
    })
    .unwrap_err();
    assert!(
        message.ends_with("validation failed: Saw the following changes without a name change (-old +new): spec.template.metadata.name\n{*v1.RevisionTemplateSpec}.Spec.PodSpec.Containers[0].Image:\n\t-: \"ab\"\n\t+: \"cd\"\n"),
        "{message}"
    );
    updated(&old, |new| {
        new["spec"]["template"]["metadata"]["name"] = json!("svc-b");
        new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("cd");
    })
    .unwrap();
}

#[test]
fn revisions_never_change() {
    let mut old = json!({
        "metadata": {"name": "c-1", "labels": {keys::CONFIGURATION: "c"}, "ownerReferences": [{"kind": "Configuration", "name": "c"}]},
        "spec": {"containers": [{"image": "ab"}]},
    });
    let request = create("serving.knative.dev", "Revision", "ns", "c-1");
    review(&request, &mut old, &Configs::default()).unwrap();
    let request = Review {
        operation: Operation::Update,
        old: Some(&old),
        ..request
    };
    let mut labelled = old.clone();
    labelled["metadata"]["annotations"] = json!({keys::ROUTES: "r"});
    review(&request, &mut labelled, &Configs::default()).unwrap();
    let mut changed = old.clone();
    changed["spec"]["timeoutSeconds"] = json!(1);
    let refused = review(&request, &mut changed, &Configs::default())
        .unwrap_err()
        .message;
    assert!(
        refused.contains("Immutable fields changed (-old +new): spec\n"),
        "{refused}"
    );
    let mut orphan = old.clone();
    orphan["metadata"]["ownerReferences"] = json!([]);
    review(&request, &mut orphan, &Configs::default()).expect("its owner may let it go");
    orphan["metadata"]["labels"][keys::CONFIGURATION] = json!("another");
    let refused = review(&request, &mut orphan, &Configs::default())
        .unwrap_err()
        .message;
    assert!(
        refused.ends_with("missing field(s): metadata.labels.serving.knative.dev/configuration"),
        "{refused}"
    );
}
