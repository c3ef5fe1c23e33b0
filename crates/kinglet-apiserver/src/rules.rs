//! Shape and validity of objects.

mod data;
mod endpoints;
mod host_ports;
pub(crate) mod pod;
mod pod_bounds;
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
use crate::object::{self, at, items, text};
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
    // Of what our own controllers write, only a Deployment comes from a template that nobody has looked at.
    if context.in_process() && !kind.is(Builtin::Deployment) {
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
        return;
    }
    unsupported(context, object, old, causes);
    match builtin {
        Builtin::Namespace => pod_security::validate_labels(object, causes),
        Builtin::Pod => pod::validate(object, old, causes),
        Builtin::Deployment | Builtin::ReplicaSet => workload::validate(object, old, causes),
        Builtin::Service => service::validate(object, old, causes),
        Builtin::ConfigMap => data::config_map(object, old, causes),
        Builtin::Secret => data::secret(object, old, causes),
        Builtin::Endpoints => endpoints::endpoints(object, causes),
        Builtin::EndpointSlice => endpoints::endpoint_slice(object, old, causes),
        Builtin::Event => event(object, causes),
        Builtin::CustomResourceDefinition => crate::crd::validate(object, old, causes),
        Builtin::ResourceQuota => {
            for (key, value) in at(object, &["spec", "hard"])
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                quantity(value, &format!("spec.hard[{key}]"), causes);
            }
        }
        Builtin::Role | Builtin::ClusterRole => {
            for (index, rule) in items(object, &["rules"]).iter().enumerate() {
                if items(rule, &["verbs"]).is_empty() {
                    causes.push(Cause::required(
                        format!("rules[{index}].verbs"),
                        "verbs must contain at least one value",
                    ));
                }
            }
        }
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => {
            if text(object, &["roleRef", "name"]).is_empty() {
                causes.push(Cause::required("roleRef.name", ""));
            }
            if let Some(old) = old
                && object["roleRef"] != old["roleRef"]
            {
                causes.push(Cause::invalid(
                    "roleRef",
                    &object["roleRef"],
                    "cannot change roleRef",
                ));
            }
        }
        _ => {}
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
