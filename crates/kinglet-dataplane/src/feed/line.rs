//! The lines of a feed: one object each, under the name of what it is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use kinglet_decide::feed::{Key, ServiceBackend};
use kinglet_decide::route::{HttpOption, IngressRule, PathRule, Split, Target, Visibility};
use serde::Deserialize;

use super::Snapshot;

/// Why a feed was not understood.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No text came.
    #[error("reading the feed {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What went wrong.
        #[source]
        error: std::io::Error,
    },
    /// It is beyond its bound.
    #[error("the feed {path} is larger than {most} MiB")]
    TooLarge {
        /// The file.
        path: String,
        /// In MiB.
        most: u64,
    },
    /// A line is wrong.
    #[error("line {line} of the feed: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// In words.
        reason: String,
    },
}

/// A Revision as an activator is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct FedRevision {
    /// Name of its Configuration.
    pub configuration: String,
    /// 0: no limit.
    pub container_concurrency: u32,
    /// `spec.timeoutSeconds`.
    pub timeout: Duration,
    /// Zero: none.
    pub response_start_timeout: Duration,
    /// Zero: none.
    pub idle_timeout: Duration,
    /// Pods and where their queue-proxies listen, by address.
    pub pods: BTreeMap<SocketAddr, FedPod>,
    /// The activators that its public Endpoints name, sorted.
    pub activators: Vec<IpAddr>,
    /// A queue-proxy's own word is not enough: the user container has an exec readiness probe or a startup probe.
    pub wait_for_readiness: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq)]
