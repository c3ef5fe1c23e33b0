//! Rows of admission: what goes in, what is stored, what is refused.

mod defaults;
mod kinds;
mod properties;
mod refusals;
mod updates;

use super::*;
use crate::config::Data;
use crate::keys;
use serde_json::json;

const INSECURE: &str =
    "Kubernetes default value is insecure, Knative may default this to secure in a future release";

fn create<'a>(group: &'a str, kind: &'a str, namespace: &'a str, name: &'a str) -> Review<'a> {
    Review {
        group,
        version: "v1",
        kind,
        operation: Operation::Create,
        subresource: None,
        namespace,
        name,
        user: "ada",
        user_is_controller: false,
        dry_run: None,
        now: Timestamp::UNIX_EPOCH,
        old: None,
    }
}

fn configs(map: &str, pairs: &[(&str, &str)]) -> Configs {
    let data: Data = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let (configs, problems) = Configs::from_maps(|name| (name == map).then_some(&data));
    assert_eq!(problems, []);
    configs
}

fn service(spec: &Value) -> Value {
    json!({"metadata": {"name": "svc"}, "spec": spec})
}

/// A Service whose template's spec is `pod`.
fn with_pod(pod: &Value) -> Value {
    service(&json!({"template": {"spec": pod}}))
}

fn with_container(extra: &Value) -> Value {
    let mut container = json!({"image": "gcr.io/x/y"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    with_pod(&json!({"containers": [container]}))
}

fn refusal(object: &Value, configs: &Configs) -> String {
    let answer = review(
        &create("serving.knative.dev", "Service", "ns", "svc"),
        &mut object.clone(),
        configs,
    );
    let message = answer.expect_err("it must be refused").message;
    let prefix = "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: ";
    message
        .strip_prefix(prefix)
        .map_or(message.clone(), str::to_owned)
}

fn stored(object: &Value, configs: &Configs) -> Value {
    let mut object = object.clone();
    review(
        &create("serving.knative.dev", "Service", "ns", "svc"),
        &mut object,
        configs,
    )
    .unwrap();
    object
}
