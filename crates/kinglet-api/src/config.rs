//! The ConfigMaps of `knative-serving`, read into types; [`Configs`] is all of them at one moment.
//!
//! Flow: raw ConfigMap data -> one parser per map (here) -> `Arc<Configs>` that controllers and admission share.
//! Always: an absent key means its default; a map that does not parse leaves the last good value in force and is
//! reported; admission refuses it in the first place ([`check`]), in Knative's words.

mod autoscaler;
mod defaults;
mod deployment;
mod domain;
pub mod eventing;
mod features;
mod gc;
mod leader_election;
mod logging;
mod network;
mod observability;
mod read;

use std::collections::BTreeMap;

pub use autoscaler::Autoscaler;
pub use defaults::Defaults;
pub use deployment::{AffinityType, Deployment, QUEUE_SIDECAR_IMAGE};
pub use domain::{DEFAULT_DOMAIN, Domain};
pub use features::{Features, Flag, SecurePodDefaults};
pub use gc::Gc;
pub use leader_election::LeaderElection;
pub use logging::Logging;
pub use network::{DomainTemplateValues, HttpProtocol, Network};
pub use observability::{Metrics, Observability, REQUEST_LOG_TEMPLATE, Tracing};

/// Namespace of the ConfigMaps.
pub const SYSTEM_NAMESPACE: &str = "knative-serving";

/// Raw data of a ConfigMap.
pub type Data = BTreeMap<String, String>;

/// Names of the ConfigMaps read here.
pub const NAMES: [&str; 10] = [
    "config-autoscaler",
    "config-defaults",
    "config-deployment",
    "config-domain",
    "config-features",
    "config-gc",
    "config-leader-election",
    "config-logging",
    "config-network",
    "config-observability",
];

/// A ConfigMap that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reading ConfigMap {map}: {message}")]
pub struct Problem {
    /// Name of the ConfigMap.
    pub map: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// All configuration at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configs {
    /// `config-autoscaler`.
    pub autoscaler: Autoscaler,
    /// `config-defaults`.
    pub defaults: Defaults,
    /// `config-deployment`.
    pub deployment: Deployment,
    /// `config-domain`.
    pub domain: Domain,
    /// `config-features`.
    pub features: Features,
    /// `config-gc`.
    pub gc: Gc,
    /// `config-leader-election`.
    pub leader_election: LeaderElection,
    /// `config-logging`.
    pub logging: Logging,
    /// `config-network`.
    pub network: Network,
    /// `config-observability`.
    pub observability: Observability,
}

impl Configs {
    /// Everything at its default, Routes being published under `domain`.
    pub fn for_domain(domain: &str) -> Self {
        Self {
            domain: Domain::fallback(domain),
            ..Self::default()
        }
    }

    /// Reads all maps that `data` finds; those it does not find have their defaults.
    pub fn from_maps<'a>(data: impl Fn(&str) -> Option<&'a Data>) -> (Self, Vec<Problem>) {
        Self::default().updated(data)
    }

    /// Reads all maps anew. One that does not parse keeps the value it had here.
    pub fn updated<'a>(&self, data: impl Fn(&str) -> Option<&'a Data>) -> (Self, Vec<Problem>) {
        let empty = Data::new();
        let mut problems = Vec::new();
        let read = |map: &'static str| data(map).map_or_else(|| empty.clone(), Clone::clone);
        macro_rules! parse {
            ($map:literal, $field:ident, $parse:expr) => {{
                let data = read($map);
                match $parse(&data) {
                    Ok(good) => good,
                    Err(message) => {
                        problems.push(Problem { map: $map, message });
                        self.$field.clone()
                    }
                }
            }};
        }
        let fallback = self.domain.fallback_name().to_owned();
        let configs = Self {
            autoscaler: parse!("config-autoscaler", autoscaler, Autoscaler::parse),
            defaults: parse!("config-defaults", defaults, Defaults::parse),
            deployment: parse!("config-deployment", deployment, |data: &Data| {
                // An absent map is a fresh installation, an absent image in a present one a mistake.
                if data.is_empty() {
                    Ok(Deployment::default())
                } else {
                    Deployment::parse(data)
                }
            }),
            domain: parse!("config-domain", domain, |data: &Data| Domain::parse(
                data, &fallback
            )),
            features: parse!("config-features", features, Features::parse),
            gc: parse!("config-gc", gc, Gc::parse),
            leader_election: parse!(
                "config-leader-election",
                leader_election,
                LeaderElection::parse
            ),
            logging: parse!("config-logging", logging, Logging::parse),
            network: parse!("config-network", network, Network::parse),
            observability: parse!("config-observability", observability, Observability::parse),
        };
        (configs, problems)
    }
}

/// Whether a ConfigMap of that name may hold `data`; maps that are not known may hold anything.
pub fn check(map: &str, data: &Data) -> Result<(), String> {
    match map {
        "config-autoscaler" => Autoscaler::parse(data).map(drop),
        "config-defaults" => Defaults::parse(data).map(drop),
        "config-deployment" => Deployment::parse(data).map(drop),
        "config-domain" => Domain::parse(data, DEFAULT_DOMAIN).map(drop),
        "config-features" => Features::parse(data).map(drop),
        "config-gc" => Gc::parse(data).map(drop),
        "config-leader-election" => LeaderElection::parse(data).map(drop),
        "config-logging" => Logging::parse(data).map(drop),
        "config-network" => Network::parse(data).map(drop),
        "config-observability" => Observability::parse(data).map(drop),
        _ => Ok(()),
    }
}

