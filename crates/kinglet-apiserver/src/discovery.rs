//! Everything that is no resource: discovery, version, health, OpenAPI.

mod openapi;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header;
use http::request::Parts;
use serde_json::{Map, Value, json};

use crate::accept::{self, Form};
use crate::body::{ApiResponse, json_bytes, text};
use crate::kinds::{Kind, api_version};
use crate::path::{Query, Target};
use crate::registry::{Registry, Version};
use crate::state::ServerState;
use crate::status::Status;

/// The Kubernetes whose API we speak.
const KUBERNETES: &str = "v1.34.4";

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

pub(crate) fn answer(
    server: &Arc<ServerState>,
    target: &Target,
    parts: &Parts,
) -> Result<ApiResponse, Status> {
    let registry = server.registry.load_full();
    match target {
        Target::Group(group) => {
            let Some(versions) = registry.groups.get(group).filter(|_| !group.is_empty()) else {
                return Ok(nothing());
            };
            Ok(plain(&group_value(group, versions, true)))
        }
        Target::GroupVersion(group, version) => {
            let Some(found) = registry.version(group, version) else {
                return Ok(nothing());
            };
            Ok(plain(&resources(&api_version(group, version), found)))
        }
        Target::Other(path) => other(server, &registry, path, parts),
        Target::Resource(_) => Err(Status::no_such_path()),
    }
}

/// What Go's multiplexer says of a path that nobody registered.
pub(crate) fn nothing() -> ApiResponse {
    text(404, "404 page not found\n")
}

fn plain(value: &Value) -> ApiResponse {
    crate::body::json(200, value)
}

