//! The conditions of each kind.

use super::ConditionSet;

macro_rules! condition_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$dependent_doc:meta])* $dependent:ident),* } $(also { $($(#[$extra_doc:meta])* $extra:ident),* })?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$dependent_doc])* $dependent,)*
            $($($(#[$extra_doc])* $extra,)*)?
        }

        impl ConditionSet for $name {
            const DEPENDENTS: &'static [Self] = &[$(Self::$dependent),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$dependent => stringify!($dependent),)*
                    $($(Self::$extra => stringify!($extra),)*)?
                }
            }
        }
    };
}

pub(super) use condition_set;

condition_set!(
    /// Conditions of a Service.
    ServiceCondition {
        /// Mirrors the Configuration's `Ready`.
        ConfigurationsReady,
        /// Mirrors the Route's `Ready`.
        RoutesReady
    }
);
condition_set!(
    /// Conditions of a Configuration, which reports `Ready` itself.
    ConfigurationCondition {} also {
        /// The only one.
        Ready
    }
);
condition_set!(
    /// Conditions of a Revision.
    RevisionCondition {
        /// Deployment, images and autoscaler are there.
        ResourcesAvailable,
        /// The containers run.
        ContainerHealthy
    } also {
        /// It has pods, or is about to.
        Active
    }
);
condition_set!(
    /// Conditions of a Route.
    RouteCondition {
        /// Every target exists and is ready.
        AllTrafficAssigned,
        /// The gateway has it.
        IngressReady,
        /// Certificates are there, or not wanted.
        CertificateProvisioned
    }
);
condition_set!(
    /// Conditions of a PodAutoscaler.
    PodAutoscalerCondition {
        /// It has pods, or is about to.
        Active,
        /// The initial scale was reached once.
        ScaleTargetInitialized,
        /// Its ServerlessService is ready.
        SKSReady
    }
);
condition_set!(
    /// Conditions of a Metric, which reports `Ready` itself.
    MetricCondition {} also {
        /// The only one.
        Ready
    }
);
condition_set!(
    /// Conditions of a ServerlessService.
    ServerlessServiceCondition {
        /// Its public Service has endpoints.
        EndpointsPopulated
    } also {
        /// The activators are its endpoints.
        ActivatorEndpointsPopulated
    }
);
condition_set!(
    /// Conditions of a Certificate, which reports `Ready` itself.
    CertificateCondition {} also {
        /// The Secret has a certificate that holds.
        Ready
    }
);
condition_set!(
    /// Conditions of an Ingress.
    IngressCondition {
        /// The gateway has its rules.
        NetworkConfigured,
        /// The gateway can be reached.
        LoadBalancerReady
    }
);
