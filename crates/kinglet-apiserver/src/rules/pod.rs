//! What may be in a pod, in Kubernetes' words (`ValidatePodSpec`).
//!
//! Always: only what a client sends is looked at; what Kinglet does not act on is refused elsewhere (`field_support`).

mod container;
mod environment;
mod probe;
mod scheduling;
mod security;
#[cfg(test)]
mod tests;
mod update;
mod volumes;

use std::collections::HashSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{host_ports, one_of};
use crate::names;
use crate::object::{blank, child, fields, items, number, text};
use crate::status::Cause;

pub(crate) use container::port_name;

pub(super) const NOT_AN_ADDRESS: &str =
    "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// Name servers that a resolver looks at.
const NAME_SERVERS_MAX: usize = 3;

pub(crate) fn validate(pod: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    match old {
        None => spec(&pod["spec"], "spec", causes),
        Some(old) => update::update(pod, old, causes),
    }
}

/// What would be said to a Pod with this specification, which has no defaults yet.
pub fn would_refuse(spec: &Value) -> Vec<Cause> {
    let mut pod = json!({"spec": spec});
    kinglet_quantity::pod::fill(child(fields(&mut pod), "spec"));
    let mut causes = Vec::new();
    self::spec(&pod["spec"], "spec", &mut causes);
    causes
}

/// A pod's specification, of a pod or of a template.
pub(crate) fn spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let volumes = volumes::check(spec, path, causes);
    containers(spec, path, &volumes, causes);
    host_ports::check(spec, path, causes);
    let restart = ["Always", "OnFailure", "Never"];
    one_of(spec, "restartPolicy", &restart, path, causes);
    deadline(spec, path, causes);
    dns(spec, path, causes);
    own_names(spec, path, causes);
    names::check_labels(
        spec.get("nodeSelector"),
        &format!("{path}.nodeSelector"),
        causes,
    );
    scheduling::check(spec, path, causes);
    security::of_pod(&spec["securityContext"], path, causes);
    host_aliases(spec, path, causes);
}

fn containers(spec: &Value, path: &str, volumes: &HashSet<&str>, causes: &mut Vec<Cause>) {
    if items(spec, &["containers"]).is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let grace = number(spec, &["terminationGracePeriodSeconds"]);
    let mut seen = HashSet::new();
    for list in ["containers", "initContainers"] {
        for (index, each) in items(spec, &[list]).iter().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            let name = text(each, &["name"]);
            if !name.is_empty() && !seen.insert(name) {
                causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
            }
            container::check(each, &at, volumes, grace, causes);
            if list == "initContainers" && text(each, &["restartPolicy"]) != "Always" {
                ends_by_itself(each, &at, causes);
            }
        }
    }
}

/// An init container that is not a sidecar runs to its end: nothing asks how it does meanwhile.
fn ends_by_itself(container: &Value, path: &str, causes: &mut Vec<Cause>) {
    for field in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if !blank(container.get(field)) {
            causes.push(Cause::forbidden(
                format!("{path}.{field}"),
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
    }
}

fn deadline(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(seconds) = number(spec, &["activeDeadlineSeconds"])
        .filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds))
    {
        causes.push(Cause::invalid(
            format!("{path}.activeDeadlineSeconds"),
            &seconds.into(),
            "must be between 1 and 2147483647, inclusive",
        ));
    }
}

fn dns(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    one_of(spec, "dnsPolicy", &policies, path, causes);
    let config = &spec["dnsConfig"];
    let servers = items(config, &["nameservers"]);
    if text(spec, &["dnsPolicy"]) == "None" {
        if config.is_null() {
            causes.push(Cause::required(
                format!("{path}.dnsConfig"),
                "must provide `dnsConfig` when `dnsPolicy` is None",
            ));
        } else if servers.is_empty() {
            causes.push(Cause::required(
                format!("{path}.dnsConfig.nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ));
        }
    }
    if servers.len() > NAME_SERVERS_MAX {
        causes.push(Cause::invalid(
            format!("{path}.dnsConfig.nameservers"),
            &config["nameservers"],
            &format!("must not have more than {NAME_SERVERS_MAX} nameservers"),
        ));
    }
    for (index, server) in servers.iter().enumerate() {
        address(
            server,
            &format!("{path}.dnsConfig.nameservers[{index}]"),
            causes,
        );
    }
}

fn address(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value
        .as_str()
        .is_none_or(|text| text.parse::<IpAddr>().is_err())
    {
        causes.push(Cause::invalid(path, value, NOT_AN_ADDRESS));
    }
}

/// The names by which a pod says who and where it is.
fn own_names(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    type Rule = fn(&str) -> Option<String>;
    let rules: [(&str, Rule); 4] = [
        ("serviceAccountName", names::subdomain),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
    ];
    for (field, rule) in rules {
        let name = text(spec, &[field]);
        if !name.is_empty()
            && let Some(wrong) = rule(name)
        {
            causes.push(Cause::invalid(
                format!("{path}.{field}"),
                &name.into(),
                &wrong,
            ));
        }
    }
}

fn host_aliases(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (index, alias) in items(spec, &["hostAliases"]).iter().enumerate() {
        let at = format!("{path}.hostAliases[{index}]");
        address(&alias["ip"], &format!("{at}.ip"), causes);
        for (number, host) in items(alias, &["hostnames"]).iter().enumerate() {
            if let Some(wrong) = host.as_str().and_then(names::subdomain) {
                causes.push(Cause::invalid(
                    format!("{at}.hostnames[{number}]"),
                    host,
                    &wrong,
                ));
            }
        }
    }
}
