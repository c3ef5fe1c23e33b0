//! The lines of a gateway: the rules of its Ingresses, and the certificates that they show.

use std::collections::BTreeMap;
use std::sync::Arc;

use kinglet_decide::feed::Key;
use kinglet_decide::route::{
    Certificate as Shown, HttpOption, IngressRule, PathRule, Split, Target, Visibility,
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rule {
    namespace: String,
    ingress: String,
    hosts: Vec<String>,
    #[serde(default)]
    visibility: RuleVisibility,
    #[serde(default)]
    http_option: RuleHttpOption,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    tls: Vec<RuleTls>,
    paths: Vec<RulePath>,
}

/// A certificate that a rule's hosts are shown; its line comes first.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleTls {
    secret_namespace: String,
    secret_name: String,
}

/// A Secret of type `kubernetes.io/tls`. Nothing here is ever printed.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Certificate {
    namespace: String,
    name: String,
    #[serde(rename = "tls.crt")]
    chain: String,
    #[serde(rename = "tls.key")]
    key: String,
}

#[derive(Default, Deserialize, Serialize)]
enum RuleVisibility {
    #[default]
    #[serde(rename = "ExternalIP")]
    External,
    ClusterLocal,
}

#[derive(Default, Deserialize, Serialize)]
enum RuleHttpOption {
    #[default]
    Enabled,
    Redirected,
}

#[derive(Deserialize, Serialize)]
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

#[derive(Deserialize, Serialize)]
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

impl RuleTls {
    fn of(secret: &Key) -> Self {
        Self {
            secret_namespace: secret.namespace.to_string(),
            secret_name: secret.name.to_string(),
        }
    }
}

impl Certificate {
    pub(super) fn of(shown: &Shown) -> Self {
        let text = |pem: &[u8]| String::from_utf8_lossy(pem).into_owned();
        Self {
            namespace: shown.secret.namespace.to_string(),
            name: shown.secret.name.to_string(),
            chain: text(&shown.chain_pem),
            key: text(&shown.key_pem),
        }
    }

    pub(super) fn into_shown(self) -> Shown {
        Shown {
            secret: Key::new(self.namespace, self.name),
            chain_pem: self.chain.as_bytes().into(),
            key_pem: self.key.as_bytes().into(),
        }
    }
}

impl Rule {
    pub(super) fn of(rule: &IngressRule) -> Self {
        Self {
            namespace: rule.ingress.namespace.to_string(),
            ingress: rule.ingress.name.to_string(),
            hosts: rule.hosts.clone(),
            visibility: match rule.visibility {
                Visibility::External => RuleVisibility::External,
                Visibility::ClusterLocal => RuleVisibility::ClusterLocal,
            },
            http_option: match rule.http_option {
                HttpOption::Enabled => RuleHttpOption::Enabled,
                HttpOption::Redirected => RuleHttpOption::Redirected,
            },
            hash: rule.probe_hash.clone(),
            tls: rule
                .certificates
                .iter()
                .map(|shown| RuleTls::of(&shown.secret))
                .collect(),
            paths: rule.paths.iter().map(RulePath::of).collect(),
        }
    }

    pub(super) fn into_rule(
        self,
        certificates: &BTreeMap<Key, Arc<Shown>>,
    ) -> Result<IngressRule, String> {
        let shown = self.tls.into_iter().map(|tls| {
            let key = Key::new(tls.secret_namespace, tls.secret_name);
            let found = certificates.get(&key).cloned();
            found.ok_or_else(|| format!("certificate {key} has no line before this one"))
        });
        Ok(IngressRule {
            certificates: shown.collect::<Result<_, _>>()?,
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
        })
    }
}

impl RulePath {
    fn of(path: &PathRule) -> Self {
        Self {
            path: path.path.clone(),
            headers: path.headers.iter().cloned().collect(),
            append_headers: path.append_headers.iter().cloned().collect(),
            rewrite_host: path.rewrite_host.clone(),
            splits: path.splits.iter().map(RuleSplit::of).collect(),
        }
    }

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

impl RuleSplit {
    fn of(split: &Split) -> Self {
        Self {
            service_namespace: split.target.namespace.clone(),
            service_name: split.target.service.clone(),
            service_port: split.target.port,
            percent: split.percent,
            append_headers: split.append_headers.iter().cloned().collect(),
        }
    }
}