fn other(
    server: &Arc<ServerState>,
    registry: &Registry,
    path: &str,
    parts: &Parts,
) -> Result<ApiResponse, Status> {
    match path {
        "/" => Ok(plain(&json!({"paths": paths(registry)}))),
        "/api" | "/apis" => {
            let core_group = path == "/api";
            if let Form::Discovery(version) = accept::form(&parts.headers).unwrap_or(Form::Plain) {
                return Ok(aggregated(server, registry, core_group, version));
            }
            Ok(plain(&if core_group {
                json!({
                    "kind": "APIVersions", "versions": ["v1"],
                    "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
                })
            } else {
                let groups: Vec<Value> = ordered(registry)
                    .map(|(group, versions)| group_value(group, versions, false))
                    .collect();
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            }))
        }
        "/version" => Ok(plain(&json!({
            "major": "1", "minor": "34", "gitVersion": format!("{KUBERNETES}+kinglet-{}", server.options.version),
            "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
            "emulationMajor": "1", "emulationMinor": "34", "minCompatibilityMajor": "1", "minCompatibilityMinor": "33",
            "goVersion": "none", "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, architecture()),
        }))),
        "/metrics" => match &server.options.metrics {
            Some(metrics) => Ok(text(200, metrics())),
            None => Err(Status::no_such_path()),
        },
        "/openapi/v2" => openapi::v2(server, registry, parts),
        "/openapi/v3" => Ok(json_bytes(
            200,
            document(server, "", || openapi::index(server, registry)),
        )),
        _ => {
            if let Some(place) = path.strip_prefix("/openapi/v3/") {
                return openapi::v3(server, registry, place, parts);
            }
            if let Some(health) = ["/healthz", "/livez", "/readyz"]
                .iter()
                .find(|root| path.starts_with(**root))
            {
                return health_answer(server, health, path, parts);
            }
            Err(Status::no_such_path())
        }
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn paths(registry: &Registry) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in ordered(registry) {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{}", version.name)),
        );
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    paths
}

/// Health, with the checks by name when asked `?verbose`: the store always, for readiness each component of the process.
fn health_answer(
    server: &ServerState,
    root: &str,
    path: &str,
    parts: &Parts,
) -> Result<ApiResponse, Status> {
    let query = Query::parse(parts.uri.query());
    let store = server.store.broken().map(|why| format!("store: {why}"));
    let mut checks = vec![("ping", None), ("store", store)];
    if root == "/readyz" {
        let components = (server.options.components)();
        checks.extend(components.into_iter().map(|component| {
            let failed = (!component.running).then(|| format!("{} failed", component.name));
            (component.name, failed)
        }));
    }
    let check = path[root.len()..].trim_matches('/');
    if !check.is_empty() {
        let (_, failed) = checks
            .into_iter()
            .find(|(name, _)| *name == check)
            .ok_or_else(Status::no_such_path)?;
        let code = if failed.is_some() { 500 } else { 200 };
        return Ok(text(code, failed.unwrap_or_else(|| "ok".to_owned())));
    }
    let (code, verdict) = match checks.iter().all(|(_, failed)| failed.is_none()) {
        true => (200, "passed"),
        false => (500, "failed"),
    };
    if code == 200 && !query.flag("verbose") {
        return Ok(text(200, "ok"));
    }
    let mut lines: Vec<String> = checks
        .into_iter()
        .map(|(name, failed)| match failed {
            None => format!("[+]{name} ok"),
            Some(failed) => format!("[-]{failed}"),
        })
        .collect();
    lines.push(format!(
        "{} check {verdict}\n",
        root.trim_start_matches('/')
    ));
    Ok(text(code, lines.join("\n")))
}

// --- groups ----------------------------------------------------------------------------------------------------------

/// Groups in the order in which clients should look for short names: Kubernetes' own first.
fn ordered(registry: &Registry) -> impl Iterator<Item = (&String, &Vec<Version>)> {
    let rank = |group: &str| {
        [
            "apps",
            "events.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "autoscaling",
            "batch",
            "policy",
            "rbac.authorization.k8s.io",
            "apiextensions.k8s.io",
            "scheduling.k8s.io",
            "coordination.k8s.io",
            "discovery.k8s.io",
        ]
        .iter()
        .position(|known| *known == group)
        .unwrap_or(usize::MAX)
    };
    let mut groups: Vec<_> = registry
        .groups
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .collect();
    groups.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    groups.into_iter()
}

fn group_value(group: &str, versions: &[Version], alone: bool) -> Value {
    let version = |version: &Version| json!({"groupVersion": api_version(group, &version.name), "version": version.name});
    let list: Vec<Value> = versions.iter().map(version).collect();
    let mut value = json!({"name": group, "versions": list, "preferredVersion": list.first()});
    if alone {
        value["kind"] = "APIGroup".into();
        value["apiVersion"] = "v1".into();
    }
    value
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    match kind.absent {
        Some(_) => &["get", "list", "watch"],
        None if kind.review => &["create"],
        None => VERBS,
    }
}

fn resources(group_version: &str, version: &Version) -> Value {
    let mut list = Vec::new();
    for kind in version.kinds.values() {
        let mut entry = Map::new();
        entry.insert("name".to_owned(), kind.plural.clone().into());
        entry.insert("singularName".to_owned(), kind.singular.clone().into());
        entry.insert("namespaced".to_owned(), kind.namespaced.into());
        entry.insert("kind".to_owned(), kind.kind.clone().into());
        entry.insert("verbs".to_owned(), json!(verbs(kind)));
        if !kind.short_names.is_empty() {
            entry.insert("shortNames".to_owned(), json!(kind.short_names));
        }
        if !kind.categories.is_empty() {
            entry.insert("categories".to_owned(), json!(kind.categories));
        }
        if !kind.review {
            entry.insert(
                "storageVersionHash".to_owned(),
                hash(&format!("{} {}", kind.prefix, kind.stored_version)).into(),
            );
        }
        list.push(Value::Object(entry));
        for sub in subresources(kind) {
            let mut entry = json!({
                "name": format!("{}/{}", kind.plural, sub.name), "singularName": "", "namespaced": kind.namespaced,
                "kind": sub.kind, "verbs": sub.verbs,
            });
            if let Some((group, version)) = sub.home {
                entry["group"] = group.into();
                entry["version"] = version.into();
            }
            list.push(entry);
        }
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

struct Sub<'a> {
    name: &'a str,
    kind: &'a str,
    /// Its own group and version, where that is not the parent's.
    home: Option<(&'a str, &'a str)>,
    verbs: &'a [&'a str],
}

fn subresources(kind: &Kind) -> Vec<Sub<'_>> {
    let mut list: Vec<Sub<'_>> = kind
        .extra
        .iter()
        .map(|extra| Sub {
            name: extra.name,
            kind: extra.kind,
            home: (extra.group != kind.group || extra.version != kind.version)
                .then_some((extra.group, extra.version)),
            verbs: extra.verbs,
        })
        .collect();
    if kind.scale.is_some() {
        list.push(Sub {
            name: "scale",
            kind: "Scale",
            home: Some(("autoscaling", "v1")),
            verbs: STATUS_VERBS,
        });
    }
    if kind.has_status {
        list.push(Sub {
            name: "status",
            kind: &kind.kind,
            home: None,
            verbs: STATUS_VERBS,
        });
    }
    list
}

