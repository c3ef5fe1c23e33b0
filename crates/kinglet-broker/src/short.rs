//! Addresses that lead back into this process (design decision 15).
//!
//! A subscriber `…broker-filter.NS/triggers/NAMESPACE/TRIGGER/UID` is the filter and its subscriber in place, a reply to
//! `…broker-ingress.NS/NAMESPACE/BROKER` is an append. Both go through the functions that the HTTP stages go through.

use http::Uri;

use crate::feed::{Key, Uid};

/// Kubernetes Service of the ingress.
pub const INGRESS_SERVICE: &str = "broker-ingress";
/// Kubernetes Service of the filter.
pub const FILTER_SERVICE: &str = "broker-filter";

/// What an address of ours is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Filter(TriggerPath),
    Ingress(Key),
}

/// Which of a Trigger's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Subscriber,
    Reply,
    DeadLetter,
}

/// The path of the filter's requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TriggerPath {
    pub(crate) trigger: Key,
    pub(crate) uid: Uid,
    pub(crate) part: Part,
}

impl TriggerPath {
    /// `/triggers/NAMESPACE/TRIGGER/UID[/reply|/dls]`
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix("/triggers/")?.split('/');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (namespace, name, uid) = (next()?, next()?, next()?);
        let part = match (parts.next(), parts.next()) {
            (None | Some(""), None) => Part::Subscriber,
            (Some("reply"), None) => Part::Reply,
            (Some("dls"), None) => Part::DeadLetter,
            _ => return None,
        };
        Some(Self {
            trigger: Key::new(namespace, name),
            uid: uid.into(),
            part,
        })
    }
}

/// `/NAMESPACE/BROKER`, one slash at the end tolerated. What follows a `?` belongs to the name, as in Knative.
pub(crate) fn broker_of(path_and_query: &str) -> Option<Key> {
    let path = path_and_query.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let (namespace, name) = path.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains('/'))
        .then(|| Key::new(namespace, name))
}

/// Name and namespace of a Service that a host names: `NAME.NAMESPACE[.svc[.…]]`, whatever the port.
pub(crate) fn service_of(host: &str) -> Option<(&str, &str)> {
    let host = host.split(':').next()?;
    let mut labels = host.split('.');
    let (name, namespace) = (labels.next()?, labels.next()?);
    (!name.is_empty() && labels.next().is_none_or(|label| label == "svc"))
        .then_some((name, namespace))
}

/// What a URL is, when it is one of ours, and whether it is secured.
pub(crate) fn place_of(url: &str, system_namespace: &str) -> Option<(Place, bool)> {
    let uri: Uri = url.parse().ok()?;
    let secured = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let authority = uri.authority()?;
    let usual = if secured { 443 } else { 80 };
    if authority.as_str().contains('@') || uri.port_u16().is_some_and(|port| port != usual) {
        return None;
    }
    let (service, namespace) = service_of(authority.host())?;
    if namespace != system_namespace {
        return None;
    }
    let place = match service {
        FILTER_SERVICE => Place::Filter(TriggerPath::parse(uri.path())?),
        INGRESS_SERVICE => Place::Ingress(broker_of(uri.path_and_query()?.as_str())?),
        _ => return None,
    };
    Some((place, secured))
}

/// Whether a failed address is the filter's, whose answers name the subscriber (`errdestination`).
pub(crate) fn is_filter(url: &str, system_namespace: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(Uri::host).and_then(service_of);
    host == Some((FILTER_SERVICE, system_namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ours_are_known() {
        let trigger = |part| {
            Some(Place::Filter(TriggerPath {
                trigger: Key::new("ns", "t"),
                uid: "u-1".into(),
                part,
            }))
        };
        let broker = |name: &str| Some(Place::Ingress(Key::new("ns", name)));
        let filter = "http://broker-filter.knative-eventing.svc.cluster.local";
        let ingress = "http://broker-ingress.knative-eventing.svc.cluster.local";
        for (url, expected) in [
            (
                format!("{filter}/triggers/ns/t/u-1"),
                trigger(Part::Subscriber),
            ),
            (
                format!("{filter}/triggers/ns/t/u-1/reply"),
                trigger(Part::Reply),
            ),
            (
                format!("{filter}/triggers/ns/t/u-1/dls"),
                trigger(Part::DeadLetter),
            ),
            (format!("{filter}/triggers/ns/t/u-1/more"), None),
            (format!("{filter}/triggers/ns/t"), None),
            (format!("{filter}:8080/triggers/ns/t/u-1"), None),
            (format!("{ingress}/ns/b"), broker("b")),
            (format!("{ingress}/ns/b/"), broker("b")),
            (format!("{ingress}:80/ns/b"), broker("b")),
            (format!("{ingress}/ns/b?x"), broker("b?x")),
            (format!("{ingress}/ns/b/c"), None),
            (format!("{ingress}/ns"), None),
            (
                "https://broker-ingress.knative-eventing.svc/ns/b".to_owned(),
                broker("b"),
            ),
            (
                "http://broker-ingress.knative-eventing/ns/b".to_owned(),
                broker("b"),
            ),
            ("http://broker-ingress.other.svc/ns/b".to_owned(), None),
            (
                "http://broker-ingress.knative-eventing.example.com/ns/b".to_owned(),
                None,
            ),
            (
                "http://user@broker-ingress.knative-eventing.svc/ns/b".to_owned(),
                None,
            ),
            (
                "ftp://broker-ingress.knative-eventing.svc/ns/b".to_owned(),
                None,
            ),
            ("not a url".to_owned(), None),
        ] {
            let found = place_of(&url, "knative-eventing").map(|(place, _)| place);
            assert_eq!(found, expected, "{url}");
        }
        assert!(is_filter(
            "http://broker-filter.knative-eventing.svc.cluster.local:80/x",
            "knative-eventing"
        ));
        assert!(!is_filter(
            "http://broker-filter.ns.svc/x",
            "knative-eventing"
        ));
    }
}