/// The checksum that Knative writes beside an `_example`.
pub fn example_checksum(example: &str) -> String {
    let mut normalized = String::with_capacity(example.len());
    let mut in_break = false;
    for c in example.trim().chars() {
        match (matches!(c, '\n' | '\r'), in_break) {
            (true, false) => normalized.push_str("\\n"),
            (false, _) => normalized.push(c),
            (true, true) => {}
        }
        in_break = matches!(c, '\n' | '\r');
    }
    format!("{:08x}", crc32(normalized.as_bytes()))
}

/// CRC-32 (IEEE).
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> Data {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn refusals_are_knatives() {
        let rows: &[(&str, &str, &str, &str)] = &[
            (
                "config-autoscaler",
                "max-scale-up-rate",
                "0.9",
                "max-scale-up-rate = 0.9, must be greater than 1.0",
            ),
            (
                "config-autoscaler",
                "initial-scale",
                "x",
                "failed to parse data: failed to parse \"initial-scale\": strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "config-autoscaler",
                "stable-window",
                "5s",
                "stable-window = 5s, must be in [6s; 1h0m0s] range",
            ),
            (
                "config-autoscaler",
                "max-scale-limit",
                "9",
                "max-scale = 0, must be in [1, max-scale-limit(9)] range",
            ),
            (
                "config-defaults",
                "revision-timeout-seconds",
                "700",
                "revision-timeout-seconds (700) cannot be greater than max-revision-timeout-seconds (600)",
            ),
            (
                "config-defaults",
                "container-concurrency",
                "-2",
                "expected 0 <= -2 <= 1000: container-concurrency",
            ),
            (
                "config-defaults",
                "container-name-template",
                "{{",
                "template: container-template:1: unclosed action",
            ),
            (
                "config-deployment",
                "queue-sidecar-image",
                "",
                "queue-sidecar-image cannot be empty or unset",
            ),
            (
                "config-domain",
                "a.com",
                "x: [",
                "error converting YAML to JSON: yaml: line 1: did not find expected node content",
            ),
            (
                "config-gc",
                "retain-since-create-time",
                "-2h",
                "failed to parse retain-since-create-time: must be non-negative",
            ),
            (
                "config-gc",
                "max-non-active-revisions",
                "3",
                "min-non-active-revisions(20) must be <= max-non-active-revisions(3)",
            ),
            ("config-network", "domain-template", "", "empty hostname"),
            (
                "config-network",
                "domain-template",
                "{{.Name}}/x",
                "domain template has url path: /x",
            ),
            (
                "config-network",
                "rollout-duration",
                "-4",
                "rollout-duration must be a positive integer, but was -4",
            ),
            (
                "config-leader-election",
                "buckets",
                "12",
                "buckets: value must be between 1 <= 12 <= 10",
            ),
            (
                "config-observability",
                "tracing-sampling-rate",
                "3",
                "sampling rate 3.000000 should be less than or equal to one",
            ),
            (
                "config-observability",
                "metrics-protocol",
                "grpc",
                "endpoint should be set when protocol is \"grpc\"",
            ),
        ];
        for (map, key, value, want) in rows {
            assert_eq!(
                check(map, &data(&[(key, value)])).unwrap_err(),
                *want,
                "{map} {key}={value}"
            );
        }
    }

    #[test]
    fn what_is_good_passes() {
        for (map, key, value) in [
            (
                "config-autoscaler",
                "container-concurrency-target-percentage",
                "0.7",
            ),
            ("config-autoscaler", "unknown", "x"),
            ("config-defaults", "enable-service-links", "default"),
            ("config-features", "multi-container", "maybe"),
            ("config-gc", "max-non-active-revisions", "disabled"),
            ("config-network", "namespace-wildcard-cert-selector", "{}"),
            ("config-other", "anything", "goes"),
        ] {
            assert_eq!(
                check(map, &data(&[(key, value)])),
                Ok(()),
                "{map} {key}={value}"
            );
        }
    }

    #[test]
    fn a_bad_map_keeps_the_last_good_value() {
        let good = data(&[("stable-window", "30s")]);
        let (configs, problems) =
            Configs::from_maps(|map| (map == "config-autoscaler").then_some(&good));
        assert_eq!(problems, []);
        assert_eq!(configs.autoscaler.stable_window.as_secs(), 30);
        let bad = data(&[("stable-window", "never")]);
        let (later, problems) = configs.updated(|map| (map == "config-autoscaler").then_some(&bad));
        assert_eq!(later, configs);
        assert_eq!(problems[0].map, "config-autoscaler");
    }

    #[test]
    fn the_checksum_ignores_kinds_and_runs_of_line_breaks() {
        assert_eq!(
            example_checksum("a: b\n\nc: d\n"),
            example_checksum("  a: b\r\nc: d")
        );
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
