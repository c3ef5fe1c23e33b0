//! Names, hosts, visibility and URLs of a Route and its tags: pure.

use std::collections::{BTreeMap, BTreeSet};

use kinglet_api::config::{Configs, DomainTemplateValues};
use kinglet_api::formats;
use kinglet_api::keys;
use kinglet_api::names::service_host;
use kinglet_api::networking::Visibility;
use kinglet_api::serving::Route;
use kinglet_reconcile::label;

use super::observe::RouteObserved;

/// Where one group of targets is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TagAddress {
    /// Name of the placeholder Service.
    pub(super) name: String,
    /// Full name inside the cluster.
    pub(super) local: String,
    /// Public host; `None` if it is not to be reached from outside.
    pub(super) external: Option<String>,
    /// URL that is shown.
    pub(super) url: String,
}

impl TagAddress {
    pub(super) fn visibility(&self) -> Visibility {
        if self.external.is_some() {
            Visibility::ExternalIP
        } else {
            Visibility::ClusterLocal
        }
    }

    /// The host that is shown.
    pub(super) fn host(&self) -> &str {
        self.external.as_deref().unwrap_or(&self.local)
    }
}

/// The tags of a Route, the empty one being the Route itself.
fn tags(route: &Route) -> BTreeSet<&str> {
    let tags = route.spec.traffic.iter().map(|target| target.tag.as_str());
    tags.chain([""]).collect()
}

/// Names of the placeholder Services, as far as they can be told.
pub(super) fn names(route: &Route, configs: &Configs) -> Option<Vec<String>> {
    tags(route)
        .into_iter()
        .map(|tag| name(route, tag, configs).ok())
        .collect()
}

fn name(route: &Route, tag: &str, configs: &Configs) -> Result<String, String> {
    if tag.is_empty() {
        Ok(route.name().to_owned())
    } else {
        configs.network.tag_name(route.name(), tag)
    }
}

/// The places of a Route by tag.
pub(super) fn tag_addresses(
    observed: &RouteObserved,
) -> Result<BTreeMap<String, TagAddress>, String> {
    tags(&observed.route)
        .into_iter()
        .map(|tag| Ok((tag.to_owned(), tag_address(observed, tag)?)))
        .collect()
}

fn tag_address(observed: &RouteObserved, tag: &str) -> Result<TagAddress, String> {
    let (route, configs) = (&*observed.route, &observed.configs);
    let name = name(route, tag, configs)?;
    let local = service_host(&name, route.namespace(), &observed.cluster_domain);
    let domain = domain(route, configs, &observed.cluster_domain);
    let marked = observed
        .services
        .get(&name)
        .and_then(|service| label(&**service, keys::VISIBILITY))
        .is_some_and(|visibility| !visibility.is_empty());
    let external = if marked || domain == format!("svc.{}", observed.cluster_domain) {
        None
    } else {
        let facts = DomainTemplateValues {
            name: &name,
            namespace: route.namespace(),
            domain: &domain,
            annotations: route.metadata.annotations.as_ref(),
            labels: route.metadata.labels.as_ref(),
        };
        Some(configs.network.host(&facts)?)
    };
    let shown = external.as_deref().unwrap_or(&local);
    for host in [shown, &local] {
        if let Some(wrong) = formats::fully_qualified_domain_name(host) {
            return Err(format!("invalid domain name {host:?}: url: {wrong}"));
        }
    }
    let scheme = if external.is_some() {
        configs.network.default_external_scheme.as_str()
    } else {
        "http"
    };
    let url = format!("{scheme}://{shown}");
    Ok(TagAddress {
        name,
        local,
        external,
        url,
    })
}

/// The domain of a Route's public hosts.
pub(super) fn domain(route: &Route, configs: &Configs, cluster_domain: &str) -> String {
    let none = BTreeMap::new();
    let labels = route.metadata.labels.as_ref().unwrap_or(&none);
    configs.domain.lookup(labels, cluster_domain)
}

/// Hosts that a Route has outside, as far as they can be told; also those that a label keeps inside.
pub(crate) fn public_hosts(route: &Route, configs: &Configs) -> BTreeSet<String> {
    let none = BTreeMap::new();
    let labels = route.metadata.labels.as_ref().unwrap_or(&none);
    // A domain of the cluster's own is no public one, whatever it is called.
    let domain = configs.domain.lookup(labels, "");
    let hosts = tags(route).into_iter().filter_map(|tag| {
        let name = name(route, tag, configs).ok()?;
        let facts = DomainTemplateValues {
            name: &name,
            namespace: route.namespace(),
            domain: &domain,
            annotations: route.metadata.annotations.as_ref(),
            labels: route.metadata.labels.as_ref(),
        };
        configs.network.host(&facts).ok()
    });
    hosts.collect()
}

/// The same URL with another scheme.
pub(super) fn with_scheme(url: &str, scheme: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("{scheme}://{rest}")
}

/// All names under which a Service can be reached from inside, sorted.
pub(super) fn expanded(local: &str, cluster_domain: &str) -> Vec<String> {
    let suffix = format!(".{cluster_domain}");
    let mut all = vec![local.to_owned()];
    if let Some(short) = local.strip_suffix(&suffix) {
        all.push(short.to_owned());
        if let Some(shorter) = short.strip_suffix(".svc") {
            // A name that could be taken for an address, or that is no name at all, is left out.
            let last = shorter.rsplit('.').next().unwrap_or_default();
            if last.len() <= 63 && !last.bytes().all(|byte| byte.is_ascii_digit()) {
                all.push(shorter.to_owned());
            }
        }
    }
    all.sort();
    all
}
