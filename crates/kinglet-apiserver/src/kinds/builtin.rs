//! The table of built-in kinds.

use super::{Extra, Kind, Scale};
use crate::builtin_kind::Builtin;
use crate::names::NameRule::{self, Label, Label1035, Path, Subdomain};
use crate::printer_columns::Columns;

struct Row {
    builtin: Builtin,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status: bool,
    scale: bool,
    generations: bool,
    names: NameRule,
    extra: &'static [Extra],
}

const ALL: &[&str] = &["all"];
const GET: &[&str] = &["get"];
const CREATE: &[&str] = &["create"];
const CREATE_GET: &[&str] = &["create", "get"];

const POD_EXTRA: &[Extra] = &[
    Extra {
        name: "attach",
        kind: "PodAttachOptions",
        group: "",
        version: "v1",
        verbs: CREATE_GET,
    },
    Extra {
        name: "binding",
        kind: "Binding",
        group: "",
        version: "v1",
        verbs: CREATE,
    },
    Extra {
        name: "eviction",
        kind: "Eviction",
        group: "policy",
        version: "v1",
        verbs: CREATE,
    },
    Extra {
        name: "exec",
        kind: "PodExecOptions",
        group: "",
        version: "v1",
        verbs: CREATE_GET,
    },
    Extra {
        name: "log",
        kind: "Pod",
        group: "",
        version: "v1",
        verbs: GET,
    },
    Extra {
        name: "portforward",
        kind: "PodPortForwardOptions",
        group: "",
        version: "v1",
        verbs: CREATE_GET,
    },
];
const NAMESPACE_EXTRA: &[Extra] = &[Extra {
    name: "finalize",
    kind: "Namespace",
    group: "",
    version: "v1",
    verbs: &["update"],
}];
const ACCOUNT_EXTRA: &[Extra] = &[Extra {
    name: "token",
    kind: "TokenRequest",
    group: "authentication.k8s.io",
    version: "v1",
    verbs: CREATE,
}];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { builtin: Builtin::Namespace, group: "", version: "v1", kind: "Namespace", plural: "namespaces", short: &["ns"], categories: &[], namespaced: false, status: true, scale: false, generations: false, names: Label, extra: NAMESPACE_EXTRA },
    Row { builtin: Builtin::Pod, group: "", version: "v1", kind: "Pod", plural: "pods", short: &["po"], categories: ALL, namespaced: true, status: true, scale: false, generations: true, names: Subdomain, extra: POD_EXTRA },
    Row { builtin: Builtin::Service, group: "", version: "v1", kind: "Service", plural: "services", short: &["svc"], categories: ALL, namespaced: true, status: true, scale: false, generations: false, names: Label1035, extra: &[] },
    Row { builtin: Builtin::Endpoints, group: "", version: "v1", kind: "Endpoints", plural: "endpoints", short: &["ep"], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::ConfigMap, group: "", version: "v1", kind: "ConfigMap", plural: "configmaps", short: &["cm"], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::Secret, group: "", version: "v1", kind: "Secret", plural: "secrets", short: &[], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::ServiceAccount, group: "", version: "v1", kind: "ServiceAccount", plural: "serviceaccounts", short: &["sa"], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: ACCOUNT_EXTRA },
    Row { builtin: Builtin::Event, group: "", version: "v1", kind: "Event", plural: "events", short: &["ev"], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::Node, group: "", version: "v1", kind: "Node", plural: "nodes", short: &["no"], categories: &[], namespaced: false, status: true, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::ResourceQuota, group: "", version: "v1", kind: "ResourceQuota", plural: "resourcequotas", short: &["quota"], categories: &[], namespaced: true, status: true, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::LimitRange, group: "", version: "v1", kind: "LimitRange", plural: "limitranges", short: &["limits"], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::Deployment, group: "apps", version: "v1", kind: "Deployment", plural: "deployments", short: &["deploy"], categories: ALL, namespaced: true, status: true, scale: true, generations: true, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::ReplicaSet, group: "apps", version: "v1", kind: "ReplicaSet", plural: "replicasets", short: &["rs"], categories: ALL, namespaced: true, status: true, scale: true, generations: true, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::Job, group: "batch", version: "v1", kind: "Job", plural: "jobs", short: &[], categories: ALL, namespaced: true, status: true, scale: false, generations: true, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::EndpointSlice, group: "discovery.k8s.io", version: "v1", kind: "EndpointSlice", plural: "endpointslices", short: &[], categories: &[], namespaced: true, status: false, scale: false, generations: true, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::Event, group: "events.k8s.io", version: "v1", kind: "Event", plural: "events", short: &["ev"], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::Lease, group: "coordination.k8s.io", version: "v1", kind: "Lease", plural: "leases", short: &[], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::PriorityClass, group: "scheduling.k8s.io", version: "v1", kind: "PriorityClass", plural: "priorityclasses", short: &["pc"], categories: &[], namespaced: false, status: false, scale: false, generations: true, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::PodDisruptionBudget, group: "policy", version: "v1", kind: "PodDisruptionBudget", plural: "poddisruptionbudgets", short: &["pdb"], categories: &[], namespaced: true, status: true, scale: false, generations: true, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::HorizontalPodAutoscaler, group: "autoscaling", version: "v2", kind: "HorizontalPodAutoscaler", plural: "horizontalpodautoscalers", short: &["hpa"], categories: ALL, namespaced: true, status: true, scale: false, generations: false, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::Role, group: "rbac.authorization.k8s.io", version: "v1", kind: "Role", plural: "roles", short: &[], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Path, extra: &[] },
    Row { builtin: Builtin::RoleBinding, group: "rbac.authorization.k8s.io", version: "v1", kind: "RoleBinding", plural: "rolebindings", short: &[], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Path, extra: &[] },
    Row { builtin: Builtin::ClusterRole, group: "rbac.authorization.k8s.io", version: "v1", kind: "ClusterRole", plural: "clusterroles", short: &[], categories: &[], namespaced: false, status: false, scale: false, generations: false, names: Path, extra: &[] },
    Row { builtin: Builtin::ClusterRoleBinding, group: "rbac.authorization.k8s.io", version: "v1", kind: "ClusterRoleBinding", plural: "clusterrolebindings", short: &[], categories: &[], namespaced: false, status: false, scale: false, generations: false, names: Path, extra: &[] },
    Row { builtin: Builtin::CustomResourceDefinition, group: "apiextensions.k8s.io", version: "v1", kind: "CustomResourceDefinition", plural: "customresourcedefinitions", short: &["crd", "crds"], categories: &["api-extensions"], namespaced: false, status: true, scale: false, generations: true, names: Subdomain, extra: &[] },
    Row { builtin: Builtin::TokenReview, group: "authentication.k8s.io", version: "v1", kind: "TokenReview", plural: "tokenreviews", short: &[], categories: &[], namespaced: false, status: false, scale: false, generations: false, names: Label, extra: &[] },
    Row { builtin: Builtin::SelfSubjectReview, group: "authentication.k8s.io", version: "v1", kind: "SelfSubjectReview", plural: "selfsubjectreviews", short: &[], categories: &[], namespaced: false, status: false, scale: false, generations: false, names: Label, extra: &[] },
    Row { builtin: Builtin::SelfSubjectAccessReview, group: "authorization.k8s.io", version: "v1", kind: "SelfSubjectAccessReview", plural: "selfsubjectaccessreviews", short: &[], categories: &[], namespaced: false, status: false, scale: false, generations: false, names: Label, extra: &[] },
    Row { builtin: Builtin::SelfSubjectRulesReview, group: "authorization.k8s.io", version: "v1", kind: "SelfSubjectRulesReview", plural: "selfsubjectrulesreviews", short: &[], categories: &[], namespaced: false, status: false, scale: false, generations: false, names: Label, extra: &[] },
    Row { builtin: Builtin::SubjectAccessReview, group: "authorization.k8s.io", version: "v1", kind: "SubjectAccessReview", plural: "subjectaccessreviews", short: &[], categories: &[], namespaced: false, status: false, scale: false, generations: false, names: Label, extra: &[] },
    Row { builtin: Builtin::LocalSubjectAccessReview, group: "authorization.k8s.io", version: "v1", kind: "LocalSubjectAccessReview", plural: "localsubjectaccessreviews", short: &[], categories: &[], namespaced: true, status: false, scale: false, generations: false, names: Label, extra: &[] },
];

