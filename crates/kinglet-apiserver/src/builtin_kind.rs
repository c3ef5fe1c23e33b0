//! The name of each built-in kind, for rules that concern one kind.

/// Built-in kinds that have rules of their own somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Builtin {
    Namespace,
    Pod,
    Service,
    Endpoints,
    ConfigMap,
    Secret,
    ServiceAccount,
    Event,
    Node,
    ResourceQuota,
    LimitRange,
    Deployment,
    ReplicaSet,
    Job,
    EndpointSlice,
    Lease,
    PriorityClass,
    PodDisruptionBudget,
    HorizontalPodAutoscaler,
    Role,
    RoleBinding,
    ClusterRole,
    ClusterRoleBinding,
    CustomResourceDefinition,
    TokenReview,
    SelfSubjectReview,
    SelfSubjectAccessReview,
    SubjectAccessReview,
    LocalSubjectAccessReview,
    /// Kinds that are listed, and of which there is never an object.
    Absent,
    SelfSubjectRulesReview,
}

impl Builtin {
    /// Kinds that are answered, not stored.
    pub(crate) fn is_review(self) -> bool {
        matches!(
            self,
            Self::TokenReview
                | Self::SelfSubjectReview
                | Self::SelfSubjectAccessReview
                | Self::SubjectAccessReview
                | Self::LocalSubjectAccessReview
                | Self::SelfSubjectRulesReview
        )
    }

    /// Kinds that nobody misses after a restart.
    pub(crate) fn is_fleeting(self) -> bool {
        matches!(self, Self::Event | Self::Lease)
    }

    /// Kinds whose delete answers with the object.
    pub(crate) fn returns_deleted(self) -> bool {
        matches!(
            self,
            Self::Pod | Self::Service | Self::ServiceAccount | Self::ResourceQuota
        )
    }

    /// Kinds that a PUT to a free name creates.
    pub(crate) fn creates_on_update(self) -> bool {
        matches!(
            self,
            Self::Lease | Self::Endpoints | Self::Event | Self::LimitRange
        )
    }
}
