//! Shape and validity of objects.

mod access;
mod data;
mod endpoints;
mod host_ports;
pub(crate) mod job;
pub(crate) mod pod;
mod policy;
mod service;
mod workload;

use serde_json::Value;

use crate::builtin::defaults;
use crate::builtin::quantity as quantities;
use crate::context::RequestContext;
use crate::decode;
use crate::field_support;
use crate::kinds::Builtin;
use crate::names;
use crate::object::{self, items, text};
use crate::pod_security;
use crate::schema;
use crate::status::{Cause, Status};

/// Types, unknown fields, defaults.
pub(crate) fn shape(
    context: &mut RequestContext<'_>,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let kind = std::sync::Arc::clone(&context.kind);
    if kind.builtin.is_some() {
        // Our own controllers are typed by the compiler.
        if !context.in_process() {
            let (group, version, name) = (&kind.group, &kind.version, &kind.kind);
            schema::check_types_builtin(group, version, name, object).map_err(|error| {
                Status::bad_request(format!(
                    "{name} in version \"{version}\" cannot be handled as a {name}: {error}"
                ))
            })?;
            let unknown = schema::prune_builtin(group, version, name, object);
            decode::settle(context, unknown)?;
            warn_of_ignored(context, object, old);
        }
        defaults::fill(&kind, object);
    } else if let Some(schema) = &kind.schema {
        let unknown = schema.prune(object);
        decode::settle(context, unknown)?;
        schema.default_in_place(object);
    }
    Ok(())
}

/// Warns of fields that have no effect here, once they are set or changed.
fn warn_of_ignored(context: &mut RequestContext<'_>, object: &Value, old: Option<&Value>) {
    let kind = &context.kind;
    let check = |object| field_support::check(&kind.group, &kind.version, &kind.kind, object);
    let mut warnings = check(object).warnings;
    if let (false, Some(old)) = (warnings.is_empty(), old) {
        let known = check(old).warnings;
        warnings.retain(|warning| !known.contains(warning));
    }
    context.warnings.extend(warnings);
}

/// Refuses fields that Kinglet would have to act on and does not; what is stored already stays.
fn unsupported(
    context: &RequestContext<'_>,
    object: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    let kind = &context.kind;
    // Of what our own controllers write, only these come from a template that nobody has looked at.
    if context.in_process() && !matches!(kind.builtin, Some(Builtin::Deployment | Builtin::Job)) {
        return;
    }
    let check = |object| field_support::check(&kind.group, &kind.version, &kind.kind, object);
    let mut refused = check(object).refused;
    if let (false, Some(old)) = (refused.is_empty(), old) {
        let known = check(old).refused;
        refused.retain(|cause| !known.contains(cause));
    }
    causes.extend(refused);
}

/// Everything that is wrong with an object.
pub(crate) fn validate_all(
    context: &mut RequestContext<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    let mut causes = names::check_metadata(object, context.kind.names, context.kind.namespaced);
    validate(context, object, old, &mut causes);
    causes
}

/// What is wrong with an object's own fields.
fn validate(
    context: &mut RequestContext<'_>,
    object: &Value,
    old: Option<&Value>,
    causes: &mut Vec<Cause>,
) {
    let Some(builtin) = context.kind.builtin else {
        if let Some(schema) = &context.kind.schema {
            causes.extend(schema.validate_with(object, old, &mut context.warnings));
        }
        return;
    };
    if context.info.subresource == "status" {
        if builtin == Builtin::CustomResourceDefinition {
            crate::crd::validate_status(context.server, object, old, causes);
        }
        if builtin == Builtin::Job {
            job::validate_status(object, causes);
        }
        return;
    }
    // Those of definitions have another form; ours are written in this process.
    let is_definition = builtin == Builtin::CustomResourceDefinition;
    if old.is_none() && !context.in_process() && !is_definition {
        names::check_finalizers(object, causes);
    }
    unsupported(context, object, old, causes);
    match builtin {
        Builtin::Namespace => pod_security::validate_labels(object, causes),
        Builtin::Pod => pod::validate(object, old, causes),
        Builtin::Deployment | Builtin::ReplicaSet => workload::validate(object, old, causes),
        Builtin::Job => job::validate(object, old, causes),
        Builtin::Service => service::validate(object, old, causes),
        Builtin::ConfigMap => data::config_map(object, old, causes),
        Builtin::Secret => data::secret(object, old, causes),
        Builtin::Endpoints => endpoints::endpoints(object, causes),
        Builtin::EndpointSlice => endpoints::endpoint_slice(object, old, causes),
        Builtin::Event => event(object, causes),
        Builtin::CustomResourceDefinition => crate::crd::validate(object, old, causes),
        Builtin::ResourceQuota => policy::quota(object, causes),
        Builtin::LimitRange => policy::limit_range(object, causes),
        Builtin::PodDisruptionBudget => policy::disruption_budget(object, causes),
        Builtin::PriorityClass => policy::priority_class(object, causes),
        Builtin::Lease => policy::lease(object, causes),
        Builtin::Role | Builtin::ClusterRole => access::role(builtin, object, causes),
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => {
            access::binding(builtin, object, old, causes);
        }
        _ => {}
    }
}

