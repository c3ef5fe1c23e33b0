//! Nobody hands out more than he has: what a writer of roles and bindings must hold, or be allowed to `escalate` or `bind`.

use serde_json::{Value, json};

use super::rights;
use crate::context::RequestContext;
use crate::kinds::Builtin;
use crate::object::{self, items, text};
use crate::path::RequestInfo;
use crate::status::Status;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks a new or changed role or binding. Rules that were there before may stay.
pub(crate) fn review(
    context: &RequestContext<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    if context.in_process() || context.user.is_master() {
        return Ok(());
    }
    match context.kind.builtin {
        Some(Builtin::Role | Builtin::ClusterRole) => role(context, object, old),
        Some(Builtin::RoleBinding | Builtin::ClusterRoleBinding) => binding(context, object, old),
        _ => Ok(()),
    }
}

fn role(context: &RequestContext<'_>, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    let same = |field: &str| old.is_some_and(|old| old.get(field) == object.get(field));
    let mut wanted = Vec::new();
    if !same("rules") {
        wanted.extend(items(object, &["rules"]).iter().cloned());
    }
    let info = RequestInfo {
        name: object::name(object).to_owned(),
        ..context.info.clone()
    };
    if rights::allows(context.server, context.user, "escalate", &info) {
        return Ok(());
    }
    // Who says which roles flow into this one may in the end have anything in it.
    if !same("aggregationRule") && !object::blank(object.get("aggregationRule")) {
        let everything = [
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}),
            json!({"verbs": ["*"], "nonResourceURLs": ["*"]}),
        ];
        if refuse_missing(context, object, &everything).is_err() {
            return Err(Status::forbidden(
                &context.kind.group,
                &context.kind.plural,
                object::name(object),
                "must have cluster-admin privileges to use the aggregationRule",
            ));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    refuse_missing(context, object, &wanted)
}

fn binding(
    context: &RequestContext<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let unchanged = |field: &str| old.is_some_and(|old| old.get(field) == object.get(field));
    if unchanged("subjects") && unchanged("roleRef") {
        return Ok(());
    }
    let name = text(object, &["roleRef", "name"]);
    let resource = match text(object, &["roleRef", "kind"]) {
        "ClusterRole" => "clusterroles",
        _ => "roles",
    };
    let info = RequestInfo {
        group: GROUP.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        namespace: context.info.namespace.clone(),
        name: name.to_owned(),
        ..RequestInfo::default()
    };
    if rights::allows(context.server, context.user, "bind", &info) {
        return Ok(());
    }
    let Some(rules) = rights::rules_of_role(
        context.server,
        text(object, &["roleRef", "kind"]),
        name,
        &context.info.namespace,
    ) else {
        return Err(Status::not_found(GROUP, resource, name));
    };
    refuse_missing(context, object, &rules)
}

fn refuse_missing(
    context: &RequestContext<'_>,
    object: &Value,
    wanted: &[Value],
) -> Result<(), Status> {
    let held = rights::rules_for(context.server, context.user, &context.info.namespace);
    let missing: Vec<String> = wanted
        .iter()
        .filter(|rule| !covers(&held, rule))
        .map(shown)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = context
        .user
        .groups
        .iter()
        .map(|group| format!("\"{group}\""))
        .collect();
    let detail = format!(
        "user \"{}\" (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        context.user.name,
        groups.join(" "),
        missing.join("\n")
    );
    Err(Status::forbidden(
        &context.kind.group,
        &context.kind.plural,
        object::name(object),
        &detail,
    ))
}

/// Most single permissions that a rule is taken apart into; one with more is taken as not held.
const PERMISSIONS_MAX: usize = 10_000;

