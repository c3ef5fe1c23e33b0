//! The Ingress of a Route: rules by host, splits by Revision: pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::config::{Flag, HttpProtocol};
use kinglet_api::networking::{
    HeaderMatch, HttpIngressPath, HttpIngressRule, HttpOption, Ingress, IngressBackendSplit,
    IngressRule, IngressSpec, Protocol, Visibility,
};
use kinglet_api::{keys, names};
use kinglet_reconcile::owner_reference;

use super::certificates::{self, RouteCertificates};
use super::hosts::{self, TagAddress};
use super::observe::RouteObserved;
use super::rollout::{Part, Rollout};
use super::traffic::{RevisionTarget, Traffic};
use crate::metadata::{self, LAST_APPLIED};

const REVISION_HEADER: &str = "Knative-Serving-Revision";
const NAMESPACE_HEADER: &str = "Knative-Serving-Namespace";
const TAG_HEADER: &str = "Knative-Serving-Tag";
const DEFAULT_ROUTE_HEADER: &str = "Knative-Serving-Default-Route";

/// The Ingress as it shall be, or why it cannot be told.
pub(super) fn build(
    observed: &RouteObserved,
    traffic: &Traffic,
    tag_addresses: &BTreeMap<String, TagAddress>,
    rollout: &Rollout,
    certificates: &RouteCertificates,
) -> Result<Ingress, String> {
    let route = &*observed.route;
    let mut labels = metadata::without(route.metadata.labels.as_ref(), |_| false);
    metadata::put(&mut labels, keys::ROUTE, route.name());
    metadata::put(&mut labels, keys::ROUTE_NAMESPACE, route.namespace());
    let mut annotations = metadata::without(route.metadata.annotations.as_ref(), |key| {
        matches!(
            key,
            LAST_APPLIED
                | "networking.knative.dev/certificate-class"
                | "networking.knative.dev/ingress-class"
        )
    });
    let class = keys::INGRESS_CLASS
        .get(route.metadata.annotations.as_ref())
        .unwrap_or(&observed.configs.network.ingress_class);
    metadata::put(&mut annotations, keys::INGRESS_CLASS.canonical(), class);
    metadata::put(&mut annotations, keys::ROLLOUT, rollout.to_json());
    if let Some(tags) = tag_to_host(tag_addresses) {
        metadata::put(&mut annotations, keys::TAG_TO_HOST, tags);
    }
    let spec = IngressSpec {
        http_option: http_option(observed)?,
        tls: certificates.tls.clone(),
        rules: rules(observed, traffic, tag_addresses, rollout, certificates),
    };
    let base = match observed.ingress.as_deref() {
        Some(present) => present.metadata.clone(),
        None => ObjectMeta {
            name: Some(names::child(route.name(), "")),
            namespace: route.metadata.namespace.clone(),
            owner_references: Some(vec![owner_reference(route)]),
            ..ObjectMeta::default()
        },
    };
    let metadata = ObjectMeta {
        labels: metadata::some(labels),
        annotations: metadata::some(annotations),
        ..base
    };
    Ok(Ingress {
        metadata,
        spec,
        ..Ingress::default()
    })
}

fn http_option(observed: &RouteObserved) -> Result<HttpOption, String> {
    let own = keys::HTTP_OPTION.get(observed.route.metadata.annotations.as_ref());
    match own.map(str::to_ascii_lowercase).as_deref() {
        Some("enabled") => Ok(HttpOption::Enabled),
        Some("redirected") => Ok(HttpOption::Redirected),
        Some(_) => Err(format!(
            "incorrect http-protocol annotation: {}",
            own.unwrap_or_default()
        )),
        None => Ok(match observed.configs.network.http_protocol {
            HttpProtocol::Enabled => HttpOption::Enabled,
            HttpProtocol::Redirected => HttpOption::Redirected,
            HttpProtocol::Disabled => HttpOption::Unset,
        }),
    }
}

