//! What may be in roles and their bindings.

use serde_json::Value;

use crate::kinds::Builtin;
use crate::names;
use crate::object::{items, text};
use crate::status::Cause;

use super::selector;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(kind: Builtin, role: &Value, causes: &mut Vec<Cause>) {
    for (index, each) in items(role, &["rules"]).iter().enumerate() {
        rule(kind, each, &format!("rules[{index}]"), causes);
    }
    let Some(aggregation) = role.get("aggregationRule").filter(|rule| rule.is_object()) else {
        return;
    };
    let path = "aggregationRule.clusterRoleSelectors";
    let selectors = items(aggregation, &["clusterRoleSelectors"]);
    if selectors.is_empty() {
        causes.push(Cause::required(
            path,
            "at least one clusterRoleSelector required if aggregationRule is non-nil",
        ));
    }
    for (index, each) in selectors.iter().enumerate() {
        selector(each, &format!("{path}[{index}]"), causes);
    }
}

fn rule(kind: Builtin, rule: &Value, path: &str, causes: &mut Vec<Cause>) {
    let list = |field: &str| items(rule, &[field]);
    if list("verbs").is_empty() {
        causes.push(Cause::required(
            format!("{path}.verbs"),
            "verbs must contain at least one value",
        ));
    }
    if list("nonResourceURLs").is_empty() {
        for (field, detail) in [
            (
                "apiGroups",
                "resource rules must supply at least one api group",
            ),
            (
                "resources",
                "resource rules must supply at least one resource",
            ),
        ] {
            if list(field).is_empty() {
                causes.push(Cause::required(format!("{path}.{field}"), detail));
            }
        }
        return;
    }
    let mut wrong = |detail: &str| {
        causes.push(Cause::invalid(
            format!("{path}.nonResourceURLs"),
            &rule["nonResourceURLs"],
            detail,
        ));
    };
    if kind == Builtin::Role {
        wrong("namespaced rules cannot apply to non-resource URLs");
    }
    if ["apiGroups", "resources", "resourceNames"]
        .iter()
        .any(|field| !list(field).is_empty())
    {
        wrong("rules cannot apply to both regular resources and non-resource URLs");
    }
}

pub(super) fn binding(
    kind: Builtin,
    binding: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    let role = &binding["roleRef"];
    let group = text(role, &["apiGroup"]);
    if !matches!(group, "" | GROUP) {
        causes.push(Cause::unsupported(
            "roleRef.apiGroup",
            &group.into(),
            &[GROUP],
        ));
    }
    let kinds: &[&str] = if kind == Builtin::RoleBinding {
        &["Role", "ClusterRole"]
    } else {
        &["ClusterRole"]
    };
    if !kinds.contains(&text(role, &["kind"])) {
        causes.push(Cause::unsupported(
            "roleRef.kind",
            &text(role, &["kind"]).into(),
            kinds,
        ));
    }
    if text(role, &["name"]).is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    for (index, each) in items(binding, &["subjects"]).iter().enumerate() {
        subject(kind, each, &format!("subjects[{index}]"), causes);
    }
    if let Some(old) = old
        && *role != old["roleRef"]
    {
        causes.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
    }
}

fn subject(kind: Builtin, subject: &Value, path: &str, causes: &mut Vec<Cause>) {
    let field = |name: &str| text(subject, &[name]);
    let (name, group) = (field("name"), field("apiGroup"));
    if name.is_empty() {
        causes.push(Cause::required(format!("{path}.name"), ""));
    }
    let group_of_kind = match field("kind") {
        "ServiceAccount" => "",
        "User" | "Group" => GROUP,
        other => {
            causes.push(Cause::unsupported(
                format!("{path}.kind"),
                &other.into(),
                &["ServiceAccount", "User", "Group"],
            ));
            return;
        }
    };
    // The group of users is filled in where it is missing.
    if !group.is_empty() && group != group_of_kind {
        causes.push(Cause::unsupported(
            format!("{path}.apiGroup"),
            &group.into(),
            &[group_of_kind],
        ));
    }
    if field("kind") == "ServiceAccount" {
        if !name.is_empty()
            && let Some(wrong) = names::subdomain(name)
        {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), &wrong));
        }
        if field("namespace").is_empty() && kind == Builtin::ClusterRoleBinding {
            causes.push(Cause::required(format!("{path}.namespace"), ""));
        }
    }
}
