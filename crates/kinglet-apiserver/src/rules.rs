//! Shape and validity of objects.

pub(crate) mod pod;

use serde_json::Value;

use crate::builtin::defaults;
use crate::builtin::quantity as quantities;
use crate::context::RequestContext;
use crate::decode;
use crate::field_support;
use crate::kinds::Builtin;
use crate::names;
use crate::object::{self, at, blank, items, number, text};
use crate::pod_security;
use crate::schema;
use crate::status::{Cause, Status};

/// Most that a ConfigMap or Secret may hold.
const DATA_BYTES_MAX: usize = 1 << 20;

/// Expressions of a workload's selector, which are looked at for every pod.
const EXPRESSIONS_MAX: usize = 100;

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
        Builtin::Deployment | Builtin::ReplicaSet => workload(object, old, causes),
        Builtin::Service => service(object, old, causes),
        Builtin::ConfigMap => config_map(object, old, causes),
        Builtin::Secret => secret(object, old, causes),
        Builtin::Endpoints => endpoints(object, causes),
        Builtin::EndpointSlice => endpoint_slice(object, old, causes),
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

fn workload(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    if let Some(replicas) = number(spec, &["replicas"]).filter(|replicas| *replicas < 0) {
        causes.push(Cause::invalid(
            "spec.replicas",
            &replicas.into(),
            "must be greater than or equal to 0",
        ));
    }
    let selector = &spec["selector"];
    if blank(Some(selector)) {
        causes.push(Cause::required("spec.selector", ""));
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &spec["template"]["metadata"]["labels"],
            "`selector` does not match template `labels`",
        ));
    } else {
        names::check_labels(
            selector.get("matchLabels"),
            "spec.selector.matchLabels",
            causes,
        );
        if items(selector, &["matchExpressions"]).len() > EXPRESSIONS_MAX {
            causes.push(Cause {
                field: "spec.selector.matchExpressions".to_owned(),
                reason: "FieldValueTooMany",
                message: format!("Too many: must have at most {EXPRESSIONS_MAX} items"),
            });
        }
        if !object::matches_labels(selector, &spec["template"]) {
            causes.push(Cause::invalid(
                "spec.template.metadata.labels",
                &spec["template"]["metadata"]
                    .get("labels")
                    .cloned()
                    .unwrap_or(Value::Null),
                "`selector` does not match template `labels`",
            ));
        }
    }
    if let Some(old) = old
        && old["spec"]["selector"] != *selector
    {
        causes.push(Cause::invalid(
            "spec.selector",
            selector,
            "field is immutable",
        ));
    }
    names::check_labels(
        spec["template"]["metadata"].get("labels"),
        "spec.template.metadata.labels",
        causes,
    );
    names::check_annotations(
        spec["template"]["metadata"].get("annotations"),
        "spec.template.metadata.annotations",
        causes,
    );
    pod::spec(&spec["template"]["spec"], "spec.template.spec", causes);
    let policy = text(spec, &["template", "spec", "restartPolicy"]);
    if policy != "Always" {
        causes.push(Cause::unsupported(
            "spec.template.spec.restartPolicy",
            &policy.into(),
            &["Always"],
        ));
    }
    let strategy = text(spec, &["strategy", "type"]);
    if !matches!(strategy, "" | "RollingUpdate" | "Recreate") {
        causes.push(Cause::unsupported(
            "spec.strategy.type",
            &strategy.into(),
            &["Recreate", "RollingUpdate"],
        ));
    }
    if strategy == "Recreate" && !blank(at(spec, &["strategy", "rollingUpdate"])) {
        causes.push(Cause::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
    }
}

fn service(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let kind = text(spec, &["type"]);
    if kind == "ExternalName" {
        let name = text(spec, &["externalName"]);
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else if let Some(wrong) = names::subdomain(name.trim_end_matches('.')) {
            causes.push(Cause::invalid("spec.externalName", &name.into(), &wrong));
        }
    }
    let ports = items(spec, &["ports"]);
    if ports.is_empty() && kind != "ExternalName" && text(spec, &["clusterIP"]) != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut seen = std::collections::HashSet::new();
    let mut named = std::collections::HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = text(port, &["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(format!("{path}.name"), ""));
            }
        } else if let Some(wrong) = names::label(name) {
            causes.push(Cause::invalid(format!("{path}.name"), &name.into(), &wrong));
        } else if !named.insert(name) {
            causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        }
        port_number(port.get("port"), &format!("{path}.port"), causes);
        let protocol = text(port, &["protocol"]);
        if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            causes.push(Cause::unsupported(
                format!("{path}.protocol"),
                &protocol.into(),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        match port.get("targetPort") {
            Some(Value::String(name)) => {
                if let Some(wrong) = pod::port_name(name) {
                    causes.push(Cause::invalid(
                        format!("{path}.targetPort"),
                        &name.as_str().into(),
                        &wrong,
                    ));
                }
            }
            target => port_number(target, &format!("{path}.targetPort"), causes),
        }
        if !seen.insert((number(port, &["port"]), protocol)) {
            let value = serde_json::json!({"port": port["port"], "protocol": protocol});
            causes.push(Cause::duplicate(path, &value));
        }
    }
    names::check_labels(spec.get("selector"), "spec.selector", causes);
    if !matches!(
        kind,
        "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName"
    ) {
        causes.push(Cause::unsupported(
            "spec.type",
            &kind.into(),
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        ));
    }
    if let Some(old) = old {
        let (now, before) = (
            text(spec, &["clusterIP"]),
            text(&old["spec"], &["clusterIP"]),
        );
        if !before.is_empty()
            && text(&old["spec"], &["type"]) != "ExternalName"
            && kind != "ExternalName"
            && now != before
        {
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &at(spec, &["clusterIPs"]).cloned().unwrap_or_default(),
                "may not change once set",
            ));
        }
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

fn config_key(key: &str) -> Option<&'static str> {
    let good = !key.is_empty()
        && key.len() <= 253
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (!good || key == "." || key == ".." || key.starts_with("..")).then_some(
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    )
}

