//! Rows of Eventing's admission: those that were recorded, and our own.

mod recorded;
mod rules;
mod updates;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

const REFUSED: &str = "admission webhook \"validation.webhook.eventing.knative.dev\" denied the request: validation failed: ";
const UNREADABLE: &str =
    "admission webhook \"webhook.eventing.knative.dev\" denied the request: mutation failed: ";

/// Everything that is asked outside is allowed.
const YES: Ask<'static> = Ask {
    may_link: &|_| true,
    try_job: &|_| Ok(()),
};

fn request<'a>(api_version: &'a str, kind: &'a str) -> Review<'a> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Review {
        group,
        version,
        kind,
        operation: Operation::Create,
        subresource: None,
        namespace: "corpus",
        name: "x",
        user: "admin",
        user_is_controller: false,
        dry_run: None,
        now: Timestamp::UNIX_EPOCH,
        old: None,
    }
}

/// Defaults and rules in one: what is stored, or the whole refusal.
fn admit(review: &Review<'_>, object: &Value, configs: &EventingConfigs) -> Result<Value, String> {
    admit_asking(review, object, configs, YES)
}

fn admit_asking(
    review: &Review<'_>,
    object: &Value,
    configs: &EventingConfigs,
    ask: Ask<'_>,
) -> Result<Value, String> {
    let mut object = object.clone();
    mutate(review, &mut object, configs).map_err(|refused| refused.message)?;
    validate(review, &object, configs, ask).map_err(|refused| refused.message)?;
    Ok(object)
}

fn object(spec: &Value) -> Value {
    json!({"metadata": {"name": "x"}, "spec": spec})
}

/// The refusal of a new object, without the webhook's words.
fn refusal(api_version: &str, kind: &str, spec: &Value, configs: &EventingConfigs) -> String {
    let answer = admit(&request(api_version, kind), &object(spec), configs);
    let message = answer.expect_err("it must be refused");
    message
        .strip_prefix(REFUSED)
        .map_or(message.clone(), str::to_owned)
}

/// The spec of a new object as it is stored.
fn stored(api_version: &str, kind: &str, spec: &Value, configs: &EventingConfigs) -> Value {
    let answer = admit(&request(api_version, kind), &object(spec), configs);
    answer.expect("it must be stored")["spec"].clone()
}

fn features(pairs: &[(&str, &str)]) -> EventingConfigs {
    configs("config-features", pairs)
}

fn configs(map: &str, pairs: &[(&str, &str)]) -> EventingConfigs {
    let data = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let (configs, problems) = EventingConfigs::from_maps(|name| (name == map).then_some(&data));
    assert_eq!(problems, []);
    configs
}
