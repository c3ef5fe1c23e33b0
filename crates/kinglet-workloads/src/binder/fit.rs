//! Whether a Pod fits a node, and the scheduler's words when it does not: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use kinglet_quantity::Operator;

use super::affinity::{self, Neighbours};
use super::{Capacity, HostPort, default_labels, host_ports};

/// Amounts that Pods ask for and nodes give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) cpu_millis: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) pods: i64,
    /// Extended resources by name, in thousandths.
    pub(crate) other: BTreeMap<String, i64>,
}

impl Resources {
    pub(super) fn add(&mut self, more: &Self, times: i64) {
        // A Pod may ask for more than any machine has, several times over.
        let sum = |mine: i64, theirs: i64| mine.saturating_add(theirs.saturating_mul(times));
        self.cpu_millis = sum(self.cpu_millis, more.cpu_millis);
        self.memory_bytes = sum(self.memory_bytes, more.memory_bytes);
        self.pods = sum(self.pods, more.pods);
        for (name, amount) in &more.other {
            let mine = self.other.entry(name.clone()).or_default();
            *mine = sum(*mine, *amount);
        }
    }

    fn at_least(&mut self, floor: &Self) {
        self.cpu_millis = self.cpu_millis.max(floor.cpu_millis);
        self.memory_bytes = self.memory_bytes.max(floor.memory_bytes);
        for (name, amount) in &floor.other {
            let mine = self.other.entry(name.clone()).or_default();
            *mine = (*mine).max(*amount);
        }
    }

    fn of(amounts: &BTreeMap<String, Quantity>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in amounts {
            let Ok(quantity) = kinglet_quantity::Quantity::parse(&quantity.0) else {
                continue;
            };
            match name.as_str() {
                "cpu" => out.cpu_millis = quantity.millis(),
                "memory" => out.memory_bytes = quantity.units(),
                "pods" => out.pods = quantity.units(),
                // Disk is not accounted for, as nothing here measures it.
                "ephemeral-storage" => {}
                other => {
                    out.other.insert(other.to_owned(), quantity.millis());
                }
            }
        }
        out
    }
}

/// What a Pod asks for: the sum of its containers, at least what any init container needs alone, plus its overhead.
/// Containers whose image begins with one of `not_started` take nothing: the node answers for them.
pub(super) fn request(pod: &Pod, not_started: &[String]) -> Resources {
    let Some(spec) = &pod.spec else {
        return Resources {
            pods: 1,
            ..Resources::default()
        };
    };
    let of = |container: &Container| {
        let requests = container
            .resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref());
        requests.map(Resources::of).unwrap_or_default()
    };
    let mut total = Resources::default();
    let answered = |container: &&Container| {
        let image = container.image.as_deref().unwrap_or_default();
        not_started.iter().any(|prefix| image.starts_with(prefix))
    };
    for container in spec
        .containers
        .iter()
        .filter(|container| !answered(container))
    {
        total.add(&of(container), 1);
    }
    let mut sidecars = Resources::default();
    let mut floor = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            sidecars.add(&of(container), 1);
            floor.at_least(&sidecars);
        } else {
            let mut alone = sidecars.clone();
            alone.add(&of(container), 1);
            floor.at_least(&alone);
        }
    }
    total.add(&sidecars, 1);
    total.at_least(&floor);
    if let Some(overhead) = &spec.overhead {
        total.add(&Resources::of(overhead), 1);
    }
    total.pods = 1;
    total
}

/// What a node gives: what its object says, else what we were configured.
pub(super) fn allocatable(node: Option<&Node>, capacity: &Capacity) -> Resources {
    let configured = Resources {
        cpu_millis: capacity.cpu_millis,
        memory_bytes: capacity.memory_bytes,
        pods: capacity.pods,
        other: BTreeMap::new(),
    };
    let reported = node
        .and_then(|node| node.status.as_ref())
        .and_then(|status| status.allocatable.as_ref());
    let Some(reported) = reported.map(Resources::of) else {
        return configured;
    };
    let or = |reported: i64, configured: i64| if reported > 0 { reported } else { configured };
    Resources {
        cpu_millis: or(reported.cpu_millis, configured.cpu_millis),
        memory_bytes: or(reported.memory_bytes, configured.memory_bytes),
        pods: or(reported.pods, configured.pods),
        other: reported.other,
    }
}

/// A node as it was node_state.
pub(super) struct ObservedNode<'a> {
    pub(super) name: &'a str,
    pub(super) node: Option<&'a Node>,
    pub(super) allocatable: Resources,
    pub(super) taken: Resources,
    pub(super) host_ports: Vec<HostPort>,
    pub(super) not_started: &'a [String],
}

/// Why a Pod does not fit the node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    reasons: Vec<String>,
    /// Whether it could fit if other Pods were gone.
    crowded: bool,
}

impl Misfit {
    /// The scheduler's sentence for one node.
    pub(super) fn message(&self) -> String {
        let reasons: Vec<String> = self
            .reasons
            .iter()
            .map(|reason| format!("1 {reason}"))
            .collect();
        let help = if self.crowded {
            "No preemption victims found for incoming pod."
        } else {
            "Preemption is not helpful for scheduling."
        };
        format!(
            "0/1 nodes are available: {}. no new claims to deallocate, preemption: 0/1 nodes are available: 1 {help}",
            reasons.join(", ")
        )
    }
}

