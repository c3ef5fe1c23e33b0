//! The cells of built-in kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::{age, pods};
use crate::kinds::Builtin;
use crate::object::{at, items, number, selector_text, text};

/// Most endpoints or ports that are spelled out.
const LISTED_MAX: usize = 3;

pub(crate) fn cells(builtin: Builtin, object: &Value, now: Timestamp) -> Vec<Value> {
    let name: Value = text(object, &["metadata", "name"]).into();
    let created = text(object, &["metadata", "creationTimestamp"]);
    let age: Value = age::since(Some(created), now).into();
    let field = |path: &[&str]| -> Value { text(object, path).into() };
    let count = |path: &[&str]| -> Value { number(object, path).unwrap_or(0).into() };
    match builtin {
        Builtin::Pod => pods::cells(object, now),
        Builtin::Deployment => {
            let ready = format!(
                "{}/{}",
                number(object, &["status", "readyReplicas"]).unwrap_or(0),
                number(object, &["spec", "replicas"]).unwrap_or(0)
            );
            let mut cells = vec![
                name,
                ready.into(),
                count(&["status", "updatedReplicas"]),
                count(&["status", "availableReplicas"]),
                age,
            ];
            cells.extend(template_cells(object));
            cells
        }
        Builtin::ReplicaSet => {
            let mut cells = vec![
                name,
                count(&["spec", "replicas"]),
                count(&["status", "replicas"]),
                count(&["status", "readyReplicas"]),
                age,
            ];
            cells.extend(template_cells(object));
            cells
        }
        Builtin::Service => service(object, name, age),
        Builtin::Endpoints => vec![name, endpoints(object).into(), age],
        Builtin::EndpointSlice => vec![
            name,
            field(&["addressType"]),
            slice_ports(object).into(),
            slice_endpoints(object).into(),
            age,
        ],
        Builtin::ConfigMap => vec![
            name,
            (size(object, "data") + size(object, "binaryData")).into(),
            age,
        ],
        Builtin::Secret => vec![name, field(&["type"]), size(object, "data").into(), age],
        Builtin::Namespace => vec![name, field(&["status", "phase"]), age],
        Builtin::ServiceAccount => vec![name, items(object, &["secrets"]).len().into(), age],
        Builtin::Node => node(object, name, age),
        Builtin::Event => event(object, name, now),
        Builtin::Lease => vec![name, field(&["spec", "holderIdentity"]), age],
        Builtin::ResourceQuota => {
            let (request, limit) = quota(object);
            vec![name, request.into(), limit.into(), age]
        }
        Builtin::PriorityClass => vec![
            name,
            object["value"].clone(),
            object["globalDefault"].as_bool().unwrap_or(false).into(),
            age,
            field(&["preemptionPolicy"]),
        ],
        Builtin::PodDisruptionBudget => {
            let or_na =
                |key: &str| at(object, &["spec", key]).map_or_else(|| "N/A".to_owned(), plain);
            vec![
                name,
                or_na("minAvailable").into(),
                or_na("maxUnavailable").into(),
                count(&["status", "disruptionsAllowed"]),
                age,
            ]
        }
        Builtin::HorizontalPodAutoscaler => vec![
            name,
            format!(
                "{}/{}",
                text(object, &["spec", "scaleTargetRef", "kind"]),
                text(object, &["spec", "scaleTargetRef", "name"])
            )
            .into(),
            targets(object).into(),
            number(object, &["spec", "minReplicas"])
                .map_or_else(|| "<unset>".to_owned(), |n| n.to_string())
                .into(),
            count(&["spec", "maxReplicas"]),
            count(&["status", "currentReplicas"]),
            age,
        ],
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => {
            let subjects = |kind: &str| {
                let list: Vec<String> = items(object, &["subjects"])
                    .iter()
                    .filter(|subject| text(subject, &["kind"]) == kind)
                    .map(|subject| match (kind, text(subject, &["namespace"])) {
                        ("ServiceAccount", space) => {
                            format!("{space}/{}", text(subject, &["name"]))
                        }
                        _ => text(subject, &["name"]).to_owned(),
                    })
                    .collect();
                Value::from(list.join(", "))
            };
            vec![
                name,
                format!(
                    "{}/{}",
                    text(object, &["roleRef", "kind"]),
                    text(object, &["roleRef", "name"])
                )
                .into(),
                age,
                subjects("User"),
                subjects("Group"),
                subjects("ServiceAccount"),
            ]
        }
        Builtin::LimitRange
        | Builtin::Role
        | Builtin::ClusterRole
        | Builtin::CustomResourceDefinition
        | Builtin::TokenReview
        | Builtin::SelfSubjectReview
        | Builtin::SelfSubjectAccessReview
        | Builtin::SubjectAccessReview
        | Builtin::LocalSubjectAccessReview
        | Builtin::Absent
        | Builtin::SelfSubjectRulesReview => vec![name, created.into()],
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() {
        "<none>".to_owned()
    } else {
        list.join(",")
    }
}

fn size(object: &Value, field: &str) -> usize {
    object
        .get(field)
        .and_then(Value::as_object)
        .map_or(0, serde_json::Map::len)
}

fn template_cells(object: &Value) -> [Value; 3] {
    let containers = items(object, &["spec", "template", "spec", "containers"]);
    let column = |field: &str| {
        containers
            .iter()
            .map(|c| text(c, &[field]))
            .collect::<Vec<_>>()
            .join(",")
    };
    let selector = selector_text(&object["spec"]["selector"]);
    let selector = if selector.is_empty() {
        "<none>".to_owned()
    } else {
        selector
    };
    [
        column("name").into(),
        column("image").into(),
        selector.into(),
    ]
}

fn service(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let spec = &object["spec"];
    let kind = text(spec, &["type"]);
    let cluster = match text(spec, &["clusterIP"]) {
        "" => "<none>",
        ip => ip,
    };
    let own: Vec<String> = items(spec, &["externalIPs"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let external = match kind {
        "LoadBalancer" => {
            let mut list: Vec<String> = items(object, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|ingress| match text(ingress, &["ip"]) {
                    "" => text(ingress, &["hostname"]).to_owned(),
                    ip => ip.to_owned(),
                })
                .collect();
            list.extend(own);
            if list.is_empty() {
                "<pending>".to_owned()
            } else {
                list.join(",")
            }
        }
        "ExternalName" => text(spec, &["externalName"]).to_owned(),
        _ => or_none(&own),
    };
    let ports: Vec<String> = items(spec, &["ports"])
        .iter()
        .map(|port| {
            let (number_, protocol) = (
                number(port, &["port"]).unwrap_or(0),
                text(port, &["protocol"]),
            );
            match number(port, &["nodePort"]).unwrap_or(0) {
                0 => format!("{number_}/{protocol}"),
                node => format!("{number_}:{node}/{protocol}"),
            }
        })
        .collect();
    let selector: Vec<String> = spec
        .get("selector")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    vec![
        name,
        kind.into(),
        cluster.into(),
        external.into(),
        or_none(&ports).into(),
        age,
        or_none(&selector).into(),
    ]
}

/// Joins the first few; says how many more there are.
fn listed(all: &[String], none: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        count if count > LISTED_MAX => format!(
            "{} + {} more...",
            all[..LISTED_MAX].join(","),
            count - LISTED_MAX
        ),
        _ => all.join(","),
    }
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(object, &["subsets"]) {
        let addresses = items(subset, &["addresses"]);
        let ports = items(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(
                addresses
                    .iter()
                    .map(|address| text(address, &["ip"]).to_owned()),
            );
        }
        for port in ports {
            all.extend(addresses.iter().map(|address| {
                host_port(text(address, &["ip"]), number(port, &["port"]).unwrap_or(0))
            }));
        }
    }
    listed(&all, "<none>")
}

fn slice_ports(object: &Value) -> String {
    let all: Vec<String> = items(object, &["ports"])
        .iter()
        .map(|port| {
            number(port, &["port"]).map_or_else(|| "*".to_owned(), |number| number.to_string())
        })
        .collect();
    listed(&all, "<unset>")
}

fn slice_endpoints(object: &Value) -> String {
    let all: Vec<String> = items(object, &["endpoints"])
        .iter()
        .flat_map(|endpoint| items(endpoint, &["addresses"]))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    listed(&all, "<unset>")
}

fn node(object: &Value, name: Value, age: Value) -> Vec<Value> {
    let ready = items(object, &["status", "conditions"])
        .iter()
        .find(|c| text(c, &["type"]) == "Ready");
    let mut status = match ready.map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let roles: Vec<String> = at(object, &["metadata", "labels"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => Some(role.to_owned()),
                _ if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
                _ => None,
            },
        )
        .collect();
    let address = |kind: &str| {
        let found = items(object, &["status", "addresses"])
            .iter()
            .find(|a| text(a, &["type"]) == kind);
        found.map_or("<none>", |a| text(a, &["address"]))
    };
    let info = |field: &str| match text(object, &["status", "nodeInfo", field]) {
        "" => "<unknown>",
        value => value,
    };
    vec![
        name,
        status.into(),
        or_none(&roles).into(),
        age,
        text(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        info("kernelVersion").into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn event(object: &Value, name: Value, now: Timestamp) -> Vec<Value> {
    // events.k8s.io has other names for the same.
    let either = |a: &str, b: &str| match text(object, &[a]) {
        "" => text(object, &[b]).to_owned(),
        value => value.to_owned(),
    };
    let ago = |time: &str| (!time.is_empty()).then(|| age::since(Some(time), now));
    let first = ago(&either("firstTimestamp", "deprecatedFirstTimestamp"))
        .or_else(|| ago(text(object, &["eventTime"])))
        .unwrap_or_else(|| "<unknown>".to_owned());
    let mut last =
        ago(&either("lastTimestamp", "deprecatedLastTimestamp")).unwrap_or_else(|| first.clone());
    let mut count = number(object, &["count"])
        .or_else(|| number(object, &["deprecatedCount"]))
        .unwrap_or(0);
    if let Some(series) = object.get("series").filter(|series| series.is_object()) {
        last = ago(text(series, &["lastObservedTime"])).unwrap_or(last);
        count = number(series, &["count"]).unwrap_or(count);
    } else if count == 0 {
        count = 1;
    }
    let about = object
        .get("involvedObject")
        .or_else(|| object.get("regarding"))
        .unwrap_or(&Value::Null);
    let kind = text(about, &["kind"]).to_lowercase();
    let target = match text(about, &["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let from = object
        .get("source")
        .or_else(|| object.get("deprecatedSource"))
        .unwrap_or(&Value::Null);
    let component = match text(from, &["component"]) {
        "" => either("reportingComponent", "reportingController"),
        component => component.to_owned(),
    };
    let host = match text(from, &["host"]) {
        "" => text(object, &["reportingInstance"]),
        host => host,
    };
    let source = if host.is_empty() || host == component {
        component
    } else {
        format!("{component}, {host}")
    };
    vec![
        last.into(),
        text(object, &["type"]).into(),
        text(object, &["reason"]).into(),
        target.into(),
        text(about, &["fieldPath"]).into(),
        source.into(),
        either("message", "note").trim().into(),
        first.into(),
        count.into(),
        name,
    ]
}

fn quota(object: &Value) -> (String, String) {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (key, hard) in at(object, &["status", "hard"])
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let used = at(object, &["status", "used", key]).map_or_else(|| "0".to_owned(), plain);
        let entry = format!("{key}: {used}/{}", plain(hard));
        if key.starts_with("limits.") {
            limits.push(entry)
        } else {
            requests.push(entry)
        }
    }
    (requests.join(", "), limits.join(", "))
}

fn targets(object: &Value) -> String {
    let all: Vec<String> = items(object, &["spec", "metrics"])
        .iter()
        .enumerate()
        .map(|(index, metric)| {
            let name = text(metric, &["resource", "name"]);
            let now = items(object, &["status", "currentMetrics"]).get(index);
            let wanted = &metric["resource"]["target"];
            let (kind, current, target) = match number(wanted, &["averageUtilization"]) {
                Some(percent) => {
                    let now = now.and_then(|now| {
                        number(now, &["resource", "current", "averageUtilization"])
                    });
                    ("%", now.map(|n| n.to_string()), percent.to_string())
                }
                None => (
                    "",
                    now.map(|now| text(now, &["resource", "current", "averageValue"]).to_owned()),
                    text(wanted, &["averageValue"]).to_owned(),
                ),
            };
            let current = current.map_or_else(|| "<unknown>".to_owned(), |n| format!("{n}{kind}"));
            format!("{name}: {current}/{target}{kind}")
        })
        .collect();
    listed_metrics(&all)
}

fn listed_metrics(all: &[String]) -> String {
    match all {
        [] => "<none>".to_owned(),
        [one] => one.clone(),
        [one, two] => format!("{one}, {two}"),
        [one, two, rest @ ..] => format!("{one}, {two} + {} more...", rest.len()),
    }
}
