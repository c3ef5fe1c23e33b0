//! `config-deployment`: how Deployments of Revisions are made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::formats;
use crate::go::{self, GoDuration};
use kinglet_quantity::Quantity;

use super::{Data, read};

/// The queue image that Kinglet ships: a name the node knows, never pulled.
pub const QUEUE_SIDECAR_IMAGE: &str = "samples.kinglet/queue-proxy:latest";

/// How pods of one Revision are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AffinityType {
    /// Preferably over nodes.
    #[default]
    PreferSpreadRevisionOverNodes,
    /// As it comes.
    None,
}

/// `config-deployment`.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// Image of the queue.
    pub queue_sidecar_image: String,
    /// Registries whose tags are not resolved to digests.
    pub registries_skipping_tag_resolving: BTreeSet<String>,
    /// Longest wait for a registry.
    pub digest_resolution_timeout: Duration,
    /// Longest wait for a Deployment.
    pub progress_deadline: Duration,
    /// CPU request of the queue.
    pub queue_sidecar_cpu_request: Option<Quantity>,
    /// CPU limit of the queue.
    pub queue_sidecar_cpu_limit: Option<Quantity>,
    /// Memory request of the queue.
    pub queue_sidecar_memory_request: Option<Quantity>,
    /// Memory limit of the queue.
    pub queue_sidecar_memory_limit: Option<Quantity>,
    /// Ephemeral storage request of the queue.
    pub queue_sidecar_ephemeral_storage_request: Option<Quantity>,
    /// Ephemeral storage limit of the queue.
    pub queue_sidecar_ephemeral_storage_limit: Option<Quantity>,
    /// Audiences of projected tokens.
    pub queue_sidecar_token_audiences: BTreeSet<String>,
    /// Root certificates handed to the queue.
    pub queue_sidecar_rootca: String,
    /// Least TLS version, as handed to the queue.
    pub queue_sidecar_tls_min_version: String,
    /// Greatest TLS version, as handed to the queue.
    pub queue_sidecar_tls_max_version: String,
    /// TLS cipher suites, as handed to the queue.
    pub queue_sidecar_tls_cipher_suites: String,
    /// TLS curves, as handed to the queue.
    pub queue_sidecar_tls_curve_preferences: String,
    /// How pods are spread.
    pub default_affinity_type: AffinityType,
    /// Runtime class to the labels that select it.
    pub runtime_class_names: BTreeMap<String, BTreeMap<String, String>>,
    /// Whether an unschedulable pod is no failure.
    pub pod_is_always_schedulable: bool,
}

impl Default for Deployment {
    fn default() -> Self {
        let data = Data::from([(
            "queue-sidecar-image".to_owned(),
            QUEUE_SIDECAR_IMAGE.to_owned(),
        )]);
        Self::parse(&data).expect("the defaults are valid")
    }
}

impl Deployment {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let progress_deadline = read::duration(
            data,
            &["progress-deadline", "progressDeadline"],
            GoDuration::from_secs(600),
        )?;
        let resolution = read::duration(
            data,
            &["digest-resolution-timeout", "digestResolutionTimeout"],
            GoDuration::from_secs(10),
        )?;
        let quantity = |keys: [&str; 2]| read::quantity(data, &keys);
        let list = |keys: &[&str], or: &str| list(read::text(data, keys).unwrap_or(or));
        let text = |keys: &[&str]| read::text(data, keys).unwrap_or_default().to_owned();
        let parsed = Self {
            queue_sidecar_image: text(&["queue-sidecar-image", "queueSidecarImage"]),
            registries_skipping_tag_resolving: list(
                &[
                    "registries-skipping-tag-resolving",
                    "registriesSkippingTagResolving",
                ],
                "kind.local,ko.local,dev.local",
            ),
            digest_resolution_timeout: resolution.to_std(),
            progress_deadline: progress_deadline.to_std(),
            queue_sidecar_cpu_request: cpu_request(data)?,
            queue_sidecar_cpu_limit: quantity(["queue-sidecar-cpu-limit", "queueSidecarCPULimit"])?,
            queue_sidecar_memory_request: quantity([
                "queue-sidecar-memory-request",
                "queueSidecarMemoryRequest",
            ])?,
            queue_sidecar_memory_limit: quantity([
                "queue-sidecar-memory-limit",
                "queueSidecarMemoryLimit",
            ])?,
            queue_sidecar_ephemeral_storage_request: quantity([
                "queue-sidecar-ephemeral-storage-request",
                "queueSidecarEphemeralStorageRequest",
            ])?,
            queue_sidecar_ephemeral_storage_limit: quantity([
                "queue-sidecar-ephemeral-storage-limit",
                "queueSidecarEphemeralStorageLimit",
            ])?,
            queue_sidecar_token_audiences: list(&["queue-sidecar-token-audiences"], ""),
            queue_sidecar_rootca: text(&["queue-sidecar-rootca"]),
            queue_sidecar_tls_min_version: text(&["queue-sidecar-tls-min-version"]),
            queue_sidecar_tls_max_version: text(&["queue-sidecar-tls-max-version"]),
            queue_sidecar_tls_cipher_suites: text(&["queue-sidecar-tls-cipher-suites"]),
            queue_sidecar_tls_curve_preferences: text(&["queue-sidecar-tls-curve-preferences"]),
            default_affinity_type: affinity_type(data)?,
            runtime_class_names: runtime_classes(
                read::text(data, &["runtime-class-name"]).unwrap_or_default(),
            )?,
            pod_is_always_schedulable: read::boolean(data, &["pod-is-always-schedulable"], false)?,
        };
        check_durations(progress_deadline, resolution)?;
        parsed.with_image(data)
    }

    /// Fills in the image that Kinglet ships if the map names none.
    fn with_image(self, data: &Data) -> Result<Self, String> {
        // The webhook sees the merged map, so a present but empty key is the usual mistake.
        let gave_image = ["queue-sidecar-image", "queueSidecarImage"]
            .iter()
            .any(|key| data.contains_key(*key));
        if self.queue_sidecar_image.is_empty() {
            if gave_image || !data.keys().any(|key| !key.starts_with('_')) {
                return Err("queue-sidecar-image cannot be empty or unset".to_owned());
            }
            return Ok(Self {
                queue_sidecar_image: QUEUE_SIDECAR_IMAGE.to_owned(),
                ..self
            });
        }
        Ok(self)
    }

    /// The runtime class for pods with these labels: the most specific selector wins, then the smaller name.
    pub fn runtime_class_for(&self, labels: &BTreeMap<String, String>) -> Option<&str> {
        self.runtime_class_names
            .iter()
            .filter(|(_, selector)| {
                selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
            })
            .max_by(|(a, left), (b, right)| left.len().cmp(&right.len()).then(b.cmp(a)))
            .map(|(name, _)| name.as_str())
    }
}