fn immutable(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else {
        return;
    };
    if object["immutable"] != true {
        causes.push(Cause::forbidden(
            "immutable",
            "field is immutable when `immutable` is set",
        ));
    }
    for field in ["data", "binaryData"] {
        if object.get(field) != old.get(field) {
            causes.push(Cause::forbidden(
                field,
                "field is immutable when `immutable` is set",
            ));
        }
    }
}

fn config_map(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let mut total = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            if let Some(wrong) = config_key(key) {
                causes.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    &key.as_str().into(),
                    wrong,
                ));
            }
            total += value.as_str().map_or(0, str::len);
        }
    }
    too_long(total, causes);
    immutable(object, old, causes);
}

fn too_long(total: usize, causes: &mut Vec<Cause>) {
    if total > DATA_BYTES_MAX {
        causes.push(Cause {
            field: String::new(),
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {DATA_BYTES_MAX} bytes"),
        });
    }
}

fn secret(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    use base64::Engine as _;
    let mut total = 0;
    for (key, value) in object
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        if let Some(wrong) = config_key(key) {
            causes.push(Cause::invalid(
                format!("data[{key}]"),
                &key.as_str().into(),
                wrong,
            ));
        }
        let text = value.as_str().unwrap_or("");
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => total += bytes.len(),
            Err(_) => causes.push(Cause::invalid(
                format!("data[{key}]"),
                &"<secret contents redacted>".into(),
                "illegal base64 data",
            )),
        }
    }
    too_long(total, causes);
    let needs: &[&str] = match text(object, &["type"]) {
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needs {
        if at(object, &["data", key]).is_none() {
            causes.push(Cause::required(format!("data[{key}]"), ""));
        }
    }
    if let Some(old) = old
        && object["type"] != old["type"]
    {
        causes.push(Cause::invalid(
            "type",
            &object["type"],
            "field is immutable",
        ));
    }
    immutable(object, old, causes);
}

fn ip(value: &Value, path: String, causes: &mut Vec<Cause>) {
    if value
        .as_str()
        .is_none_or(|text| text.parse::<std::net::IpAddr>().is_err())
    {
        causes.push(Cause::invalid(
            path,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
}

fn endpoints(object: &Value, causes: &mut Vec<Cause>) {
    for (index, subset) in items(object, &["subsets"]).iter().enumerate() {
        let path = format!("subsets[{index}]");
        let (ready, not_ready) = (
            items(subset, &["addresses"]),
            items(subset, &["notReadyAddresses"]),
        );
        if ready.is_empty() && not_ready.is_empty() {
            causes.push(Cause::required(
                path.clone(),
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (list, name) in [(ready, "addresses"), (not_ready, "notReadyAddresses")] {
            for (at, address) in list.iter().enumerate() {
                ip(&address["ip"], format!("{path}.{name}[{at}].ip"), causes);
            }
        }
        let ports = items(subset, &["ports"]);
        for (at, port) in ports.iter().enumerate() {
            if ports.len() > 1 && text(port, &["name"]).is_empty() {
                causes.push(Cause::required(format!("{path}.ports[{at}].name"), ""));
            }
            port_number(
                port.get("port"),
                &format!("{path}.ports[{at}].port"),
                causes,
            );
        }
    }
}

fn endpoint_slice(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let family = text(object, &["addressType"]);
    match family {
        "" => causes.push(Cause::required("addressType", "")),
        "IPv4" | "IPv6" | "FQDN" => {}
        other => causes.push(Cause::unsupported(
            "addressType",
            &other.into(),
            &["FQDN", "IPv4", "IPv6"],
        )),
    }
    for (index, endpoint) in items(object, &["endpoints"]).iter().enumerate() {
        let addresses = items(endpoint, &["addresses"]);
        if addresses.is_empty() {
            causes.push(Cause::required(
                format!("endpoints[{index}].addresses"),
                "must contain at least 1 address",
            ));
        }
        if family != "FQDN" {
            for (at, address) in addresses.iter().enumerate() {
                ip(
                    address,
                    format!("endpoints[{index}].addresses[{at}]"),
                    causes,
                );
            }
        }
    }
    if let Some(old) = old
        && object["addressType"] != old["addressType"]
    {
        causes.push(Cause::invalid(
            "addressType",
            &object["addressType"],
            "field is immutable",
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