fn hash(text: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    base64::engine::general_purpose::STANDARD.encode(&sha2::Sha256::digest(text.as_bytes())[..8])
}

/// All groups with all resources in one answer.
fn aggregated(
    server: &ServerState,
    registry: &Registry,
    core_group: bool,
    form: &str,
) -> ApiResponse {
    let bytes = document(
        server,
        if core_group { "agg:api" } else { "agg:apis" },
        || {
            let items: Vec<Value> = if core_group {
                registry
                    .groups
                    .get("")
                    .map(|versions| aggregated_group("", versions))
                    .into_iter()
                    .collect()
            } else {
                ordered(registry)
                    .map(|(group, versions)| aggregated_group(group, versions))
                    .collect()
            };
            Bytes::from(json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/FORM", "metadata": {}, "items": items}).to_string())
        },
    );
    let text = String::from_utf8_lossy(&bytes).replacen(
        "apidiscovery.k8s.io/FORM",
        &format!("apidiscovery.k8s.io/{form}"),
        1,
    );
    let mut response = json_bytes(200, text);
    let media = format!("application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList");
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_str(&media).expect("plain ASCII"),
    );
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregated_group(group: &str, versions: &[Version]) -> Value {
    let version = |version: &Version| {
        let resources: Vec<Value> = version
            .kinds
            .values()
            .map(|kind| {
                let mut entry = json!({
                    "resource": kind.plural,
                    "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
                    "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                    "singularResource": kind.singular, "verbs": verbs(kind),
                });
                if !kind.short_names.is_empty() {
                    entry["shortNames"] = json!(kind.short_names);
                }
                if !kind.categories.is_empty() {
                    entry["categories"] = json!(kind.categories);
                }
                let subs: Vec<Value> = subresources(kind)
                    .iter()
                    .map(|sub| {
                        let (group, version) = sub.home.unwrap_or((&kind.group, &kind.version));
                        json!({
                            "subresource": sub.name, "verbs": sub.verbs,
                            "responseKind": {"group": group, "version": version, "kind": sub.kind},
                        })
                    })
                    .collect();
                if !subs.is_empty() {
                    entry["subresources"] = subs.into();
                }
                entry
            })
            .collect();
        json!({"version": version.name, "resources": resources, "freshness": "Current"})
    };
    let list: Vec<Value> = versions.iter().map(version).collect();
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": list})
}

/// An answer that is made once per set of kinds.
fn document(server: &ServerState, key: &str, make: impl FnOnce() -> Bytes) -> Bytes {
    if let Some(found) = server.documents.lock().get(key) {
        return found.clone();
    }
    let made = make();
    server.documents.lock().insert(key.to_owned(), made.clone());
    made
}