/// All built-in kinds.
pub(crate) fn table() -> impl Iterator<Item = Kind> {
    ROWS.iter().map(|row| {
        // Both Event kinds are one kind of object, kept in the core form.
        let (home, version) = if row.builtin == Builtin::Event {
            ("", "v1")
        } else {
            (row.group, row.version)
        };
        let folder = if home.is_empty() { "core" } else { home };
        Kind {
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            kind: row.kind.to_owned(),
            plural: row.plural.to_owned(),
            singular: row.kind.to_lowercase(),
            list_kind: if row.builtin == Builtin::Endpoints {
                "EndpointsList".to_owned()
            } else {
                format!("{}List", row.kind)
            },
            short_names: row.short.iter().map(|&s| s.to_owned()).collect(),
            categories: row.categories.iter().map(|&s| s.to_owned()).collect(),
            namespaced: row.namespaced,
            builtin: Some(row.builtin),
            prefix: format!("{folder}/{}/", row.plural),
            stored_version: super::api_version(home, version),
            conversion: None,
            has_status: row.status,
            scale: row.scale.then(|| Scale {
                spec_path: vec!["spec".to_owned(), "replicas".to_owned()],
                status_path: vec!["status".to_owned(), "replicas".to_owned()],
                selector_path: None,
            }),
            extra: row.extra,
            names: row.names,
            generations: row.generations,
            columns: Columns::builtin(row.builtin),
            schema: None,
            definition: None,
            absent: None,
            deprecation: None,
            review: row.builtin.is_review(),
        }
    })
}

