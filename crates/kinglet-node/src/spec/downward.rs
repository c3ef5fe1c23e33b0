//! What the downward API can say about a Pod.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use kinglet_quantity::Quantity;

/// What is known about a pod beyond its object.
#[derive(Clone, Debug)]
pub(crate) struct DownwardValues {
    pub(crate) pod_ip: Ipv4Addr,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) node_name: String,
    pub(crate) node_cpu_milli: i64,
    pub(crate) node_memory_bytes: i64,
}

/// The value of a `fieldRef`.
pub(crate) fn field(
    pod: &Pod,
    downward: &DownwardValues,
    selector: &ObjectFieldSelector,
) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("fieldPath {path:?} is not supported")),
        };
        return Ok(values
            .and_then(|values| values.get(key))
            .cloned()
            .unwrap_or_default());
    }
    let pairs = |map: Option<&std::collections::BTreeMap<String, String>>| {
        let lines: Vec<String> = map
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value:?}"))
            .collect();
        lines.join("\n")
    };
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => pairs(meta.labels.as_ref()),
        "metadata.annotations" => pairs(meta.annotations.as_ref()),
        "spec.nodeName" => downward.node_name.clone(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.podIP" | "status.podIPs" => downward.pod_ip.to_string(),
        "status.hostIP" | "status.hostIPs" => downward.host_ip.to_string(),
        _ => return Err(format!("fieldPath {path:?} is not supported")),
    })
}

/// `metadata.labels['key']` in two.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// The value of a `resourceFieldRef`. `own` is the container that asks.
pub(crate) fn resource(
    pod: &Pod,
    downward: &DownwardValues,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let named = selector
        .container_name
        .as_deref()
        .filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => pod
            .spec
            .iter()
            .flat_map(|spec| {
                spec.containers
                    .iter()
                    .chain(spec.init_containers.iter().flatten())
            })
            .find(|container| container.name == name)
            .ok_or_else(|| format!("container {name:?} not found"))?,
        None => own.ok_or("a resourceFieldRef in a volume needs containerName")?,
    };
    let resources = container.resources.as_ref();
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unknown resource {:?}", selector.resource))?;
    let amounts = match kind {
        "limits" => resources.and_then(|all| all.limits.as_ref()),
        "requests" => resources.and_then(|all| all.requests.as_ref()),
        _ => return Err(format!("unknown resource {:?}", selector.resource)),
    };
    let given = amounts
        .and_then(|amounts| amounts.get(name))
        .and_then(|text| Quantity::parse(&text.0).ok());
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|text| Quantity::parse(&text.0).ok())
        .filter(|one| one.millis() > 0);
    // What is not limited is limited by the node.
    let node = |all: i64| if kind == "limits" { all } else { 0 };
    if name == "cpu" {
        let millis = given.map_or_else(|| node(downward.node_cpu_milli), Quantity::millis);
        let by = divisor.map_or(1000, Quantity::millis);
        return Ok(ceiling(millis, by).to_string());
    }
    let units = given.map_or_else(
        || {
            if name == "memory" {
                node(downward.node_memory_bytes)
            } else {
                0
            }
        },
        Quantity::units,
    );
    Ok(ceiling(units, divisor.map_or(1, Quantity::units)).to_string())
}

fn ceiling(value: i64, by: i64) -> i64 {
    value / by.max(1) + i64::from(value % by.max(1) != 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn downward() -> DownwardValues {
        DownwardValues {
            pod_ip: Ipv4Addr::new(10, 1, 0, 7),
            host_ip: Ipv4Addr::new(10, 1, 0, 1),
            node_name: "node".to_owned(),
            node_cpu_milli: 2000,
            node_memory_bytes: 1 << 30,
        }
    }

    #[test]
    fn what_a_pod_can_know_about_itself() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "x", "b": "y"}},
            "spec": {"serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "25m"}}}
            ]},
        }))
        .expect("pod");
        let of = |path: &str| {
            field(
                &pod,
                &downward(),
                &ObjectFieldSelector {
                    field_path: path.to_owned(),
                    ..Default::default()
                },
            )
        };
        assert_eq!(of("metadata.name"), Ok("p".to_owned()));
        assert_eq!(of("metadata.labels['app']"), Ok("x".to_owned()));
        assert_eq!(of("metadata.annotations['none']"), Ok(String::new()));
        assert_eq!(of("metadata.labels"), Ok("app=\"x\"\nb=\"y\"".to_owned()));
        assert_eq!(of("status.podIP"), Ok("10.1.0.7".to_owned()));
        assert!(of("status.phase").is_err());
        let container = &pod.spec.as_ref().expect("spec").containers[0];
        let amount = |resource: &str, divisor: Option<&str>| {
            let divisor = divisor.map(|text| {
                k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.to_owned())
            });
            super::resource(
                &pod,
                &downward(),
                Some(container),
                &ResourceFieldSelector {
                    resource: resource.to_owned(),
                    divisor,
                    ..Default::default()
                },
            )
        };
        assert_eq!(amount("limits.cpu", None), Ok("1".to_owned()));
        assert_eq!(amount("limits.cpu", Some("1m")), Ok("500".to_owned()));
        assert_eq!(amount("limits.memory", Some("1Mi")), Ok("64".to_owned()));
        assert_eq!(amount("requests.memory", None), Ok("0".to_owned()));
        assert_eq!(amount("limits.ephemeral-storage", None), Ok("0".to_owned()));
        assert!(amount("nonsense", None).is_err());
    }
}
