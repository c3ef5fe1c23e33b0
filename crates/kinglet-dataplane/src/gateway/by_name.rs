//! Revisions that pods call directly, as Knative's activator takes them (spec/serving.md 6.2.1, step 5): by the two
//! headers, or by the name of the Revision's own Service.

use std::sync::Arc;

use http::HeaderMap;
use kinglet_decide::feed::Key;
use kinglet_decide::route::bare_host;

use crate::clusters::Cluster;
use crate::headers::{NAMESPACE, REVISION};
use crate::plane::Plane;
use crate::response::ProxyError;
use crate::routes::Destination;

/// A Revision's private Service is the Revision's name and this.
const PRIVATE: &str = "-private";

/// The Revision that a request inside names; `None` when it names none in either way.
pub(super) fn revision(
    plane: &Plane,
    headers: &HeaderMap,
    host: &str,
) -> Option<Result<Arc<Destination>, ProxyError>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let (Some(name), Some(namespace)) = (text(REVISION), text(NAMESPACE)) {
        let key = Key::new(namespace, name);
        return Some(match plane.clusters.revision(&key) {
            Some(cluster) => Ok(destination(cluster)),
            None => Err(ProxyError::UnknownBackend { key }),
        });
    }
    let (service, namespace) = service_name(host, &plane.options().cluster_domain)?;
    let find = |name: &str| plane.clusters.revision(&Key::new(namespace.as_str(), name));
    let private = || find(service.strip_suffix(PRIVATE)?);
    find(&service).or_else(private).map(destination).map(Ok)
}

/// The Revision that a request to an activator names: by the headers, or by its host when both are missing. `Err` is
/// the Revision that there is not.
pub(super) fn revision_at_activator(
    plane: &Plane,
    headers: &HeaderMap,
    host: &str,
) -> Result<Arc<Destination>, Key> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
            .filter(|value| !value.is_empty())
    };
    let find = |namespace: &str, name: &str| {
        let found = plane.clusters.by_name(namespace, name);
        found.ok_or_else(|| Key::new(namespace, name))
    };
    match (text(NAMESPACE), text(REVISION)) {
        (None, None) => {
            let named = full_name(host, &plane.options().cluster_domain);
            let (namespace, name) = named.unwrap_or_default();
            find(&namespace, &name)
        }
        (namespace, name) => find(namespace.unwrap_or_default(), name.unwrap_or_default()),
    }
}

fn destination(cluster: Arc<Cluster>) -> Arc<Destination> {
    Arc::new(Destination::of_revision(cluster))
}

/// Namespace and name of `NAME.NAMESPACE.svc.DOMAIN`; no shorter form, since an activator sees public hosts, too.
fn full_name(host: &str, domain: &str) -> Option<(String, String)> {
    let host = bare_host(host).to_ascii_lowercase();
    let short = host.strip_suffix(domain)?.strip_suffix(".svc.")?;
    let (name, namespace) = short.split_once('.')?;
    (!namespace.contains('.')).then(|| (namespace.to_owned(), name.to_owned()))
}

/// Service and namespace of `SERVICE.NAMESPACE`, with or without `svc` and the cluster's domain.
pub(crate) fn service_name(host: &str, domain: &str) -> Option<(String, String)> {
    let host = bare_host(host).to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let short = host
        .strip_suffix(domain)
        .and_then(|rest| rest.strip_suffix(".svc."))
        .or_else(|| host.strip_suffix(".svc"))
        .unwrap_or(host);
    let (service, namespace) = short.split_once('.')?;
    (!namespace.contains('.') && !service.is_empty() && !namespace.is_empty())
        .then(|| (service.to_owned(), namespace.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services() {
        for (host, expected) in [
            ("r.ns.svc.cluster.local", Some(("r", "ns"))),
            ("R.ns.svc.cluster.local.:80", Some(("r", "ns"))),
            ("r.ns.svc", Some(("r", "ns"))),
            ("r.ns:8012", Some(("r", "ns"))),
            ("r", None),
            ("r.ns.svc.example.com", None),
            ("a.r.ns.svc.cluster.local", None),
            (".ns.svc", None),
            ("r.", None),
            ("", None),
        ] {
            let expected = expected.map(|(service, ns): (&str, &str)| (service.into(), ns.into()));
            assert_eq!(service_name(host, "cluster.local"), expected, "{host}");
        }
    }
}
