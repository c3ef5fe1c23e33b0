//! Where a destination leads: a URL, certificates and an audience, or a sentence that names what is missing
//! (spec/eventing.md 1.4).
//!
//! Pure: the caller hands in a function that finds objects, and watches what [`referenced`] names, since a target that changes
//! changes the answer.

use serde_json::Value;
use url::Url;

use crate::config::eventing::{KReferenceMapping, Mapped};
use crate::duck::{Addressable, Destination, KReference};
use crate::names;

/// An object by group, version, kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Group, empty for the core.
    pub group: String,
    /// Version; empty if the reference has only a group (feature `kreference-group`).
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Target {
    /// `services` in the core, `brokers.eventing.knative.dev` elsewhere.
    fn resource(&self) -> String {
        let plural = names::plural(&self.kind);
        if self.group.is_empty() {
            plural
        } else {
            format!("{plural}.{}", self.group)
        }
    }
}

/// What the caller knows about a [`Target`].
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup<T> {
    /// The object.
    Found(T),
    /// There is no such object.
    Missing,
    /// There is no such kind.
    UnknownKind,
}

/// Where events go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resolved {
    /// An absolute URL.
    pub url: String,
    /// PEM certificates that its server may be signed by.
    pub ca_certs: Option<String>,
    /// OIDC audience.
    pub audience: Option<String>,
}

/// What every resolution of a program needs.
#[derive(Clone, Copy, Debug)]
pub struct Resolver<'a> {
    /// Domain of the cluster, such as `cluster.local`.
    pub cluster_domain: &'a str,
    /// `config-kreference-mapping`, for kinds that ask it, while its feature is on.
    pub mapping: Option<&'a KReferenceMapping>,
}

/// The object that a destination of something in `namespace` names.
pub fn referenced(destination: &Destination, namespace: &str) -> Option<Target> {
    destination
        .reference
        .as_ref()
        .map(|reference| target(reference, namespace))
}

/// The object of a reference in something in `namespace`.
pub fn target(reference: &KReference, namespace: &str) -> Target {
    let (group, version) = match reference.api_version.split_once('/') {
        Some((group, version)) => (group, version),
        None if reference.api_version.is_empty() => (reference.group.as_str(), ""),
        None => ("", reference.api_version.as_str()),
    };
    let namespace = if reference.namespace.is_empty() {
        namespace
    } else {
        &reference.namespace
    };
    Target {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: reference.kind.clone(),
        namespace: namespace.to_owned(),
        name: reference.name.clone(),
    }
}

impl Resolver<'_> {
    /// Resolves a destination of something in `namespace`.
    pub fn resolve<'o>(
        &self,
        destination: &Destination,
        namespace: &str,
        find: impl FnOnce(&Target) -> Lookup<&'o Value>,
    ) -> Result<Resolved, String> {
        let uri = destination.uri.as_deref().filter(|uri| !uri.is_empty());
        let Some(reference) = &destination.reference else {
            let uri = uri.ok_or("destination missing Ref and URI, expected at least one")?;
            return Ok(Resolved {
                url: absolute(uri)?,
                ca_certs: destination.ca_certs.clone(),
                audience: destination.audience.clone(),
            });
        };
        let target = target(reference, namespace);
        let address = self.address(reference, &target, destination, find)?;
        let base = address.url.unwrap_or_default();
        let url = match uri {
            Some(relative) => join(&base, relative)?,
            None => base,
        };
        Ok(Resolved {
            url,
            ca_certs: destination.ca_certs.clone().or(address.ca_certs),
            audience: destination.audience.clone().or(address.audience),
        })
    }

    fn address<'o>(
        &self,
        reference: &KReference,
        target: &Target,
        destination: &Destination,
        find: impl FnOnce(&Target) -> Lookup<&'o Value>,
    ) -> Result<Addressable, String> {
        let place = format!("{}/{}", target.namespace, target.name);
        let object = match find(target) {
            Lookup::Found(object) => object,
            Lookup::Missing => {
                return Err(format!(
                    "failed to get object {place}: {} {:?} not found",
                    target.resource(),
                    target.name
                ));
            }
            Lookup::UnknownKind => {
                return Err(format!(
                    "failed to get object {place}: there is no kind {:?} in {}",
                    target.kind,
                    api_version(target)
                ));
            }
        };
        if let Some(mapped) = self.mapped(target, object) {
            let url = mapped.map_err(|why| format!("making the URL of {place}: {why}"))?;
            return Ok(Addressable::url(absolute(&url)?));
        }
        if target.group.is_empty() && target.kind == "Service" {
            let secure = destination
                .ca_certs
                .as_deref()
                .is_some_and(|certs| !certs.is_empty());
            let scheme = if secure { "https" } else { "http" };
            let host = names::service_host(&target.name, &target.namespace, self.cluster_domain);
            return Ok(Addressable::url(format!("{scheme}://{host}")));
        }
        let address = chosen(object, reference.address.as_deref())
            .map_err(|why| format!("{} {place}: {why}", target.kind))?;
        let url = address.url.as_deref().unwrap_or_default();
        match Url::parse(url) {
            Ok(parsed) if parsed.has_host() => Ok(address),
            _ if url.is_empty() => Err(format!("{} {place}: its address has no URL", target.kind)),
            _ => Err(format!(
                "{} {place}: its address {url:?} has no host",
                target.kind
            )),
        }
    }

    fn mapped(&self, target: &Target, object: &Value) -> Option<Result<String, String>> {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let Target {
            group,
            version,
            kind,
            namespace,
            name,
        } = target;
        let object = Mapped {
            name,
            namespace,
            uid,
        };
        self.mapping?.url(group, version, kind, object)
    }
}

