//! From a KIngress spec to the rules of a route table: pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::networking as api;
use kinglet_decide::feed::Key;
use kinglet_decide::route::{
    Certificate, HttpOption, IngressRule, PathRule, Split, Target, Visibility,
};
use kinglet_reconcile::key_of;
use sha2::{Digest, Sha256};

use super::tls;

/// The rules of an Ingress. `certificates` are those of its `spec.tls`, entry by entry; `service` finds Kubernetes Services, needed for ports given by name.
pub(super) fn of(
    ingress: &api::Ingress,
    certificates: &[Option<Arc<Certificate>>],
    service: impl Fn(&str, &str) -> Option<Arc<Service>>,
) -> Result<Vec<IngressRule>, String> {
    let key = key_of(ingress);
    let hash = probe_hash(ingress, certificates);
    let http_option = match ingress.spec.http_option {
        api::HttpOption::Redirected => HttpOption::Redirected,
        api::HttpOption::Unset | api::HttpOption::Enabled => HttpOption::Enabled,
    };
    let rules = ingress.spec.rules.iter().enumerate();
    rules
        .zip(tls::entries_by_rule(ingress))
        .map(|((at, rule), entries)| {
            let shown = entries
                .into_iter()
                .filter_map(|entry| certificates.get(entry)?.clone());
            let read = one(&key, rule, http_option, &hash, &service)
                .map_err(|why| format!("spec.rules[{at}].{why}"))?;
            Ok(IngressRule {
                certificates: shown.collect(),
                ..read
            })
        })
        .collect()
}

fn one(
    key: &Key,
    rule: &api::IngressRule,
    http_option: HttpOption,
    hash: &str,
    service: &impl Fn(&str, &str) -> Option<Arc<Service>>,
) -> Result<IngressRule, String> {
    let paths = rule.http.iter().flat_map(|http| &http.paths).enumerate();
    Ok(IngressRule {
        ingress: key.clone(),
        hosts: rule.hosts.clone(),
        visibility: match rule.visibility {
            api::Visibility::ExternalIP => Visibility::External,
            api::Visibility::ClusterLocal => Visibility::ClusterLocal,
        },
        http_option,
        probe_hash: hash.to_owned(),
        certificates: Vec::new(),
        paths: paths
            .map(|(at, path)| {
                self::path(path, service).map_err(|why| format!("http.paths[{at}].{why}"))
            })
            .collect::<Result<_, _>>()?,
    })
}

fn path(
    path: &api::HttpIngressPath,
    service: &impl Fn(&str, &str) -> Option<Arc<Service>>,
) -> Result<PathRule, String> {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let alone = path.splits.len() == 1;
    let splits = path.splits.iter().enumerate();
    Ok(PathRule {
        path: some(&path.path),
        headers: path
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.exact.clone()))
            .collect(),
        append_headers: pairs(&path.append_headers),
        rewrite_host: some(&path.rewrite_host),
        splits: splits
            .map(|(at, split)| {
                self::split(split, alone, service).map_err(|why| format!("splits[{at}].{why}"))
            })
            .collect::<Result<_, _>>()?,
    })
}

fn pairs(headers: &std::collections::BTreeMap<String, String>) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn split(
    split: &api::IngressBackendSplit,
    alone: bool,
    service: &impl Fn(&str, &str) -> Option<Arc<Service>>,
) -> Result<Split, String> {
    let percent = if alone && split.percent == 0 {
        100
    } else {
        split.percent
    };
    let percent = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
    let (namespace, name) = (&split.service_namespace, &split.service_name);
    let port = match &split.service_port {
        IntOrString::Int(port) => u16::try_from(*port).ok().filter(|port| *port != 0),
        IntOrString::String(port_name) => {
            let found = service(namespace, name)
                .ok_or_else(|| format!("serviceName: Service {namespace}/{name} not found"))?;
            let ports = found
                .spec
                .iter()
                .flat_map(|spec| spec.ports.iter().flatten());
            let named = ports
                .into_iter()
                .find(|port| port.name.as_deref() == Some(port_name));
            named.and_then(|port| u16::try_from(port.port).ok())
        }
    };
    Ok(Split {
        percent: percent
            .ok_or_else(|| format!("percent: {} is not between 0 and 100", split.percent))?,
        target: Target {
            namespace: namespace.clone(),
            service: name.clone(),
            port: port.ok_or_else(|| {
                format!(
                    "servicePort: {:?} is no port of Service {namespace}/{name}",
                    split.service_port
                )
            })?,
        },
        append_headers: pairs(&split.append_headers),
    })
}

/// `K-Network-Hash`: what a prober compares to know which version of an Ingress answers it. The same as Knative's:
/// SHA-256 over the spec as Go serializes it, the namespace and the name; and over the certificates, where there are any, so
/// that a gateway that does not show them yet answers with another one.
pub(super) fn probe_hash(
    ingress: &api::Ingress,
    certificates: &[Option<Arc<Certificate>>],
) -> String {
    let spec = serde_json::to_string(&ingress.spec).expect("an Ingress has string keys only");
    let mut hash = Sha256::new();
    hash.update(kinglet_api::go::escape_html(&spec));
    hash.update(ingress.namespace());
    hash.update(ingress.name());
    for certificate in certificates.iter().flatten() {
        hash.update(&certificate.chain_pem);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
