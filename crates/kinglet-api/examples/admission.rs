//! Compares our admission with a recording of upstream's, Serving's or Eventing's: `cargo run --example admission -- DIR`.
//!
//! DIR holds `admission.yaml` and `configmaps.yaml`: inputs with the verdict, stored form, message and warnings.

#![allow(
    clippy::print_stdout,
    clippy::needless_pass_by_value,
    reason = "a report is what it is for"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use kinglet_api::admission::{self, Operation, Review, eventing};
use kinglet_api::config::eventing::EventingConfigs;
use kinglet_api::config::{self, Configs};
use kinglet_api::{manifests, yaml};
use serde_json::{Map, Value, json};

fn main() -> Result<()> {
    let dir = std::env::args().nth(1).context("usage: admission DIR")?;
    let read = |name: &str| -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(format!("{dir}/{name}"))
            .with_context(|| format!("reading {dir}/{name}"))?;
        Ok(yaml::document(&text)?
            .as_array()
            .cloned()
            .unwrap_or_default())
    };
    let mut score = Score::default();
    let maps = BTreeMap::from([("allow-zero-initial-scale".to_owned(), "true".to_owned())]);
    let (configs, _) = Configs::from_maps(|name| (name == "config-autoscaler").then_some(&maps));
    for case in read("admission.yaml")? {
        object_case(&case, &configs, &mut score);
    }
    for case in read("configmaps.yaml")? {
        config_map_case(&case, &mut score);
    }
    let (objects, different) = typed_round_trips(&dir)?;
    score.print();
    println!(
        "\ntyped kinds: {objects} recorded objects read and written back, {different} different"
    );
    Ok(())
}

/// Reads every recorded object of our kinds into its type and back.
fn typed_round_trips(dir: &str) -> Result<(usize, usize)> {
    let (mut objects, mut different) = (0, 0);
    for file in recorded_files(dir)? {
        let text = std::fs::read_to_string(&file)?.replace("TIME", "2026-01-02T03:04:05Z");
        for object in yaml::documents(&text)? {
            let Some(got) = round_trip(&object)? else {
                continue;
            };
            objects += 1;
            if without_owner_uids(&object) != without_owner_uids(&got) {
                different += 1;
                println!(
                    "{}: {} {}\n    want {object}\n    got  {got}",
                    file.display(),
                    object["kind"],
                    object["metadata"]["name"]
                );
            }
        }
    }
    Ok((objects, different))
}

