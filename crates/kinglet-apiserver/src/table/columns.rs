//! The columns of built-in kinds: name, type, priority (above 0 only with `-o wide`).

use crate::kinds::Builtin;

type Set = &'static [(&'static str, &'static str, i64)];

const S: &str = "string";
const I: &str = "integer";

const POD: Set = &[
    ("Name", S, 0),
    ("Ready", S, 0),
    ("Status", S, 0),
    ("Restarts", S, 0),
    ("Age", S, 0),
    ("IP", S, 1),
    ("Node", S, 1),
    ("Nominated Node", S, 1),
    ("Readiness Gates", S, 1),
];

const DEPLOYMENT: Set = &[
    ("Name", S, 0),
    ("Ready", S, 0),
    ("Up-to-date", S, 0),
    ("Available", S, 0),
    ("Age", S, 0),
    ("Containers", S, 1),
    ("Images", S, 1),
    ("Selector", S, 1),
];

const REPLICA_SET: Set = &[
    ("Name", S, 0),
    ("Desired", I, 0),
    ("Current", I, 0),
    ("Ready", I, 0),
    ("Age", S, 0),
    ("Containers", S, 1),
    ("Images", S, 1),
    ("Selector", S, 1),
];

const JOB: Set = &[
    ("Name", S, 0),
    ("Status", S, 0),
    ("Completions", S, 0),
    ("Duration", S, 0),
    ("Age", S, 0),
    ("Containers", S, 1),
    ("Images", S, 1),
    ("Selector", S, 1),
];

const SERVICE: Set = &[
    ("Name", S, 0),
    ("Type", S, 0),
    ("Cluster-IP", S, 0),
    ("External-IP", S, 0),
    ("Port(s)", S, 0),
    ("Age", S, 0),
    ("Selector", S, 1),
];

const ENDPOINTS: Set = &[("Name", S, 0), ("Endpoints", S, 0), ("Age", S, 0)];

const ENDPOINT_SLICE: Set = &[
    ("Name", S, 0),
    ("AddressType", S, 0),
    ("Ports", S, 0),
    ("Endpoints", S, 0),
    ("Age", S, 0),
];

const CONFIG_MAP: Set = &[("Name", S, 0), ("Data", S, 0), ("Age", S, 0)];

const SECRET: Set = &[
    ("Name", S, 0),
    ("Type", S, 0),
    ("Data", S, 0),
    ("Age", S, 0),
];

const NAMESPACE: Set = &[("Name", S, 0), ("Status", S, 0), ("Age", S, 0)];

const SERVICE_ACCOUNT: Set = &[("Name", S, 0), ("Secrets", S, 0), ("Age", S, 0)];

const NODE: Set = &[
    ("Name", S, 0),
    ("Status", S, 0),
    ("Roles", S, 0),
    ("Age", S, 0),
    ("Version", S, 0),
    ("Internal-IP", S, 1),
    ("External-IP", S, 1),
    ("OS-Image", S, 1),
    ("Kernel-Version", S, 1),
    ("Container-Runtime", S, 1),
];

const EVENT: Set = &[
    ("Last Seen", S, 0),
    ("Type", S, 0),
    ("Reason", S, 0),
    ("Object", S, 0),
    ("Subobject", S, 1),
    ("Source", S, 1),
    ("Message", S, 0),
    ("First Seen", S, 1),
    ("Count", S, 1),
    ("Name", S, 1),
];

const LEASE: Set = &[("Name", S, 0), ("Holder", S, 0), ("Age", S, 0)];

const RESOURCE_QUOTA: Set = &[
    ("Name", S, 0),
    ("Request", S, 0),
    ("Limit", S, 0),
    ("Age", S, 0),
];

const PRIORITY_CLASS: Set = &[
    ("Name", S, 0),
    ("Value", I, 0),
    ("Global-Default", "boolean", 0),
    ("Age", S, 0),
    ("PreemptionPolicy", S, 0),
];

const POD_DISRUPTION_BUDGET: Set = &[
    ("Name", S, 0),
    ("Min Available", S, 0),
    ("Max Unavailable", S, 0),
    ("Allowed Disruptions", I, 0),
    ("Age", S, 0),
];

const HORIZONTAL_POD_AUTOSCALER: Set = &[
    ("Name", S, 0),
    ("Reference", S, 0),
    ("Targets", S, 0),
    ("MinPods", S, 0),
    ("MaxPods", S, 0),
    ("Replicas", S, 0),
    ("Age", S, 0),
];

const BINDING: Set = &[
    ("Name", S, 0),
    ("Role", S, 0),
    ("Age", S, 0),
    ("Users", S, 1),
    ("Groups", S, 1),
    ("ServiceAccounts", S, 1),
];

/// Kinds without columns of their own.
const OTHERS: Set = &[("Name", S, 0), ("Created At", "date", 0)];

/// Returns the columns of a kind.
pub(crate) fn of(builtin: Builtin) -> Set {
    match builtin {
        Builtin::Pod => POD,
        Builtin::Deployment => DEPLOYMENT,
        Builtin::ReplicaSet => REPLICA_SET,
        Builtin::Job => JOB,
        Builtin::Service => SERVICE,
        Builtin::Endpoints => ENDPOINTS,
        Builtin::EndpointSlice => ENDPOINT_SLICE,
        Builtin::ConfigMap => CONFIG_MAP,
        Builtin::Secret => SECRET,
        Builtin::Namespace => NAMESPACE,
        Builtin::ServiceAccount => SERVICE_ACCOUNT,
        Builtin::Node => NODE,
        Builtin::Event => EVENT,
        Builtin::Lease => LEASE,
        Builtin::ResourceQuota => RESOURCE_QUOTA,
        Builtin::PriorityClass => PRIORITY_CLASS,
        Builtin::PodDisruptionBudget => POD_DISRUPTION_BUDGET,
        Builtin::HorizontalPodAutoscaler => HORIZONTAL_POD_AUTOSCALER,
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => BINDING,
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
        | Builtin::SelfSubjectRulesReview => OTHERS,
    }
}