/// Tag to its hosts, the one inside first.
fn tag_to_host(tag_addresses: &BTreeMap<String, TagAddress>) -> Option<String> {
    let tagged = tag_addresses.iter().filter(|(tag, _)| !tag.is_empty());
    let hosts: BTreeMap<&str, Vec<&str>> = tagged
        .map(|(tag, tag_address)| {
            let both = [
                Some(tag_address.local.as_str()),
                tag_address.external.as_deref(),
            ];
            (tag.as_str(), both.into_iter().flatten().collect())
        })
        .collect();
    (!hosts.is_empty()).then(|| serde_json::to_string(&hosts).expect("text only"))
}

fn rules(
    observed: &RouteObserved,
    traffic: &Traffic,
    tag_addresses: &BTreeMap<String, TagAddress>,
    rollout: &Rollout,
    certificates: &RouteCertificates,
) -> Vec<IngressRule> {
    let mut rules = Vec::new();
    for (tag, members) in &traffic.groups {
        let Some(tag_address) = tag_addresses.get(tag) else {
            continue;
        };
        let paths = paths(observed, traffic, tag, members, rollout);
        let local = hosts::expanded(&tag_address.local, &observed.cluster_domain);
        rules.push(rule(local, Visibility::ClusterLocal, &paths));
        if let Some(host) = &tag_address.external {
            let mut all = certificates::challenge_paths(certificates, host);
            all.extend(paths);
            rules.push(rule(vec![host.clone()], tag_address.visibility(), &all));
        }
    }
    rules
}

fn rule(hosts: Vec<String>, visibility: Visibility, paths: &[HttpIngressPath]) -> IngressRule {
    IngressRule {
        hosts,
        visibility,
        http: Some(HttpIngressRule {
            paths: paths.to_vec(),
        }),
    }
}

fn paths(
    observed: &RouteObserved,
    traffic: &Traffic,
    tag: &str,
    members: &[RevisionTarget],
    rollout: &Rollout,
) -> Vec<HttpIngressPath> {
    let mut path = HttpIngressPath {
        splits: splits(observed, tag, members, rollout),
        ..HttpIngressPath::default()
    };
    if observed.configs.features.tag_header_based_routing != Flag::Enabled {
        return vec![path];
    }
    if !tag.is_empty() {
        metadata::put(&mut path.append_headers, TAG_HEADER, tag);
        return vec![path];
    }
    metadata::put(&mut path.append_headers, DEFAULT_ROUTE_HEADER, "true");
    let tagged = traffic
        .groups
        .iter()
        .filter(|(tag, _)| !tag.is_empty())
        .map(|(tag, members)| HttpIngressPath {
            splits: splits(observed, tag, members, rollout),
            headers: [(TAG_HEADER.to_owned(), HeaderMatch { exact: tag.clone() })].into(),
            ..HttpIngressPath::default()
        });
    tagged.chain([path]).collect()
}

fn splits(
    observed: &RouteObserved,
    tag: &str,
    members: &[RevisionTarget],
    rollout: &Rollout,
) -> Vec<IngressBackendSplit> {
    let mut splits = Vec::new();
    for member in members
        .iter()
        .filter(|member| member.percent.unwrap_or(0) > 0)
    {
        let follows = member.latest_revision == Some(true) && !member.configuration.is_empty();
        match rollout
            .parts(tag, &member.configuration)
            .filter(|_| follows)
        {
            Some(parts) => splits.extend(
                parts
                    .iter()
                    .filter(|part| part.percent > 0)
                    .map(|part| split(observed, part)),
            ),
            None => {
                let part = Part {
                    revision_name: member.revision.clone(),
                    percent: member.percent.unwrap_or(0),
                };
                splits.push(split(observed, &part));
            }
        }
    }
    splits
}

fn split(observed: &RouteObserved, part: &Part) -> IngressBackendSplit {
    let namespace = observed.route.namespace();
    let protocol = observed
        .referenced
        .revisions
        .get(&part.revision_name)
        .map(|revision| revision.spec.protocol());
    let port = match protocol.unwrap_or_default() {
        Protocol::Http1 => 80,
        Protocol::H2c => 81,
    };
    let headers = [
        (NAMESPACE_HEADER, namespace),
        (REVISION_HEADER, part.revision_name.as_str()),
    ];
    IngressBackendSplit {
        service_namespace: namespace.to_owned(),
        service_name: part.revision_name.clone(),
        service_port: IntOrString::Int(port),
        percent: part.percent,
        append_headers: headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}