/// Does the union of rules allow all that a rule allows?
fn covers(held: &[Value], wanted: &Value) -> bool {
    let texts = |field: &str| -> Vec<&str> {
        items(wanted, &[field])
            .iter()
            .filter_map(Value::as_str)
            .collect()
    };
    let (verbs, groups, resources, names) = (
        texts("verbs"),
        texts("apiGroups"),
        texts("resources"),
        texts("resourceNames"),
    );
    let paths = texts("nonResourceURLs");
    let count = verbs
        .len()
        .saturating_mul(
            groups
                .len()
                .saturating_mul(resources.len())
                .saturating_mul(names.len().max(1)),
        )
        .saturating_add(verbs.len().saturating_mul(paths.len()));
    if count > PERMISSIONS_MAX {
        return false;
    }
    let named: Vec<Option<&str>> = match names.as_slice() {
        [] => vec![None],
        names => names.iter().map(|name| Some(*name)).collect(),
    };
    verbs.iter().all(|verb| {
        let holds_resources = groups.iter().all(|group| {
            resources.iter().all(|resource| {
                named.iter().all(|name| {
                    held.iter()
                        .any(|rule| holds(rule, verb, group, resource, *name))
                })
            })
        });
        holds_resources
            && paths.iter().all(|path| {
                held.iter()
                    .any(|rule| rights::has(rule, "verbs", verb) && rights::has_path(rule, path))
            })
    })
}

/// Does one rule allow this verb on this resource, for all names or for one?
fn holds(rule: &Value, verb: &str, group: &str, resource: &str, name: Option<&str>) -> bool {
    let of_all = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    let resource_fits = items(rule, &["resources"])
        .iter()
        .filter_map(Value::as_str)
        .any(|own| own == "*" || own == resource || of_all.as_deref() == Some(own));
    let names = items(rule, &["resourceNames"]);
    let name_fits =
        names.is_empty() || name.is_some_and(|name| names.iter().any(|own| own == name));
    rights::has(rule, "verbs", verb)
        && rights::has(rule, "apiGroups", group)
        && resource_fits
        && name_fits
}

/// A rule as Kubernetes prints it in this message.
fn shown(rule: &Value) -> String {
    let parts: Vec<String> = [
        ("apiGroups", "APIGroups"),
        ("resources", "Resources"),
        ("resourceNames", "ResourceNames"),
        ("nonResourceURLs", "NonResourceURLs"),
        ("verbs", "Verbs"),
    ]
    .iter()
    .filter_map(|(field, title)| {
        let values: Vec<String> = items(rule, &[field]).iter().map(Value::to_string).collect();
        (!values.is_empty()).then(|| format!("{title}:[{}]", values.join(" ")))
    })
    .collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_cover_rules() {
        let rule = |verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]| json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names});
        let held = [
            rule(&["get", "list"], &[""], &["pods", "configmaps"], &[]),
            rule(&["update"], &["apps"], &["*/scale"], &[]),
            rule(&["*"], &["apps"], &["deployments"], &["mine"]),
            json!({"verbs": ["get"], "nonResourceURLs": ["/logs/*"]}),
        ];
        for (wanted, expected) in [
            (rule(&["get"], &[""], &["pods"], &[]), true),
            (rule(&["get"], &[""], &["pods"], &["one"]), true),
            (rule(&["get", "watch"], &[""], &["pods"], &[]), false),
            (rule(&["get"], &[""], &["pods/log"], &[]), false),
            (rule(&["get"], &["*"], &["pods"], &[]), false),
            (rule(&["get"], &[""], &["*"], &[]), false),
            (
                rule(&["update"], &["apps"], &["deployments/scale"], &[]),
                true,
            ),
            (
                rule(&["delete"], &["apps"], &["deployments"], &["mine"]),
                true,
            ),
            (rule(&["delete"], &["apps"], &["deployments"], &[]), false),
            (
                rule(&["delete"], &["apps"], &["deployments"], &["mine", "yours"]),
                false,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/logs/a"]}),
                true,
            ),
            (
                json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]}),
                false,
            ),
        ] {
            assert_eq!(covers(&held, &wanted), expected, "{wanted}");
        }
        assert_eq!(
            shown(&rule(&["get"], &[""], &["pods"], &[])),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}"
        );
    }
}