pub struct FedPod {
    /// Its name.
    pub name: String,
    /// Kubernetes calls it ready.
    pub ready: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Line {
    Rule(Rule),
    Service(Service),
    Revision(Box<Revision>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    namespace: String,
    ingress: String,
    hosts: Vec<String>,
    #[serde(default)]
    visibility: RuleVisibility,
    #[serde(default)]
    http_option: RuleHttpOption,
    #[serde(default)]
    hash: String,
    paths: Vec<RulePath>,
}

#[derive(Default, Deserialize)]
enum RuleVisibility {
    #[default]
    #[serde(rename = "ExternalIP")]
    External,
    ClusterLocal,
}

#[derive(Default, Deserialize)]
enum RuleHttpOption {
    #[default]
    Enabled,
    Redirected,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RulePath {
    path: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    append_headers: BTreeMap<String, String>,
    rewrite_host: Option<String>,
    splits: Vec<RuleSplit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleSplit {
    service_namespace: String,
    service_name: String,
    service_port: u16,
    #[serde(default = "all")]
    percent: u8,
    #[serde(default)]
    append_headers: BTreeMap<String, String>,
}

fn all() -> u8 {
    100
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Service {
    namespace: String,
    name: String,
    ports: Vec<ServicePort>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServicePort {
    port: u16,
    /// `http1` or `h2c`.
    #[serde(default)]
    name: PortName,
    addresses: Vec<SocketAddr>,
}

#[derive(Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PortName {
    #[default]
    Http1,
    H2c,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Revision {
    namespace: String,
    name: String,
    #[serde(default)]
    configuration: String,
    #[serde(default)]
    container_concurrency: u32,
    timeout_seconds: u32,
    #[serde(default)]
    response_start_timeout_seconds: u32,
    #[serde(default)]
    idle_timeout_seconds: u32,
    pods: Vec<RevisionPod>,
    #[serde(default)]
    activators: Vec<IpAddr>,
    #[serde(default)]
    wait_for_readiness: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RevisionPod {
    name: String,
    address: SocketAddr,
    #[serde(default = "yes")]
    ready: bool,
}

fn yes() -> bool {
    true
}

impl Snapshot {
    /// Understands all lines, or names the first that is wrong. Empty lines count for nothing.
    pub fn parse(text: &str, version: u64) -> Result<Self, FeedError> {
        let mut snapshot = Self {
            version,
            ..Self::default()
        };
        for (index, text) in text.lines().enumerate() {
            if text.trim().is_empty() {
                continue;
            }
            let read = serde_json::from_str(text).map_err(|error| error.to_string());
            read.and_then(|line| snapshot.add(line))
                .map_err(|reason| FeedError::Line {
                    line: index + 1,
                    reason,
                })?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Rule(rule) => self.rules.push(rule.into_rule()),
            Line::Service(service) => {
                let key = Key::new(service.namespace.as_str(), service.name.as_str());
                add_once(&mut self.services, "service", key, service.into_backend())?;
            }
            Line::Revision(revision) => {
                let key = Key::new(revision.namespace.as_str(), revision.name.as_str());
                add_once(&mut self.revisions, "revision", key, revision.into_fed())?;
            }
        }
        Ok(())
    }
}

fn add_once<V>(map: &mut BTreeMap<Key, V>, what: &str, key: Key, value: V) -> Result<(), String> {
    match map.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(value);
            Ok(())
        }
        Entry::Occupied(occupied) => Err(format!("{what} {} has a line already", occupied.key())),
    }
}

impl Rule {
    fn into_rule(self) -> IngressRule {
        IngressRule {
            ingress: Key::new(self.namespace, self.ingress),
            hosts: self.hosts,
            visibility: match self.visibility {
                RuleVisibility::External => Visibility::External,
                RuleVisibility::ClusterLocal => Visibility::ClusterLocal,
            },
            http_option: match self.http_option {
                RuleHttpOption::Enabled => HttpOption::Enabled,
                RuleHttpOption::Redirected => HttpOption::Redirected,
            },
            probe_hash: self.hash,
            paths: self.paths.into_iter().map(RulePath::into_path).collect(),
        }
    }
}

impl RulePath {
    fn into_path(self) -> PathRule {
        PathRule {
            path: self.path,
            headers: self.headers.into_iter().collect(),
            append_headers: self.append_headers.into_iter().collect(),
            rewrite_host: self.rewrite_host,
            splits: self
                .splits
                .into_iter()
                .map(|split| Split {
                    percent: split.percent,
                    target: Target {
                        namespace: split.service_namespace,
                        service: split.service_name,
                        port: split.service_port,
                    },
                    append_headers: split.append_headers.into_iter().collect(),
                })
                .collect(),
        }
    }
}

impl Service {
    fn into_backend(self) -> ServiceBackend {
        let h2c = self.ports.iter().filter(|port| port.name == PortName::H2c);
        ServiceBackend {
            h2c_ports: h2c.map(|port| port.port).collect(),
            external_name: None,
            ports: self
                .ports
                .into_iter()
                .map(|port| (port.port, port.addresses))
                .collect(),
        }
    }
}

impl Revision {
    fn into_fed(self) -> FedRevision {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let mut activators = self.activators;
        activators.sort_unstable();
        activators.dedup();
        FedRevision {
            configuration: self.configuration,
            container_concurrency: self.container_concurrency,
            timeout: seconds(self.timeout_seconds),
            response_start_timeout: seconds(self.response_start_timeout_seconds),
            idle_timeout: seconds(self.idle_timeout_seconds),
            pods: self
                .pods
                .into_iter()
                .map(|pod| {
                    let fed = FedPod {
                        name: pod.name,
                        ready: pod.ready,
                    };
                    (pod.address, fed)
                })
                .collect(),
            activators,
            wait_for_readiness: self.wait_for_readiness,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_understood_line_by_line() {
        let text = r#"
{"rule":{"namespace":"ns","ingress":"a","hosts":["a.test"],"hash":"h","paths":[{"splits":[{"serviceNamespace":"ns","serviceName":"one","servicePort":80,"appendHeaders":{"Knative-Serving-Revision":"one"}}]}]}}
{"service":{"namespace":"ns","name":"one","ports":[{"port":80,"addresses":["10.0.0.1:8012"]},{"port":81,"name":"h2c","addresses":[]}]}}

{"revision":{"namespace":"ns","name":"one","timeoutSeconds":300,"containerConcurrency":2,"pods":[{"name":"p","address":"10.0.0.2:8012","ready":false}],"activators":["10.0.0.9","10.0.0.8"]}}
"#;
        let snapshot = Snapshot::parse(text, 7).expect("a feed");
        let key = Key::new("ns", "one");
        assert_eq!(snapshot.rules[0].paths[0].splits[0].percent, 100);
        assert_eq!(snapshot.services[&key].h2c_ports, [81]);
        let revision = &snapshot.revisions[&key];
        assert_eq!(revision.timeout, Duration::from_secs(300));
        assert!(revision.activators.is_sorted());
        assert!(revision.pods.values().all(|pod| !pod.ready));
        assert_eq!(snapshot.version, 7);
    }

    #[test]
    fn the_first_wrong_line_is_named() {
        let service = r#"{"service":{"namespace":"ns","name":"one","ports":[]}}"#;
        for (text, words) in [
            ("{}".to_owned(), &["line 1 of the feed: "][..]),
            (format!("{service}\nnonsense"), &["line 2 of the feed: "]),
            (
                format!("{service}\n\n{service}"),
                &["line 3", "service ns/one has a line already"],
            ),
            (r#"{"gateway":{}}"#.to_owned(), &["line 1", "gateway"]),
            (
                r#"{"service":{"namespace":"ns","name":"one","ports":[],"prots":[]}}"#.to_owned(),
                &["line 1", "prots"],
            ),
            (
                r#"{"revision":{"namespace":"ns","name":"one","pods":[]}}"#.to_owned(),
                &["line 1", "timeoutSeconds"],
            ),
        ] {
            let error = Snapshot::parse(&text, 1).expect_err(&text).to_string();
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{text}: {error}"
            );
        }
    }
}
