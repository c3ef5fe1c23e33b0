//! Authorization: masters may do everything, everybody may look at discovery, the rest is RBAC.

use serde_json::{Value, json};

use crate::identity::{Identity, Origin};
use crate::object::{items, text};
use crate::path::Place;
use crate::server::Core;
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
    core: &Core,
    who: &Identity,
    path: &str,
    method: &str,
) -> Result<(), Status> {
    let verb = method.to_lowercase();
    if allows_path(core, who, path, &verb) {
        return Ok(());
    }
    let mut status = Status::new(
        403,
        "Forbidden",
        format!(
            "forbidden: User \"{}\" cannot {verb} path \"{path}\"",
            who.name
        ),
    );
    status.details = serde_json::Map::new();
    Err(status)
}

pub(crate) fn allows_path(core: &Core, who: &Identity, path: &str, verb: &str) -> bool {
    if who.origin == Origin::InProcess || who.is_master() || is_public(path) {
        return true;
    }
    if who.is_anonymous() {
        return false;
    }
    if is_discovery(path) {
        return true;
    }
    rules_for(core, who, "").iter().any(|rule| {
        has(rule, "verbs", verb)
            && items(rule, &["nonResourceURLs"])
                .iter()
                .filter_map(Value::as_str)
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(stem) => path.starts_with(stem),
                    None => path == pattern,
                })
    })
}

/// May this identity do this to that resource?
pub(crate) fn check(core: &Core, who: &Identity, verb: &str, place: &Place) -> Result<(), Status> {
    if allows(core, who, verb, place) {
        return Ok(());
    }
    let resource = if place.subresource.is_empty() {
        place.resource.clone()
    } else {
        format!("{}/{}", place.resource, place.subresource)
    };
    let scope = if place.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", place.namespace)
    };
    let why = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {scope}",
        who.name, place.group
    );
    let mut status = Status::forbidden(&place.group, &place.resource, &place.name, &why);
    if who.is_anonymous() {
        status.message = format!(
            "{}{} is forbidden: {why}",
            qualified(&place.group, &place.resource),
            if place.name.is_empty() {
                String::new()
            } else {
                format!(" \"{}\"", place.name)
            }
        );
    }
    Err(status)
}

pub(crate) fn allows(core: &Core, who: &Identity, verb: &str, place: &Place) -> bool {
    if who.origin == Origin::InProcess || who.is_master() {
        return true;
    }
    if who.is_anonymous() {
        return false;
    }
    // What everybody may ask about themselves.
    if verb == "create"
        && matches!(
            (place.group.as_str(), place.resource.as_str()),
            (
                "authorization.k8s.io",
                "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
            ) | ("authentication.k8s.io", "selfsubjectreviews")
        )
    {
        return true;
    }
    rules_for(core, who, &place.namespace)
        .iter()
        .any(|rule| grants(rule, verb, place))
}

fn grants(rule: &Value, verb: &str, place: &Place) -> bool {
    let names = items(rule, &["resourceNames"]);
    let resource_fits = items(rule, &["resources"])
        .iter()
        .filter_map(Value::as_str)
        .any(
            |resource| match (resource.split_once('/'), place.subresource.as_str()) {
                _ if resource == "*" => true,
                (None, "") => resource == place.resource,
                (Some((parent, sub)), wanted) if !wanted.is_empty() => {
                    (parent == "*" || parent == place.resource) && sub == wanted
                }
                _ => false,
            },
        );
    has(rule, "verbs", verb)
        && has(rule, "apiGroups", &place.group)
        && resource_fits
        && (names.is_empty()
            || names
                .iter()
                .any(|name| name.as_str() == Some(place.name.as_str()) && !place.name.is_empty()))
}

fn has(rule: &Value, field: &str, value: &str) -> bool {
    items(rule, &[field])
        .iter()
        .filter_map(Value::as_str)
        .any(|each| each == "*" || each == value)
}

/// All rules that bind this identity in a namespace (and everywhere).
fn rules_for(core: &Core, who: &Identity, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    let mut collect = |prefix: &str, namespace: &str| {
        let Ok(page) = core.store.list(prefix, None, 0, None) else {
            return;
        };
        for (_, entry) in page.entries {
            let Ok(binding) = serde_json::from_slice::<Value>(&entry.value) else {
                continue;
            };
            if items(&binding, &["subjects"])
                .iter()
                .any(|subject| is_subject(subject, who, namespace))
            {
                let role = match text(&binding, &["roleRef", "kind"]) {
                    "ClusterRole" => format!(
                        "rbac.authorization.k8s.io/clusterroles/{}",
                        text(&binding, &["roleRef", "name"])
                    ),
                    _ => format!(
                        "rbac.authorization.k8s.io/roles/{namespace}/{}",
                        text(&binding, &["roleRef", "name"])
                    ),
                };
                // Charts bind to this one without making it.
                if role == "rbac.authorization.k8s.io/clusterroles/cluster-admin" {
                    rules.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
                    rules.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
                } else if let Some(entry) = core.store.get(&role)
                    && let Ok(role) = serde_json::from_slice::<Value>(&entry.value)
                {
                    rules.extend(items(&role, &["rules"]).iter().cloned());
                }
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

fn is_subject(subject: &Value, who: &Identity, namespace: &str) -> bool {
    let name = text(subject, &["name"]);
    match text(subject, &["kind"]) {
        "User" => name == who.name,
        "Group" => who.groups.iter().any(|group| group == name),
        "ServiceAccount" => {
            let home = text(subject, &["namespace"]);
            let home = if home.is_empty() { namespace } else { home };
            who.name == format!("system:serviceaccount:{home}:{name}")
        }
        _ => false,
    }
}

/// The answer to `kubectl auth can-i --list`.
pub(crate) fn rules(core: &Core, who: &Identity, namespace: &str) -> Value {
    if who.is_master() || who.origin == Origin::InProcess {
        return json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        });
    }
    let mut resources = vec![json!({
        "verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    })];
    let mut paths = vec![
        json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}),
    ];
    for rule in rules_for(core, who, namespace) {
        if rule.get("nonResourceURLs").is_some() {
            paths.push(rule)
        } else {
            resources.push(rule)
        }
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
