//! Authorization: masters may do everything, everybody may look at discovery, the rest is RBAC.

use serde_json::{Value, json};

use crate::identity::{Identity, Origin};
use crate::object::{items, text};
use crate::path::RequestInfo;
use crate::state::ServerState;
use crate::status::{Status, qualified};

/// Paths that tell nothing and are asked by load balancers and probes.
fn is_public(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    matches!(first, "healthz" | "livez" | "readyz" | "version")
}

fn is_discovery(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    matches!(first, "" | "api" | "apis" | "openapi" | ".well-known")
}

/// May this identity ask for a path that is no resource?
pub(crate) fn check_path(
    server: &ServerState,
    user: &Identity,
    path: &str,
    method: &str,
) -> Result<(), Status> {
    let verb = method.to_lowercase();
    if allows_path(server, user, path, &verb) {
        return Ok(());
    }
    let mut status = Status::new(
        403,
        "Forbidden",
        format!(
            "forbidden: User \"{}\" cannot {verb} path \"{path}\"",
            user.name
        ),
    );
    status.details = serde_json::Map::new();
    Err(status)
}

pub(crate) fn allows_path(server: &ServerState, user: &Identity, path: &str, verb: &str) -> bool {
    if user.origin == Origin::InProcess || user.is_master() || is_public(path) {
        return true;
    }
    if user.is_anonymous() {
        return false;
    }
    if is_discovery(path) {
        return true;
    }
    rules_for(server, user, "")
        .iter()
        .any(|rule| has(rule, "verbs", verb) && has_path(rule, path))
}

/// May this identity do this to that resource?
pub(crate) fn check(
    server: &ServerState,
    user: &Identity,
    verb: &str,
    info: &RequestInfo,
) -> Result<(), Status> {
    if allows_in(server, user, verb, info, info.scope()) {
        return Ok(());
    }
    let resource = if info.subresource.is_empty() {
        info.resource.clone()
    } else {
        format!("{}/{}", info.resource, info.subresource)
    };
    let scope = if info.scope().is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", info.scope())
    };
    let detail = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {scope}",
        user.name, info.group
    );
    let mut status = Status::forbidden(&info.group, &info.resource, &info.name, &detail);
    if user.is_anonymous() {
        status.message = format!(
            "{}{} is forbidden: {detail}",
            qualified(&info.group, &info.resource),
            if info.name.is_empty() {
                String::new()
            } else {
                format!(" \"{}\"", info.name)
            }
        );
    }
    Err(status)
}

pub(crate) fn allows(
    server: &ServerState,
    user: &Identity,
    verb: &str,
    info: &RequestInfo,
) -> bool {
    allows_in(server, user, verb, info, &info.namespace)
}

/// [`allows`] by the rules that hold in a namespace, or everywhere where it is empty.
fn allows_in(
    server: &ServerState,
    user: &Identity,
    verb: &str,
    info: &RequestInfo,
    namespace: &str,
) -> bool {
    if user.origin == Origin::InProcess || user.is_master() {
        return true;
    }
    if user.is_anonymous() {
        return false;
    }
    // What everybody may ask about themselves.
    if verb == "create"
        && matches!(
            (info.group.as_str(), info.resource.as_str()),
            (
                "authorization.k8s.io",
                "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
            ) | ("authentication.k8s.io", "selfsubjectreviews")
        )
    {
        return true;
    }
    rules_for(server, user, namespace)
        .iter()
        .any(|rule| grants(rule, verb, info))
}

fn grants(rule: &Value, verb: &str, info: &RequestInfo) -> bool {
    let names = items(rule, &["resourceNames"]);
    let resource_fits = items(rule, &["resources"])
        .iter()
        .filter_map(Value::as_str)
        .any(
            |resource| match (resource.split_once('/'), info.subresource.as_str()) {
                _ if resource == "*" => true,
                (None, "") => resource == info.resource,
                (Some((parent, sub)), wanted) if !wanted.is_empty() => {
                    (parent == "*" || parent == info.resource) && sub == wanted
                }
                _ => false,
            },
        );
    has(rule, "verbs", verb)
        && has(rule, "apiGroups", &info.group)
        && resource_fits
        && (names.is_empty()
            || names
                .iter()
                .any(|name| name.as_str() == Some(info.name.as_str()) && !info.name.is_empty()))
}

/// Does a rule name this path, or a beginning of it?
pub(super) fn has_path(rule: &Value, path: &str) -> bool {
    items(rule, &["nonResourceURLs"])
        .iter()
        .filter_map(Value::as_str)
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(stem) => path.starts_with(stem),
            None => path == pattern,
        })
}

pub(super) fn has(rule: &Value, field: &str, value: &str) -> bool {
    items(rule, &[field])
        .iter()
        .filter_map(Value::as_str)
        .any(|each| each == "*" || each == value)
}

/// All rules that bind this identity in a namespace (and everywhere).
pub(super) fn rules_for(server: &ServerState, user: &Identity, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    let mut collect = |prefix: &str, namespace: &str| {
        let Ok(page) = server.store.list(prefix, None, 0, None) else {
            return;
        };
        for (_, entry) in page.entries {
            let Ok(binding) = serde_json::from_slice::<Value>(&entry.value) else {
                continue;
            };
            if items(&binding, &["subjects"])
                .iter()
                .any(|subject| is_subject(subject, user, namespace))
            {
                let role = &binding["roleRef"];
                let found = rules_of_role(
                    server,
                    text(role, &["kind"]),
                    text(role, &["name"]),
                    namespace,
                );
                rules.extend(found.into_iter().flatten());
            }
        }
    };
    collect("rbac.authorization.k8s.io/clusterrolebindings/", "");
    if !namespace.is_empty() {
        collect(
            &format!("rbac.authorization.k8s.io/rolebindings/{namespace}/"),
            namespace,
        );
    }
    rules
}

/// The rules of a role that a binding refers to; none if there is no such role.
pub(super) fn rules_of_role(
    server: &ServerState,
    kind: &str,
    name: &str,
    namespace: &str,
) -> Option<Vec<Value>> {
    let key = match kind {
        // Charts bind to this one without making it.
        "ClusterRole" if name == "cluster-admin" => {
            return Some(vec![
                json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
                json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
            ]);
        }
        "ClusterRole" => format!("rbac.authorization.k8s.io/clusterroles/{name}"),
        _ => format!("rbac.authorization.k8s.io/roles/{namespace}/{name}"),
    };
    let entry = server.store.get(&key)?;
    let role: Value = serde_json::from_slice(&entry.value).ok()?;
    Some(items(&role, &["rules"]).to_vec())
}

fn is_subject(subject: &Value, user: &Identity, namespace: &str) -> bool {
    let name = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => name == user.name,
        "Group" => user.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let home = text(subject, &["namespace"]);
            let home = if home.is_empty() { namespace } else { home };
            user.name == format!("system:serviceaccount:{home}:{name}")
        }
        _ => false,
    }
}

/// The answer to `kubectl auth can-i --list`.
pub(crate) fn rules(server: &ServerState, user: &Identity, namespace: &str) -> Value {
    if user.is_master() || user.origin == Origin::InProcess {
        return json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        });
    }
    let mut resources = vec![
        json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}),
        json!({"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}),
    ];
    let mut paths = vec![
        json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}),
    ];
    for rule in rules_for(server, user, namespace) {
        if rule.get("nonResourceURLs").is_some() {
            paths.push(rule)
        } else {
            resources.push(rule)
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