/// A text that, where it is there, is one of a closed set; `path` is where `object` lies.
pub(crate) fn one_of(
    object: &Value,
    field: &str,
    supported: &[&str],
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let value = text(object, &[field]);
    if !value.is_empty() && !supported.contains(&value) {
        causes.push(Cause::unsupported(
            format!("{path}.{field}"),
            &value.into(),
            supported,
        ));
    }
}

/// A number that, where it is there, is not negative.
pub(crate) fn not_negative(object: &Value, field: &str, path: &str, causes: &mut Vec<Cause>) {
    if let Some(value) = object::number(object, &[field]).filter(|value| *value < 0) {
        causes.push(Cause::invalid(
            format!("{path}.{field}"),
            &value.into(),
            "must be greater than or equal to 0",
        ));
    }
}

/// A number of things or a share of all of them, as `maxUnavailable` is.
pub(crate) fn number_or_share(
    object: &Value,
    field: &str,
    share_max: Option<u64>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let Some(value) = object.get(field).and_then(Value::as_str) else {
        return not_negative(object, field, path, causes);
    };
    let digits = value.strip_suffix('%').unwrap_or("");
    let wrong = if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
    } else if share_max.is_some_and(|most| digits.parse().unwrap_or(u64::MAX) > most) {
        "must not be greater than 100%"
    } else {
        return;
    };
    causes.push(Cause::invalid(
        format!("{path}.{field}"),
        &value.into(),
        wrong,
    ));
}

/// The expressions of a label selector.
pub(crate) fn selector(selector: &Value, path: &str, causes: &mut Vec<Cause>) {
    names::check_labels(
        selector.get("matchLabels"),
        &format!("{path}.matchLabels"),
        causes,
    );
    for (index, expression) in items(selector, &["matchExpressions"]).iter().enumerate() {
        let at = format!("{path}.matchExpressions[{index}]");
        let some = !items(expression, &["values"]).is_empty();
        match text(expression, &["operator"]) {
            "In" | "NotIn" if !some => causes.push(Cause::required(
                format!("{at}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if some => causes.push(Cause::forbidden(
                format!("{at}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => causes.push(Cause::invalid(
                format!("{at}.operator"),
                &operator.into(),
                "not a valid selector operator",
            )),
        }
        let key = text(expression, &["key"]);
        if let Some(wrong) = names::qualified(key) {
            causes.push(Cause::invalid(format!("{at}.key"), &key.into(), &wrong));
        }
    }
}

/// A quantity that can be read and is not negative.
pub(crate) fn quantity(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match quantities::of(value) {
        None => causes.push(Cause::invalid(
            path,
            value,
            kinglet_quantity::NOT_A_QUANTITY,
        )),
        Some(quantity) if quantity.is_negative() => {
            causes.push(Cause::invalid(
                path,
                value,
                "must be greater than or equal to 0",
            ));
        }
        Some(_) => {}
    }
}

pub(crate) fn port_number(value: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    let number = value.and_then(Value::as_i64).unwrap_or(0);
    if !(1..=65_535).contains(&number) {
        causes.push(Cause::invalid(
            path,
            &number.into(),
            "must be between 1 and 65535, inclusive",
        ));
    }
}

fn event(object: &Value, causes: &mut Vec<Cause>) {
    let (own, about) = (
        object::namespace(object),
        text(object, &["involvedObject", "namespace"]),
    );
    let about = if object.get("involvedObject").is_some() {
        about
    } else {
        text(object, &["regarding", "namespace"])
    };
    // Events about cluster-wide objects lie in `default`.
    if about != own && !(about.is_empty() && matches!(own, "default" | "kube-system")) {
        causes.push(Cause::invalid(
            "involvedObject.namespace",
            &about.into(),
            "does not match event.namespace",
        ));
    }
}
