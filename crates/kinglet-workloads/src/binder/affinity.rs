//! Which Pods want to run together, and which apart (`podAffinity` and `podAntiAffinity`, what is required of them): pure.
//!
//! There is one node, so all its Pods are in the same topology domain of every label that the node has.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1;
use kinglet_quantity::LabelSelector;

/// What a term is held against.
pub(super) struct Neighbours<'a> {
    /// Pods of the node that have not ended.
    pub(super) pods: &'a [&'a Pod],
    /// Labels of the node.
    pub(super) node_labels: &'a BTreeMap<String, String>,
    /// Labels of a namespace.
    pub(super) namespace_labels: &'a dyn Fn(&str) -> Option<BTreeMap<String, String>>,
}

/// Why a Pod may not run beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Nobody is there whom it wants to be with.
    Affinity,
    /// Somebody is there whom it wants to be apart from.
    AntiAffinity,
    /// Somebody is there who wants to be apart from it.
    ExistingAntiAffinity,
}

impl Conflict {
    /// The scheduler's words.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Affinity => "node(s) didn't match pod affinity rules",
            Self::AntiAffinity => "node(s) didn't match pod anti-affinity rules",
            Self::ExistingAntiAffinity => {
                "node(s) didn't satisfy existing pods anti-affinity rules"
            }
        }
    }

    /// Whether it could run if others were gone.
    pub(super) fn is_crowded(self) -> bool {
        self != Self::Affinity
    }
}

/// Whether the Pod asks for others to be there or not, so that others matter to it.
pub(super) fn minds_others(pod: &Pod) -> bool {
    !together(pod).is_empty() || !apart(pod).is_empty()
}

/// The first rule that is broken if the Pod joins its neighbours, in the scheduler's order.
pub(super) fn conflict(pod: &Pod, neighbours: &Neighbours<'_>) -> Option<Conflict> {
    let has_domain =
        |term: &PodAffinityTerm| neighbours.node_labels.contains_key(&term.topology_key);
    let any_matches = |term: &PodAffinityTerm| {
        neighbours
            .pods
            .iter()
            .any(|other| matches(term, pod, other, neighbours))
    };
    let together = together(pod);
    let in_domain = together.iter().all(has_domain);
    // The first Pod of a group that wants to be together has nobody to be with yet.
    let is_first = !together.iter().any(any_matches)
        && together
            .iter()
            .all(|term| matches(term, pod, pod, neighbours));
    if !in_domain || !(together.iter().all(any_matches) || is_first) {
        return Some(Conflict::Affinity);
    }
    if apart(pod)
        .iter()
        .any(|term| has_domain(term) && any_matches(term))
    {
        return Some(Conflict::AntiAffinity);
    }
    let is_refused = neighbours.pods.iter().any(|other| {
        apart(other)
            .iter()
            .any(|term| has_domain(term) && matches(term, other, pod, neighbours))
    });
    is_refused.then_some(Conflict::ExistingAntiAffinity)
}

