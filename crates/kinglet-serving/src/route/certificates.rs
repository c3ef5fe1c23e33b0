//! Certificates of a Route's public hosts (spec/serving.md 7.1): pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kinglet_api::conditions::ConditionState;
use kinglet_api::config::HttpProtocol;
use kinglet_api::duck::ConditionStatus;
use kinglet_api::keys;
use kinglet_api::networking::{
    Certificate, CertificateSpec, Http01Challenge, HttpIngressPath, IngressBackendSplit, IngressTls,
};
use kinglet_reconcile::{Cascade, Plan, is_controlled_by, label, owner_reference, uid_of};

use super::hosts::{self, TagAddress};
use super::observe::RouteObserved;

/// What certificates mean for a Route.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteCertificates {
    desired: Vec<Certificate>,
    /// `CertificateProvisioned`.
    pub(super) state: Option<ConditionState>,
    /// Entries of the Ingress.
    pub(super) tls: Vec<IngressTls>,
    /// Requests that must be answered, by host.
    pub(super) challenges: BTreeMap<String, Vec<Http01Challenge>>,
    /// A Certificate that somebody else made.
    pub(super) foreign: Option<String>,
}

/// Whether hosts of this Route get certificates.
fn wanted(observed: &RouteObserved) -> bool {
    let own = keys::DISABLE_AUTO_TLS.get(observed.route.metadata.annotations.as_ref());
    let disabled = own.is_some_and(|text| text.eq_ignore_ascii_case("true"));
    observed.configs.network.external_domain_tls && !disabled
}

/// Looks at the Certificates that there are; URLs of hosts that are, or will be, served over TLS become https.
pub(super) fn look(
    observed: &RouteObserved,
    tag_addresses: &mut BTreeMap<String, TagAddress>,
) -> RouteCertificates {
    let not_enabled = |words: &str| RouteCertificates {
        state: Some(ConditionState::true_because("TLSNotEnabled", words)),
        ..RouteCertificates::default()
    };
    if !wanted(observed) {
        return not_enabled("external-domain-tls is not enabled");
    }
    if tag_addresses
        .values()
        .all(|address| address.external.is_none())
    {
        return not_enabled("TLS is not enabled for cluster-local");
    }
    let mut all = RouteCertificates::default();
    let mut states = Vec::new();
    for (tag, address) in tag_addresses {
        let Some(host) = address.external.clone() else {
            continue;
        };
        let desired = build(observed, tag, &host);
        let present = observed.certificates.get(desired.name());
        if present.is_some_and(|present| !is_controlled_by(&**present, &*observed.route)) {
            all.foreign.get_or_insert_with(|| desired.name().to_owned());
        }
        let current = present.filter(|present| {
            present.spec == desired.spec
                && present.status.common.observed_generation == present.generation()
        });
        let secure = judge(
            observed,
            &desired,
            current.map(|present| &**present),
            &host,
            &mut all,
            &mut states,
        );
        if secure {
            address.url = hosts::with_scheme(&address.url, "https");
        }
        all.desired.push(desired);
    }
    // The worst speaks for all; a Route may have many hosts.
    let rank = |state: &ConditionState| match state {
        ConditionState::False(_) => 0,
        ConditionState::Unknown(_) => 1,
        ConditionState::TrueBecause(_) => 2,
        ConditionState::True => 3,
    };
    all.state = states.into_iter().min_by_key(rank);
    if let Some(name) = &all.foreign {
        all.state = Some(ConditionState::false_because(
            "CertificateNotOwned",
            format!("There is an existing certificate {name} that we don't own."),
        ));
    }
    all
}

/// What one Certificate means; answers whether its host's URL is https.
fn judge(
    observed: &RouteObserved,
    desired: &Certificate,
    current: Option<&Certificate>,
    host: &str,
    all: &mut RouteCertificates,
    states: &mut Vec<ConditionState>,
) -> bool {
    let name = desired.name();
    let status = current.map(|current| &current.status);
    let condition = |kind: &str| status.and_then(|status| status.common.condition(kind));
    let ready = condition("Ready");
    let mut publish = || {
        let found = status
            .into_iter()
            .flat_map(|status| &status.http01_challenges);
        let found: Vec<Http01Challenge> = found.cloned().collect();
        if !found.is_empty() {
            all.challenges.insert(host.to_owned(), found);
        }
    };
    if ready.is_some_and(kinglet_api::duck::Condition::is_true) {
        if condition("Renewing").is_some_and(kinglet_api::duck::Condition::is_true) {
            publish();
        }
        all.tls.push(IngressTls {
            hosts: vec![host.to_owned()],
            secret_name: desired.spec.secret_name.clone(),
            secret_namespace: observed.route.namespace().to_owned(),
        });
        states.push(ConditionState::True);
        return true;
    }
    publish();
    if observed.configs.network.http_protocol == HttpProtocol::Enabled {
        states.push(ConditionState::true_because(
            "HTTPDowngrade",
            format!("Certificate {name} is not ready downgrade HTTP."),
        ));
        return false;
    }
    let why = ready.map(|ready| ready.message.clone()).unwrap_or_default();
    let failed = ready.is_some_and(|ready| ready.status == ConditionStatus::False);
    states.push(if failed {
        ConditionState::false_because(
            "CertificateProvisionFailed",
            format!("Certificate {name} fails to be provisioned: {why}"),
        )
    } else {
        ConditionState::unknown_because(
            "CertificateNotReady",
            format!("Certificate {name} is not ready: {why}"),
        )
    });
    true
}

