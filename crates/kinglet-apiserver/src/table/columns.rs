//! The columns of built-in kinds: name, type, priority (above 0 only with `-o wide`).

use crate::kinds::Builtin;

type Set = &'static [(&'static str, &'static str, i64)];

const S: &str = "string";
const I: &str = "integer";

/// The columns of a kind.
pub(crate) fn of(builtin: Builtin) -> Set {
    match builtin {
        Builtin::Pod => &[
            ("Name", S, 0),
            ("Ready", S, 0),
            ("Status", S, 0),
            ("Restarts", S, 0),
            ("Age", S, 0),
            ("IP", S, 1),
            ("Node", S, 1),
            ("Nominated Node", S, 1),
            ("Readiness Gates", S, 1),
        ],
        Builtin::Deployment => &[
            ("Name", S, 0),
            ("Ready", S, 0),
            ("Up-to-date", S, 0),
            ("Available", S, 0),
            ("Age", S, 0),
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        Builtin::ReplicaSet => &[
            ("Name", S, 0),
            ("Desired", I, 0),
            ("Current", I, 0),
            ("Ready", I, 0),
            ("Age", S, 0),
            ("Containers", S, 1),
            ("Images", S, 1),
            ("Selector", S, 1),
        ],
        Builtin::Service => &[
            ("Name", S, 0),
            ("Type", S, 0),
            ("Cluster-IP", S, 0),
            ("External-IP", S, 0),
            ("Port(s)", S, 0),
            ("Age", S, 0),
            ("Selector", S, 1),
        ],
        Builtin::Endpoints => &[("Name", S, 0), ("Endpoints", S, 0), ("Age", S, 0)],
        Builtin::EndpointSlice => &[
            ("Name", S, 0),
            ("AddressType", S, 0),
            ("Ports", S, 0),
            ("Endpoints", S, 0),
            ("Age", S, 0),
        ],
        Builtin::ConfigMap => &[("Name", S, 0), ("Data", S, 0), ("Age", S, 0)],
        Builtin::Secret => &[
            ("Name", S, 0),
            ("Type", S, 0),
            ("Data", S, 0),
            ("Age", S, 0),
        ],
        Builtin::Namespace => &[("Name", S, 0), ("Status", S, 0), ("Age", S, 0)],
        Builtin::ServiceAccount => &[("Name", S, 0), ("Secrets", S, 0), ("Age", S, 0)],
        Builtin::Node => &[
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
        ],
        Builtin::Event => &[
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
        ],
        Builtin::Lease => &[("Name", S, 0), ("Holder", S, 0), ("Age", S, 0)],
        Builtin::ResourceQuota => &[
            ("Name", S, 0),
            ("Request", S, 0),
            ("Limit", S, 0),
            ("Age", S, 0),
        ],
        Builtin::PriorityClass => &[
            ("Name", S, 0),
            ("Value", I, 0),
            ("Global-Default", "boolean", 0),
            ("Age", S, 0),
            ("PreemptionPolicy", S, 0),
        ],
        Builtin::PodDisruptionBudget => &[
            ("Name", S, 0),
            ("Min Available", S, 0),
            ("Max Unavailable", S, 0),
            ("Allowed Disruptions", I, 0),
            ("Age", S, 0),
        ],
        Builtin::HorizontalPodAutoscaler => &[
            ("Name", S, 0),
            ("Reference", S, 0),
            ("Targets", S, 0),
            ("MinPods", S, 0),
            ("MaxPods", S, 0),
            ("Replicas", S, 0),
            ("Age", S, 0),
        ],
        Builtin::RoleBinding | Builtin::ClusterRoleBinding => &[
            ("Name", S, 0),
            ("Role", S, 0),
            ("Age", S, 0),
            ("Users", S, 1),
            ("Groups", S, 1),
            ("ServiceAccounts", S, 1),
        ],
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
        | Builtin::SelfSubjectRulesReview => &[("Name", S, 0), ("Created At", "date", 0)],
    }
}