fn together(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.pod_affinity.as_ref())
        .and_then(|rules| {
            rules
                .required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

fn apart(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    affinity
        .and_then(|affinity| affinity.pod_anti_affinity.as_ref())
        .and_then(|rules| {
            rules
                .required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

/// Whether a term of `owner` means `other`.
fn matches(term: &PodAffinityTerm, owner: &Pod, other: &Pod, neighbours: &Neighbours<'_>) -> bool {
    let Some(selector) = &term.label_selector else {
        return false;
    };
    let mut selector = read(selector);
    let value_of = |key: &String| owner.metadata.labels.as_ref()?.get(key).cloned();
    for (keys, operator) in [
        (&term.match_label_keys, "In"),
        (&term.mismatch_label_keys, "NotIn"),
    ] {
        for key in keys.iter().flatten() {
            if let Some(value) = value_of(key) {
                selector = selector.with_expression(key, operator, &[value]);
            }
        }
    }
    let labels = other.metadata.labels.as_ref();
    is_in_namespaces(term, owner, other, neighbours)
        && selector.matches(|key| labels?.get(key).map(String::as_str))
}

fn is_in_namespaces(
    term: &PodAffinityTerm,
    owner: &Pod,
    other: &Pod,
    neighbours: &Neighbours<'_>,
) -> bool {
    let namespace = other.metadata.namespace.as_deref().unwrap_or_default();
    let named = term.namespaces.as_deref().unwrap_or_default();
    if named.iter().any(|name| name == namespace) {
        return true;
    }
    match &term.namespace_selector {
        Some(selector) => {
            let labels = (neighbours.namespace_labels)(namespace).unwrap_or_default();
            read(selector).matches(|key| labels.get(key).map(String::as_str))
        }
        None => named.is_empty() && other.metadata.namespace == owner.metadata.namespace,
    }
}

fn read(selector: &v1::LabelSelector) -> LabelSelector {
    let labels = selector.match_labels.iter().flatten();
    let read = LabelSelector::new(Vec::new()).with_labels(labels);
    let expressions = selector.match_expressions.iter().flatten();
    expressions.fold(read, |read, wanted| {
        let values = wanted.values.as_deref().unwrap_or_default();
        read.with_expression(&wanted.key, &wanted.operator, values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(namespace: &str, app: &str, affinity: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": app, "namespace": namespace, "labels": {"app": app}},
            "spec": {"containers": [], "affinity": affinity}
        }))
        .unwrap()
    }

    fn term(app: &str, topology: &str, more: Value) -> Value {
        let mut term =
            json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": topology});
        for (key, value) in more.as_object().unwrap() {
            term[key] = value.clone();
        }
        term
    }

    fn with(term: Value) -> Value {
        json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    }

    fn without(term: Value) -> Value {
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    }

    #[test]
    fn a_row_per_rule() {
        const HOST: &str = "kubernetes.io/hostname";
        let nobody = || json!({});
        let web = || pod("a", "web", nobody());
        let rows = [
            ("nothing asked", nobody(), vec![web()], None),
            (
                "together",
                with(term("web", HOST, nobody())),
                vec![web()],
                None,
            ),
            (
                "together, nobody there",
                with(term("web", HOST, nobody())),
                vec![],
                Some(Conflict::Affinity),
            ),
            (
                "together, in another namespace",
                with(term("web", HOST, nobody())),
                vec![pod("b", "web", nobody())],
                Some(Conflict::Affinity),
            ),
            (
                "together, that namespace named",
                with(term("web", HOST, json!({"namespaces": ["b"]}))),
                vec![pod("b", "web", nobody())],
                None,
            ),
            (
                "together, all namespaces",
                with(term("web", HOST, json!({"namespaceSelector": {}}))),
                vec![pod("b", "web", nobody())],
                None,
            ),
            (
                "together, namespaces by label",
                with(term(
                    "web",
                    HOST,
                    json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}),
                )),
                vec![pod("b", "web", nobody())],
                None,
            ),
            (
                "the first of a group",
                with(term("me", HOST, nobody())),
                vec![web()],
                None,
            ),
            (
                "a node without the label",
                with(term("web", "zone", nobody())),
                vec![web()],
                Some(Conflict::Affinity),
            ),
            (
                "apart",
                without(term("web", HOST, nobody())),
                vec![web()],
                Some(Conflict::AntiAffinity),
            ),
            (
                "apart, nobody there",
                without(term("web", HOST, nobody())),
                vec![],
                None,
            ),
            (
                "apart by a label that the node lacks",
                without(term("web", "zone", nobody())),
                vec![web()],
                None,
            ),
            (
                "the other one wants to be apart",
                nobody(),
                vec![pod("a", "web", without(term("me", HOST, nobody())))],
                Some(Conflict::ExistingAntiAffinity),
            ),
            (
                "a term without a selector means nobody",
                without(json!({"topologyKey": HOST})),
                vec![web()],
                None,
            ),
            (
                "the same value of a label",
                without(term(
                    "web",
                    HOST,
                    json!({"labelSelector": {}, "matchLabelKeys": ["app"]}),
                )),
                vec![web()],
                None,
            ),
            (
                "another value of a label",
                without(term(
                    "web",
                    HOST,
                    json!({"labelSelector": {}, "mismatchLabelKeys": ["app"]}),
                )),
                vec![web()],
                Some(Conflict::AntiAffinity),
            ),
        ];
        let node_labels = BTreeMap::from([(HOST.to_owned(), "n".to_owned())]);
        for (name, affinity, others, expected) in rows {
            let neighbours = Neighbours {
                pods: &others.iter().collect::<Vec<_>>(),
                node_labels: &node_labels,
                namespace_labels: &|name| {
                    Some(BTreeMap::from([("team".to_owned(), name.to_owned())]))
                },
            };
            assert_eq!(
                conflict(&pod("a", "me", affinity), &neighbours),
                expected,
                "{name}"
            );
        }
    }
}