/// Writes the Certificates, and deletes those of hosts that are no more.
pub(super) fn ensure(observed: &RouteObserved, certificates: &RouteCertificates, plan: &mut Plan) {
    let route = &*observed.route;
    for desired in &certificates.desired {
        let present = observed.certificates.get(desired.name());
        let (reason, words) = match present {
            None => ("Created", "Created Certificate"),
            Some(present) if present.spec != desired.spec => {
                ("Updated", "Updated Spec for Certificate")
            }
            Some(_) => ("", ""),
        };
        if !reason.is_empty() {
            let name = format!("{words} {}/{}", route.namespace(), desired.name());
            plan.normal(route, reason, name);
        }
        let desired = match present {
            // What others have added to it stays.
            Some(present) => Certificate {
                metadata: merged(&present.metadata, &desired.metadata),
                spec: desired.spec.clone(),
                ..Certificate::clone(present)
            },
            None => desired.clone(),
        };
        plan.ensure(present.map(|present| &**present), &desired);
    }
    for (name, present) in &observed.certificates {
        let kept = certificates
            .desired
            .iter()
            .any(|desired| desired.name() == name);
        let ours = is_controlled_by(&**present, route)
            && label(&**present, keys::CERTIFICATE_TYPE) == Some(keys::CERTIFICATE_TYPE_EXTERNAL);
        if !kept && ours {
            plan.delete(&**present, Cascade::Background);
            let name = format!(
                "Deleted orphaned Knative Certificate {}/{name}",
                route.namespace()
            );
            plan.normal(route, "Deleted", name);
        }
    }
}

fn merged(present: &ObjectMeta, desired: &ObjectMeta) -> ObjectMeta {
    let mut all = present.clone();
    let labels = desired.labels.clone().unwrap_or_default();
    all.labels.get_or_insert_default().extend(labels);
    let annotations = desired.annotations.clone().unwrap_or_default();
    all.annotations.get_or_insert_default().extend(annotations);
    all
}

/// The names of the Certificates that a Route has or had, for its tags of today.
pub(super) fn name(route_uid: &str, tag: &str) -> String {
    if tag.is_empty() {
        format!("route-{route_uid}")
    } else {
        format!("route-{route_uid}-{}", adler32(tag.as_bytes()))
    }
}

fn build(observed: &RouteObserved, tag: &str, host: &str) -> Certificate {
    let route = &*observed.route;
    let name = name(uid_of(route), tag);
    let class = keys::CERTIFICATE_CLASS
        .get(route.metadata.annotations.as_ref())
        .unwrap_or(&observed.configs.network.certificate_class);
    let labels = [
        (keys::ROUTE, route.name()),
        (keys::CERTIFICATE_TYPE, keys::CERTIFICATE_TYPE_EXTERNAL),
    ];
    let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let annotations = [text((keys::CERTIFICATE_CLASS.canonical(), class))];
    Certificate {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: route.metadata.namespace.clone(),
            labels: Some(labels.map(text).into()),
            annotations: Some(annotations.into()),
            owner_references: Some(vec![owner_reference(route)]),
            ..ObjectMeta::default()
        },
        spec: CertificateSpec {
            dns_names: vec![host.to_owned()],
            domain: hosts::domain(route, &observed.configs, &observed.cluster_domain),
            secret_name: name,
        },
        ..Certificate::default()
    }
}

/// The paths by which an ACME server's requests for this host are answered.
pub(super) fn challenge_paths(
    certificates: &RouteCertificates,
    host: &str,
) -> Vec<HttpIngressPath> {
    let challenges = certificates.challenges.get(host).into_iter().flatten();
    challenges
        .filter_map(|challenge| {
            let url: http::Uri = challenge.url.parse().ok()?;
            (url.host() == Some(host)).then(|| HttpIngressPath {
                path: url.path().to_owned(),
                splits: vec![IngressBackendSplit {
                    service_namespace: challenge.service_namespace.clone(),
                    service_name: challenge.service_name.clone(),
                    service_port: challenge.service_port.clone(),
                    percent: 100,
                    ..IngressBackendSplit::default()
                }],
                ..HttpIngressPath::default()
            })
        })
        .collect()
}

/// The checksum in the names of tags' Certificates, Knative's.
fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % MODULUS;
        (a, (b + a) % MODULUS)
    });
    (b << 16) | a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_knatives() {
        assert_eq!(name("u", ""), "route-u");
        assert_eq!(name("u", "current"), "route-u-200999684");
        assert_eq!(name("u", "latest"), "route-u-147587726");
    }
}