/// A kind that is listed and always empty.
struct AbsentRow {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    /// What to do instead.
    words: &'static str,
}

/// `kubectl apply --prune`, `kubectl cluster-info dump` and the like fail where one of these is not listed.
#[rustfmt::skip]
const ABSENT: &[AbsentRow] = &[
    AbsentRow { group: "", kind: "PersistentVolumeClaim", plural: "persistentvolumeclaims", short: &["pvc"], namespaced: true, words: "Kinglet has no persistent volumes; use emptyDir, or hostPath where an administrator allows it" },
    AbsentRow { group: "", kind: "PersistentVolume", plural: "persistentvolumes", short: &["pv"], namespaced: false, words: "Kinglet has no persistent volumes; use emptyDir, or hostPath where an administrator allows it" },
    AbsentRow { group: "", kind: "ReplicationController", plural: "replicationcontrollers", short: &["rc"], namespaced: true, words: "Kinglet runs Deployments and ReplicaSets" },
    AbsentRow { group: "apps", kind: "DaemonSet", plural: "daemonsets", short: &["ds"], namespaced: true, words: "Kinglet has one node; use a Deployment" },
    AbsentRow { group: "apps", kind: "StatefulSet", plural: "statefulsets", short: &["sts"], namespaced: true, words: "Kinglet runs Deployments and Knative Services" },
    AbsentRow { group: "batch", kind: "CronJob", plural: "cronjobs", short: &["cj"], namespaced: true, words: "Kinglet runs Jobs, Deployments and Knative Services; nothing makes Jobs by the clock" },
    AbsentRow { group: "networking.k8s.io", kind: "Ingress", plural: "ingresses", short: &["ing"], namespaced: true, words: "Kinglet routes Knative Services; for others use a Service of type NodePort" },
];

/// The kinds that are listed and always empty.
pub(crate) fn absent() -> impl Iterator<Item = Kind> {
    ABSENT.iter().map(|row| {
        let folder = if row.group.is_empty() {
            "core"
        } else {
            row.group
        };
        Kind {
            group: row.group.to_owned(),
            version: "v1".to_owned(),
            kind: row.kind.to_owned(),
            plural: row.plural.to_owned(),
            singular: row.kind.to_lowercase(),
            list_kind: format!("{}List", row.kind),
            short_names: row.short.iter().map(|&short| short.to_owned()).collect(),
            categories: Vec::new(),
            namespaced: row.namespaced,
            builtin: Some(Builtin::Absent),
            prefix: format!("{folder}/{}/", row.plural),
            stored_version: super::api_version(row.group, "v1"),
            conversion: None,
            has_status: false,
            scale: None,
            extra: &[],
            names: Subdomain,
            generations: false,
            columns: Columns::builtin(Builtin::Absent),
            schema: None,
            definition: None,
            absent: Some(row.words),
            deprecation: None,
            review: false,
        }
    })
}