/// Whether the Pod fits; the first kind of reason that applies is the one configured, resources are configured together.
pub(super) fn fit(pod: &Pod, node_state: &ObservedNode<'_>) -> Result<(), Misfit> {
    let alone = |reason: String| {
        Err(Misfit {
            reasons: vec![reason],
            crowded: false,
        })
    };
    let spec = pod.spec.clone().unwrap_or_default();
    let of_node = node_state.node.and_then(|node| node.spec.as_ref());
    if of_node.and_then(|spec| spec.unschedulable).unwrap_or(false)
        && !tolerates_unschedulable(&spec)
    {
        return alone("node(s) were unschedulable".to_owned());
    }
    if let Some(taint) = untolerated(&spec, of_node.and_then(|spec| spec.taints.as_ref())) {
        return alone(format!(
            "node(s) had untolerated taint {{{}: {}}}",
            taint.key,
            taint.value.as_deref().unwrap_or("")
        ));
    }
    if !selected(&spec, node_state) {
        return alone("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if !host_ports::are_free(&host_ports::of(pod), &node_state.host_ports) {
        return Err(Misfit {
            reasons: vec!["node(s) didn't have free ports for the requested pod ports".to_owned()],
            crowded: true,
        });
    }
    room(&request(pod, node_state.not_started), node_state)
}

/// Whether the Pod may run beside those that are on the node. The scheduler looks at this after the room.
pub(super) fn beside(
    pod: &Pod,
    node_state: &ObservedNode<'_>,
    others: &[Arc<Pod>],
    namespace_labels: &dyn Fn(&str) -> Option<BTreeMap<String, String>>,
) -> Result<(), Misfit> {
    let others: Vec<&Pod> = others.iter().map(|pod| &**pod).collect();
    let neighbours = Neighbours {
        pods: &others,
        node_labels: &labels_of(node_state),
        namespace_labels,
    };
    match affinity::conflict(pod, &neighbours) {
        None => Ok(()),
        Some(conflict) => Err(Misfit {
            reasons: vec![conflict.reason().to_owned()],
            crowded: conflict.is_crowded(),
        }),
    }
}

fn labels_of(node_state: &ObservedNode<'_>) -> BTreeMap<String, String> {
    let mut labels = default_labels(node_state.name);
    let own = node_state
        .node
        .and_then(|node| node.metadata.labels.clone());
    labels.extend(own.unwrap_or_default());
    labels
}

fn room(request: &Resources, node_state: &ObservedNode<'_>) -> Result<(), Misfit> {
    let (all, taken) = (&node_state.allocatable, &node_state.taken);
    let mut reasons = Vec::new();
    let mut crowded = true;
    if taken.pods + request.pods > all.pods {
        reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, wanted: i64, taken: i64, all: i64| {
        if wanted > 0 && taken.saturating_add(wanted) > all {
            reasons.push(format!("Insufficient {name}"));
            crowded &= wanted <= all;
        }
    };
    check("cpu", request.cpu_millis, taken.cpu_millis, all.cpu_millis);
    check(
        "memory",
        request.memory_bytes,
        taken.memory_bytes,
        all.memory_bytes,
    );
    for (name, wanted) in &request.other {
        let of = |amounts: &Resources| amounts.other.get(name).copied().unwrap_or(0);
        check(name, *wanted, of(taken), of(all));
    }
    if reasons.is_empty() {
        Ok(())
    } else {
        Err(Misfit { reasons, crowded })
    }
}

fn tolerates_unschedulable(spec: &PodSpec) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    spec.tolerations
        .iter()
        .flatten()
        .any(|toleration| tolerates(toleration, &taint))
}

fn untolerated<'a>(spec: &PodSpec, taints: Option<&'a Vec<Taint>>) -> Option<&'a Taint> {
    let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    taints.into_iter().flatten().filter(hard).find(|taint| {
        !spec
            .tolerations
            .iter()
            .flatten()
            .any(|toleration| tolerates(toleration, taint))
    })
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let blank = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    let exists = toleration.operator.as_deref() == Some("Exists");
    (blank(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect))
        && ((blank(&toleration.key) && exists) || toleration.key.as_deref() == Some(&taint.key))
        && (exists
            || toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or(""))
}

fn selected(spec: &PodSpec, node_state: &ObservedNode<'_>) -> bool {
    let labels = labels_of(node_state);
    let by_label = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| {
        affinity
            .required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    let by_affinity = required.is_none_or(|selector| {
        selector
            .node_selector_terms
            .iter()
            .any(|term| term_matches(term, &labels, node_state.name))
    });
    by_label && by_affinity
}

fn term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let fields = term.match_fields.iter().flatten();
    let empty = expressions.clone().count() + fields.clone().count() == 0;
    !empty
        && expressions
            .into_iter()
            .all(|wanted| requirement_matches(wanted, labels.get(&wanted.key).map(String::as_str)))
        && fields
            .into_iter()
            .all(|wanted| wanted.key == "metadata.name" && requirement_matches(wanted, Some(name)))
}