/// The address of an object: the one of that name, else the first of several, else the only one.
fn chosen(object: &Value, name: Option<&str>) -> Result<Addressable, String> {
    let status = &object["status"];
    let read = |value: &Value| serde_json::from_value::<Addressable>(value.clone()).ok();
    let several: Vec<Addressable> = status["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(read)
        .collect();
    if let Some(name) = name {
        return several
            .into_iter()
            .find(|address| address.name.as_deref() == Some(name))
            .ok_or_else(|| format!("address with name {name:?} not found"));
    }
    several
        .into_iter()
        .next()
        .or_else(|| {
            Some(&status["address"])
                .filter(|value| value.is_object())
                .and_then(read)
        })
        .ok_or_else(|| {
            let ready = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == "Ready" && condition["status"] != "True");
            match ready.and_then(|condition| condition["message"].as_str()) {
                Some(why) if !why.is_empty() => {
                    format!("it has no address, and is not ready: {why}")
                }
                _ => "it has no address".to_owned(),
            }
        })
}

fn absolute(uri: &str) -> Result<String, String> {
    match Url::parse(uri) {
        Ok(url) if url.has_host() => Ok(uri.to_owned()),
        _ => Err(format!(
            "URI is not absolute (both scheme and host should be non-empty): {uri:?}"
        )),
    }
}

/// Resolves a relative reference against a URL (RFC 3986).
fn join(base: &str, relative: &str) -> Result<String, String> {
    let parsed = Url::parse(base).map_err(|error| format!("the URL {base:?}: {error}"))?;
    let joined = parsed
        .join(relative)
        .map_err(|error| format!("joining {relative:?} to {base:?}: {error}"))?;
    // A reference such as `//elsewhere` would lead away from the object.
    if joined.host_str() != parsed.host_str() || joined.scheme() != parsed.scheme() {
        return Err(format!("{relative:?} leads away from {base:?}"));
    }
    Ok(joined.into())
}