fn check_durations(progress_deadline: GoDuration, resolution: GoDuration) -> Result<(), String> {
    if progress_deadline.0 <= 0 {
        return Err(format!(
            "progress-deadline cannot be a non-positive duration, was {progress_deadline}"
        ));
    }
    if !progress_deadline.is_whole_seconds() {
        return Err(format!(
            "progress-deadline must be rounded to a whole second, was: {progress_deadline}"
        ));
    }
    if resolution.0 <= 0 {
        return Err(format!(
            "digest-resolution-timeout cannot be a non-positive duration, was {resolution}"
        ));
    }
    Ok(())
}

/// Splits a list at its commas.
fn list(text: &str) -> BTreeSet<String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Reads the CPU request of the queue: 25m without the key, none with an empty value.
fn cpu_request(data: &Data) -> Result<Option<Quantity>, String> {
    let keys = ["queue-sidecar-cpu-request", "queueSidecarCPURequest"];
    if read::text(data, &keys).is_none() {
        return Ok(Quantity::parse("25m").ok());
    }
    read::quantity(data, &keys)
}

fn affinity_type(data: &Data) -> Result<AffinityType, String> {
    match read::text(data, &["default-affinity-type"]) {
        None | Some("prefer-spread-revision-over-nodes") => {
            Ok(AffinityType::PreferSpreadRevisionOverNodes)
        }
        Some("none") => Ok(AffinityType::None),
        Some(other) => Err(format!(
            "unsupported default-affinity-type value: {}",
            go::quote(other)
        )),
    }
}

fn runtime_classes(text: &str) -> Result<BTreeMap<String, BTreeMap<String, String>>, String> {
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let cannot = |error: &str| {
        Err(format!(
            "runtime-class-name cannot be parsed, please check the format: {error}"
        ))
    };
    let go_type = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal";
    let of = "into Go value of type map[string]deployment.RuntimeClassNameLabelSelector";
    let map = match read::yaml(text) {
        Err(error) => return cannot(&error),
        Ok(Value::Object(map)) => map,
        Ok(Value::Null) => return Ok(BTreeMap::new()),
        Ok(Value::Array(_)) => return cannot(&format!("{go_type} array {of}")),
        Ok(Value::String(_)) => return cannot(&format!("{go_type} string {of}")),
        Ok(Value::Number(_)) => return cannot(&format!("{go_type} number {of}")),
        Ok(Value::Bool(_)) => return cannot(&format!("{go_type} bool {of}")),
    };
    let mut classes = BTreeMap::new();
    for (name, entry) in map {
        if let [error, ..] = formats::dns_1123_subdomain(&name).as_slice() {
            return Err(format!(
                "runtime-class-name {} is not a valid name: {error}",
                go::quote(&name)
            ));
        }
        let mut labels = BTreeMap::new();
        for (key, value) in entry
            .get("selector")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let Some(value) = value.as_str() else {
                return cannot(&format!("selector {} must be text", go::quote(key)));
            };
            labels.insert(key.clone(), value.to_owned());
        }
        classes.insert(name, labels);
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_runtime_class_wins() {
        let text = "kata: {}\ngvisor:\n  selector: {team: red}\nbest:\n  selector: {team: red, tier: gold}\n";
        let config = Deployment {
            runtime_class_names: runtime_classes(text).unwrap(),
            ..Deployment::default()
        };
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert_eq!(config.runtime_class_for(&labels(&[])), Some("kata"));
        assert_eq!(
            config.runtime_class_for(&labels(&[("team", "red")])),
            Some("gvisor")
        );
        assert_eq!(
            config.runtime_class_for(&labels(&[("team", "red"), ("tier", "gold")])),
            Some("best")
        );
    }

    #[test]
    fn registries_are_a_list() {
        let data = Data::from([
            ("queue-sidecar-image".to_owned(), "q".to_owned()),
            (
                "registries-skipping-tag-resolving".to_owned(),
                "a.local, b.local,".to_owned(),
            ),
        ]);
        let config = Deployment::parse(&data).unwrap();
        assert_eq!(
            config
                .registries_skipping_tag_resolving
                .into_iter()
                .collect::<Vec<_>>(),
            ["a.local", "b.local"]
        );
        assert_eq!(config.queue_sidecar_cpu_request.unwrap().to_string(), "25m");
    }
}