fn requirement_matches(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    Operator::named(&wanted.operator, values).is_some_and(|operator| operator.matches(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = json!([]);
        }
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn asking(cpu: &str, memory: &str) -> Pod {
        pod(
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}),
        )
    }

    fn host_port(number: i32) -> Pod {
        let ports = json!([{"containerPort": 80, "hostPort": number}]);
        pod(json!({"containers": [{"name": "c", "ports": ports}]}))
    }

    fn node(spec: Value, labels: Value) -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": labels}, "spec": spec}))
            .unwrap()
    }

    fn try_fit(pod: &Pod, node: Option<&Node>, taken_cpu: i64) -> Result<(), String> {
        let capacity = Capacity {
            cpu_millis: 2000,
            memory_bytes: 1 << 30,
            pods: 10,
            not_started: Vec::new(),
        };
        let taken = Resources {
            cpu_millis: taken_cpu,
            pods: 1,
            ..Resources::default()
        };
        let node_state = ObservedNode {
            name: "n",
            node,
            allocatable: allocatable(node, &capacity),
            taken,
            host_ports: host_ports::of(&host_port(8080)),
            not_started: &capacity.not_started,
        };
        fit(pod, &node_state).map_err(|misfit| misfit.message())
    }

    #[test]
    fn the_words_are_the_schedulers() {
        let tail = "no new claims to deallocate, preemption: 0/1 nodes are available: 1";
        assert_eq!(
            try_fit(&asking("1000", "1Mi"), None, 0).unwrap_err(),
            format!(
                "0/1 nodes are available: 1 Insufficient cpu. {tail} Preemption is not helpful for scheduling."
            )
        );
        assert_eq!(
            try_fit(&asking("1", "1Mi"), None, 1500).unwrap_err(),
            format!(
                "0/1 nodes are available: 1 Insufficient cpu. {tail} No preemption victims found for incoming pod."
            )
        );
        assert_eq!(
            try_fit(&host_port(8080), None, 0).unwrap_err(),
            format!(
                "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. {tail} No preemption victims found for incoming pod."
            )
        );
        assert_eq!(try_fit(&host_port(8081), None, 0), Ok(()));
        assert_eq!(
            try_fit(&asking("3", "2Gi"), None, 0).unwrap_err(),
            format!(
                "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. {tail} Preemption is not helpful for scheduling."
            )
        );
    }

    #[test]
    fn selectors_taints_and_affinity_count() {
        let tainted = node(
            json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}),
            json!({}),
        );
        let tolerant = pod(
            json!({"tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]}),
        );
        let labelled = node(json!({}), json!({"disk": "ssd", "size": "5"}));
        let cordoned = node(json!({"unschedulable": true}), json!({}));
        let affinity = |expression: Value| {
            pod(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}}),
            )
        };
        let cases = [
            ("a taint repels", pod(json!({})), Some(&tainted), false),
            ("a toleration helps", tolerant, Some(&tainted), true),
            ("cordoned", pod(json!({})), Some(&cordoned), false),
            (
                "selector matches",
                pod(json!({"nodeSelector": {"disk": "ssd"}})),
                Some(&labelled),
                true,
            ),
            (
                "selector does not match",
                pod(json!({"nodeSelector": {"disk": "hdd"}})),
                Some(&labelled),
                false,
            ),
            (
                "default labels count",
                pod(json!({"nodeSelector": {"kubernetes.io/os": "linux"}})),
                None,
                true,
            ),
            (
                "affinity In",
                affinity(json!({"key": "disk", "operator": "In", "values": ["ssd"]})),
                Some(&labelled),
                true,
            ),
            (
                "affinity Gt",
                affinity(json!({"key": "size", "operator": "Gt", "values": ["5"]})),
                Some(&labelled),
                false,
            ),
        ];
        for (name, pod, node, fits) in cases {
            assert_eq!(try_fit(&pod, node, 0).is_ok(), fits, "{name}");
        }
    }

    #[test]
    fn init_containers_set_a_floor_and_sidecars_add_up() {
        let requests = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let pod = pod(json!({
            "initContainers": [
                {"name": "once", "resources": requests("900m")},
                {"name": "sidecar", "restartPolicy": "Always", "resources": requests("100m")}
            ],
            "containers": [{"name": "a", "resources": requests("300m")}, {"name": "b", "resources": requests("300m")}]
        }));
        assert_eq!(request(&pod, &[]).cpu_millis, 900);
    }

    #[test]
    fn what_the_node_does_not_start_takes_nothing() {
        let pod = pod(json!({"containers": [
            {"name": "user-container", "image": "hello", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "queue-proxy", "image": "samples.kinglet/queue-proxy:latest", "resources": {"requests": {"cpu": "25m"}}}
        ]}));
        assert_eq!(
            request(&pod, &["samples.kinglet/queue-proxy".to_owned()]).cpu_millis,
            100
        );
        assert_eq!(request(&pod, &[]).cpu_millis, 125);
    }
}