fn api_version(target: &Target) -> String {
    match (target.group.as_str(), target.version.as_str()) {
        ("", version) => version.to_owned(),
        (group, "") => group.to_owned(),
        (group, version) => format!("{group}/{version}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Data;

    const RESOLVER: Resolver<'static> = Resolver {
        cluster_domain: "cluster.local",
        mapping: None,
    };

    fn to(value: Value) -> Destination {
        serde_json::from_value(value).unwrap()
    }

    fn resolve(destination: Value, found: Lookup<&Value>) -> Result<Resolved, String> {
        RESOLVER.resolve(&to(destination), "ns", |_| found)
    }

    fn broker(uri: Option<&str>) -> Value {
        let mut destination = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b"}});
        if let Some(uri) = uri {
            destination["uri"] = json!(uri);
        }
        destination
    }

    #[test]
    fn urls_are_joined_as_rfc_3986_says() {
        let object = json!({"status": {"address": {"url": "http://h/ns/b"}}});
        for (uri, want) in [
            (None, "http://h/ns/b"),
            (Some("/x"), "http://h/x"),
            (Some("x?y=z"), "http://h/ns/x?y=z"),
            (Some("../x"), "http://h/x"),
            (Some("?q"), "http://h/ns/b?q"),
            (Some(""), "http://h/ns/b"),
        ] {
            let resolved = resolve(broker(uri), Lookup::Found(&object)).unwrap();
            assert_eq!(resolved.url, want, "{uri:?}");
        }
        let away = resolve(broker(Some("//evil/x")), Lookup::Found(&object)).unwrap_err();
        assert_eq!(away, "\"//evil/x\" leads away from \"http://h/ns/b\"");
    }

    #[test]
    fn a_service_of_the_core_has_its_name_as_host() {
        let service = json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "s"}, "CACerts": "pem", "audience": "me"});
        assert_eq!(
            resolve(service, Lookup::Found(&json!({}))),
            Ok(Resolved {
                url: "https://s.ns.svc.cluster.local".to_owned(),
                ca_certs: Some("pem".to_owned()),
                audience: Some("me".to_owned()),
            })
        );
        let plain = json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "s", "namespace": "other"}, "uri": "/p"});
        assert_eq!(
            resolve(plain, Lookup::Found(&json!({}))).unwrap().url,
            "http://s.other.svc.cluster.local/p"
        );
    }

    #[test]
    fn the_first_of_several_addresses_is_taken_and_the_destination_has_the_last_word() {
        let object = json!({"status": {
            "address": {"url": "http://plain"},
            "addresses": [
                {"name": "https", "url": "https://secure", "CACerts": "theirs", "audience": "theirs"},
                {"name": "http", "url": "http://plain"},
            ],
        }});
        let mut destination = broker(None);
        let first = resolve(destination.clone(), Lookup::Found(&object)).unwrap();
        assert_eq!(
            (first.url.as_str(), first.ca_certs.as_deref()),
            ("https://secure", Some("theirs"))
        );
        destination["CACerts"] = json!("mine");
        destination["audience"] = json!("mine");
        let mine = resolve(destination, Lookup::Found(&object)).unwrap();
        assert_eq!(
            (mine.ca_certs.as_deref(), mine.audience.as_deref()),
            (Some("mine"), Some("mine"))
        );
        let named = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b", "address": "http"}});
        assert_eq!(
            resolve(named, Lookup::Found(&object)).unwrap().url,
            "http://plain"
        );
        let other = json!({"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "b", "address": "x"}});
        assert_eq!(
            resolve(other, Lookup::Found(&object)).unwrap_err(),
            "Broker ns/b: address with name \"x\" not found"
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let service = json!({"ref": {"apiVersion": "v1", "kind": "Service", "name": "absent"}});
        for (destination, found, want) in [
            (
                service,
                Lookup::Missing,
                "failed to get object ns/absent: services \"absent\" not found",
            ),
            (
                json!({"ref": {"apiVersion": "a.b/v1", "kind": "Policy", "name": "absent"}}),
                Lookup::Missing,
                "failed to get object ns/absent: policies.a.b \"absent\" not found",
            ),
            (
                broker(None),
                Lookup::UnknownKind,
                "failed to get object ns/b: there is no kind \"Broker\" in eventing.knative.dev/v1",
            ),
            (
                json!({"uri": "/x"}),
                Lookup::Missing,
                "URI is not absolute (both scheme and host should be non-empty): \"/x\"",
            ),
            (
                json!({}),
                Lookup::Missing,
                "destination missing Ref and URI, expected at least one",
            ),
        ] {
            assert_eq!(resolve(destination, found).unwrap_err(), want);
        }
        let waiting = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no channel"}]}});
        assert_eq!(
            resolve(broker(None), Lookup::Found(&waiting)).unwrap_err(),
            "Broker ns/b: it has no address, and is not ready: no channel"
        );
        let empty = json!({"status": {"address": {}}});
        assert_eq!(
            resolve(broker(None), Lookup::Found(&empty)).unwrap_err(),
            "Broker ns/b: its address has no URL"
        );
    }

    #[test]
    fn kinds_without_an_address_are_mapped() {
        let data = Data::from([(
            "Pod.v1".to_owned(),
            "http://{{ .Name }}.{{ .Namespace }}.{{ .SystemNamespace }}/{{ .UID }}".to_owned(),
        )]);
        let mapping = KReferenceMapping::parse(&data).unwrap();
        let resolver = Resolver {
            mapping: Some(&mapping),
            ..RESOLVER
        };
        let pod = json!({"metadata": {"uid": "u"}});
        let destination = to(json!({"ref": {"apiVersion": "v1", "kind": "Pod", "name": "p"}}));
        let resolved = resolver.resolve(&destination, "ns", |_| Lookup::Found(&pod));
        assert_eq!(resolved.unwrap().url, "http://p.ns.knative-eventing/u");
    }
}