/// Returns the snapshots of all scenarios.
fn recorded_files(dir: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(dir)? {
        let folder = folder?.path();
        if !folder.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&folder)? {
            let file = file?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("objects-") && name.ends_with(".yaml") {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Reads an object into its type and writes it back; none if the kind is not ours.
fn round_trip(object: &Value) -> Result<Option<Value>> {
    fn back<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value> {
        Ok(serde_json::to_value(serde_json::from_value::<T>(
            object.clone(),
        )?)?)
    }
    let api = object["apiVersion"].as_str().unwrap_or_default();
    Ok(Some(
        match (api, object["kind"].as_str().unwrap_or_default()) {
            ("serving.knative.dev/v1", "Service") => back::<kinglet_api::serving::Service>(object)?,
            ("serving.knative.dev/v1", "Configuration") => {
                back::<kinglet_api::serving::Configuration>(object)?
            }
            ("serving.knative.dev/v1", "Revision") => {
                back::<kinglet_api::serving::Revision>(object)?
            }
            ("serving.knative.dev/v1", "Route") => back::<kinglet_api::serving::Route>(object)?,
            (_, "PodAutoscaler") => back::<kinglet_api::autoscaling::PodAutoscaler>(object)?,
            (_, "Metric") => back::<kinglet_api::autoscaling::Metric>(object)?,
            (_, "ServerlessService") => back::<kinglet_api::networking::ServerlessService>(object)?,
            ("networking.internal.knative.dev/v1alpha1", "Ingress") => {
                back::<kinglet_api::networking::Ingress>(object)?
            }
            (_, "Image") => back::<kinglet_api::caching::Image>(object)?,
            ("eventing.knative.dev/v1", "Broker") => back::<kinglet_api::eventing::Broker>(object)?,
            ("eventing.knative.dev/v1", "Trigger") => {
                back::<kinglet_api::eventing::Trigger>(object)?
            }
            ("eventing.knative.dev/v1beta3", "EventType") => {
                back::<kinglet_api::eventing::EventType>(object)?
            }
            ("messaging.knative.dev/v1", "Channel") => {
                back::<kinglet_api::messaging::Channel>(object)?
            }
            ("messaging.knative.dev/v1", "Subscription") => {
                back::<kinglet_api::messaging::Subscription>(object)?
            }
            ("messaging.knative.dev/v1", "InMemoryChannel") => {
                back::<kinglet_api::messaging::InMemoryChannel>(object)?
            }
            ("flows.knative.dev/v1", "Sequence") => back::<kinglet_api::flows::Sequence>(object)?,
            ("flows.knative.dev/v1", "Parallel") => back::<kinglet_api::flows::Parallel>(object)?,
            ("sources.knative.dev/v1", "PingSource") => {
                back::<kinglet_api::sources::PingSource>(object)?
            }
            ("sources.knative.dev/v1", "ApiServerSource") => {
                back::<kinglet_api::sources::ApiServerSource>(object)?
            }
            ("sources.knative.dev/v1", "ContainerSource") => {
                back::<kinglet_api::sources::ContainerSource>(object)?
            }
            ("sources.knative.dev/v1", "SinkBinding") => {
                back::<kinglet_api::sources::SinkBinding>(object)?
            }
            (_, "JobSink") => back::<kinglet_api::sinks::JobSink>(object)?,
            _ => return Ok(None),
        },
    ))
}

/// k8s-openapi has no uid-less owner references; the recording leaves uids out.
fn without_owner_uids(object: &Value) -> Value {
    let mut object = object.clone();
    for owner in object
        .pointer_mut("/metadata/ownerReferences")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        owner.as_object_mut().map(|owner| owner.remove("uid"));
    }
    object
}

#[derive(Default)]
struct Score {
    rows: BTreeMap<String, [usize; 5]>,
}

impl Score {
    fn add(&mut self, kind: &str, id: &str, differences: [Option<(String, String)>; 4]) {
        let row = self.rows.entry(kind.to_owned()).or_default();
        row[0] += 1;
        for (i, (name, difference)) in ["verdict", "message", "stored", "warnings"]
            .iter()
            .zip(&differences)
            .enumerate()
        {
            match difference {
                None => row[i + 1] += 1,
                Some((want, got)) => println!("{id}: {name}\n    want {want}\n    got  {got}"),
            }
        }
    }

    fn print(&self) {
        println!(
            "\n{:<20}{:>7}{:>9}{:>9}{:>9}{:>9}",
            "kind", "cases", "verdict", "message", "stored", "warnings"
        );
        for (kind, [cases, verdict, message, stored, warnings]) in &self.rows {
            println!("{kind:<20}{cases:>7}{verdict:>9}{message:>9}{stored:>9}{warnings:>9}");
        }
    }
}

fn differ<T: PartialEq + std::fmt::Debug>(want: T, got: T) -> Option<(String, String)> {
    (want != got).then(|| (format!("{want:?}"), format!("{got:?}")))
}

fn object_case(case: &Value, configs: &Configs, score: &mut Score) {
    let input = &case["input"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&input["apiVersion"]), text(&input["kind"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let name = text(&input["metadata"]["name"]);
    let review = Review {
        group,
        version,
        kind: &kind,
        operation: Operation::Create,
        subresource: None,
        namespace: "corpus",
        name: &name,
        user: "admin",
        user_is_controller: false,
        // The rules for Pods are the API server's.
        dry_run: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        old: None,
    };
    let mut object = input.clone();
    let answer = match unknown_field(&kind, input) {
        Some(path) => Err(admission::Rejection {
            code: 400,
            message: format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: unknown field \"{path}\""
            ),
            warnings: Vec::new(),
        }),
        None if eventing::judges(group, &kind) => review_of_eventing(&review, &mut object),
        None => admission::review(&review, &mut object, configs),
    };
    let accepted = case["accepted"].as_bool().unwrap_or_default();
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let (message, warnings) = match &answer {
        Ok(warnings) => (String::new(), warnings.clone()),
        Err(refused) => (refused.message.clone(), refused.warnings.clone()),
    };
    let stored = (accepted && answer.is_ok())
        .then(|| stored_difference(&object, &case["stored"]))
        .flatten();
    score.add(
        &kind,
        case["id"].as_str().unwrap_or_default(),
        [
            differ(accepted, answer.is_ok()),
            differ(
                text(&case["message"]).replace("\n\n", "\n"),
                message.replace("\n\n", "\n"),
            ),
            stored,
            differ(strings(&case["warnings"]), warnings),
        ],
    );
}

fn review_of_eventing(
    review: &Review<'_>,
    object: &mut Value,
) -> Result<Vec<String>, admission::Rejection> {
    let configs = EventingConfigs::default();
    let ask = eventing::Ask {
        may_link: &|_| true,
        try_job: &|_| Ok(()),
    };
    eventing::mutate(review, object, &configs)?;
    eventing::validate(review, object, &configs, ask)
}

/// Compares what we would store with the recording, as far as the recording has it.
fn stored_difference(object: &Value, recorded: &Value) -> Option<(String, String)> {
    let mut got = Map::new();
    for field in ["spec", "annotations", "labels"] {
        let value = if field == "spec" {
            &object["spec"]
        } else {
            &object["metadata"][field]
        };
        if !value.is_null() {
            got.insert(field.to_owned(), value.clone());
        }
    }
    let mut want = recorded.clone();
    if want.get("labels").is_none() {
        got.remove("labels");
    }
    if let Some(map) = want
        .as_object_mut()
        .filter(|map| !map.contains_key("annotations"))
    {
        map.remove("annotations");
    }
    differ(want.to_string(), Value::Object(got).to_string())
}

fn config_map_case(case: &Value, score: &mut Score) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let map = text(&case["configMap"]);
    let of_eventing = manifests::parsed_eventing_configmaps(false)
        .into_iter()
        .find(|shipped| shipped["metadata"]["name"] == map.as_str() && is_of_eventing(case));
    let is_eventing = of_eventing.is_some();
    let shipped = of_eventing
        .or_else(|| manifests::configmap(&map))
        .unwrap_or_default();
    let mut object = json!({"metadata": shipped["metadata"], "data": shipped["data"]});
    object["data"][text(&case["key"])] = json!(text(&case["value"]));
    let review = Review {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        operation: Operation::Update,
        subresource: None,
        namespace: if is_eventing {
            config::eventing::SYSTEM_NAMESPACE
        } else {
            config::SYSTEM_NAMESPACE
        },
        name: &map,
        user: "admin",
        user_is_controller: false,
        // The rules for Pods are the API server's.
        dry_run: None,
        now: jiff::Timestamp::UNIX_EPOCH,
        old: None,
    };
    let answer = if is_eventing {
        review_of_eventing(&review, &mut object)
    } else {
        admission::review(&review, &mut object, &Configs::default())
    };
    let message = answer
        .as_ref()
        .err()
        .map(|refused| refused.message.clone())
        .unwrap_or_default();
    score.add(
        "ConfigMap",
        case["id"].as_str().unwrap_or_default(),
        [
            differ(
                case["accepted"].as_bool().unwrap_or_default(),
                answer.is_ok(),
            ),
            differ(text(&case["message"]), message),
            None,
            None,
        ],
    );
}

/// Maps that only Eventing has, or keys that only Eventing's map of that name has.
fn is_of_eventing(case: &Value) -> bool {
    let map = case["configMap"].as_str().unwrap_or_default();
    let known = manifests::configmap(map).unwrap_or_default();
    let key = case["key"].as_str().unwrap_or_default();
    let example = known["data"]["_example"].as_str().unwrap_or_default();
    !example.contains(key)
}

/// The first field that the CRD's schema does not know.
fn unknown_field(kind: &str, object: &Value) -> Option<String> {
    let group = object["apiVersion"].as_str()?.split('/').next()?;
    let crds: Vec<Value> = manifests::parsed_crds()
        .into_iter()
        .chain(manifests::parsed_eventing_crds())
        .filter(|crd| crd["spec"]["group"] == group)
        .collect();
    let crd = crds
        .iter()
        .find(|crd| crd["spec"]["names"]["kind"] == kind)?;
    let versions = crd["spec"]["versions"].as_array()?;
    let asked = object["apiVersion"].as_str()?.split('/').nth(1)?;
    let version = versions.iter().find(|version| version["name"] == asked)?;
    let schema = &version["schema"]["openAPIV3Schema"];
    walk(schema, object, String::new(), true)
}

fn walk(schema: &Value, value: &Value, path: String, top: bool) -> Option<String> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, inner)| {
            if top && ["apiVersion", "kind", "metadata"].contains(&key.as_str()) {
                return None;
            }
            let at = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            if let Some(schema) = schema["properties"].get(key) {
                return walk(schema, inner, at, false);
            }
            if schema
                .get("additionalProperties")
                .is_some_and(Value::is_object)
            {
                return walk(&schema["additionalProperties"], inner, at, false);
            }
            (schema["x-kubernetes-preserve-unknown-fields"] != true).then_some(at)
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(i, item)| walk(&schema["items"], item, format!("{path}[{i}]"), false)),
        _ => None,
    }
}
