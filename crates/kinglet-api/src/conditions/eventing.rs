//! The conditions of Eventing's kinds, and the states that several kinds share.

use super::kinds::condition_set;
use super::{ConditionSet, ConditionState};
use crate::config::eventing::{AuthorizationMode, Features};

condition_set!(
    /// Conditions of a Broker over channels.
    BrokerCondition {
        /// The ingress has endpoints.
        IngressReady,
        /// Its channel is ready.
        TriggerChannelReady,
        /// The filter has endpoints.
        FilterReady,
        /// It has an address.
        Addressable,
        /// Its EventPolicies are ready.
        EventPoliciesReady
    } also {
        /// Its dead letter sink is known.
        DeadLetterSinkResolved
    }
);
condition_set!(
    /// Conditions of a Trigger.
    TriggerCondition {
        /// Mirrors the Broker's `Ready`.
        BrokerReady,
        /// Mirrors the Subscription's `Ready`.
        SubscriptionReady,
        /// Mirrors `Ready` of the object that it waits for.
        DependencyReady,
        /// The subscriber's URL is known.
        SubscriberResolved,
        /// The dead letter sink's URL is known.
        DeadLetterSinkResolved,
        /// It has a service account to send as.
        OIDCIdentityCreated
    }
);
condition_set!(
    /// Conditions of an EventType.
    EventTypeCondition {
        /// What it refers to is there.
        ReferenceExists
    }
);
condition_set!(
    /// Conditions of an EventPolicy.
    EventPolicyCondition {
        /// Policies are in force.
        AuthenticationEnabled,
        /// Every sender has a subject.
        SubjectsResolved
    }
);
condition_set!(
    /// Conditions of a RequestReply.
    RequestReplyCondition {
        /// Its Triggers are ready.
        TriggersReady,
        /// It has an address.
        Addressable,
        /// Its EventPolicies are ready.
        EventPoliciesReady,
        /// Mirrors the Broker's `Ready`.
        BrokerReady
    }
);
condition_set!(
    /// Conditions of an EventTransform.
    EventTransformCondition {
        /// What runs the expression is ready.
        TransformationReady,
        /// It has an address.
        Addressable,
        /// Its EventPolicies are ready.
        EventPoliciesReady
    } also {
        /// Its Deployment is available.
        JsonataDeploymentReady,
        /// The Deployment knows the sink.
        JsonataSinkBindingReady
    }
);
condition_set!(
    /// Conditions of a Channel.
    ChannelCondition {
        /// Mirrors `Ready` of the channel behind it.
        BackingChannelReady,
        /// It has an address.
        Addressable,
        /// The dead letter sink's URL is known.
        DeadLetterSinkResolved,
        /// Its EventPolicies are ready.
        EventPoliciesReady
    }
);
condition_set!(
    /// Conditions of an InMemoryChannel.
    InMemoryChannelCondition {
        /// The dispatcher's Service is there.
        ServiceReady,
        /// The dispatcher has endpoints.
        EndpointsReady,
        /// It has an address.
        Addressable,
        /// Its own Service is there.
        ChannelServiceReady,
        /// The dead letter sink's URL is known.
        DeadLetterSinkResolved,
        /// Its EventPolicies are ready.
        EventPoliciesReady
    } also {
        /// The dispatcher's Deployment is available.
        DispatcherReady
    }
);
condition_set!(
    /// Conditions of a DurableChannel.
    DurableChannelCondition {
        /// Its log is open and takes events.
        LogReady,
        /// It has an address.
        Addressable,
        /// Its own Service is there.
        ChannelServiceReady,
        /// The dead letter sink's URL is known.
        DeadLetterSinkResolved,
        /// Its EventPolicies are ready.
        EventPoliciesReady
    } also {
        /// It has room; False while senders are refused.
        HasRoom
    }
);
condition_set!(
    /// Conditions of a Subscription.
    SubscriptionCondition {
        /// Channel, subscriber, reply and dead letter sink are known.
        ReferencesResolved,
        /// The channel has it among its subscribers.
        AddedToChannel,
        /// The channel says that it is ready.
        ChannelReady,
        /// It has a service account to send as.
        OIDCIdentityCreated
    }
);
condition_set!(
    /// Conditions of a Sequence, and of a Parallel.
    FlowCondition {
        /// Its channels are ready.
        ChannelsReady,
        /// Its Subscriptions are ready.
        SubscriptionsReady,
        /// It has an address.
        Addressable,
        /// Its EventPolicies are ready.
        EventPoliciesReady
    }
);
condition_set!(
    /// Conditions of a PingSource.
    PingSourceCondition {
        /// The sink's URL is known.
        SinkProvided,
        /// The adapter runs.
        Deployed,
        /// It has a service account to send as.
        OIDCIdentityCreated
    }
);
condition_set!(
    /// Conditions of an ApiServerSource.
    ApiServerSourceCondition {
        /// The sink's URL is known.
        SinkProvided,
        /// The adapter runs.
        Deployed,
        /// Its service account may watch what it is to watch.
        SufficientPermissions,
        /// It has a service account to send as.
        OIDCIdentityCreated
    }
);
condition_set!(
    /// Conditions of a ContainerSource.
    ContainerSourceCondition {
        /// Mirrors the SinkBinding's `Ready`.
        SinkBindingReady,
        /// Its Deployment is available.
        ReceiveAdapterReady
    }
);
condition_set!(
    /// Conditions of a SinkBinding.
    SinkBindingCondition {
        /// The workloads know the sink.
        SinkBindingAvailable,
        /// The sink's URL is known.
        SinkProvided,
        /// It has a service account to send as.
        OIDCIdentityCreated,
        /// The Secret with the token is there.
        OIDCTokenSecretCreated,
        /// The certificates to trust are in its namespace.
        TrustBundlePropagated
    }
);
condition_set!(
    /// Conditions of an IntegrationSource.
    IntegrationSourceCondition {
        /// Mirrors the ContainerSource's `Ready`.
        ContainerSourceReady
    }
);
condition_set!(
    /// Conditions of an IntegrationSink.
    IntegrationSinkCondition {
        /// It has an address.
        Addressable,
        /// Its Deployment is available.
        DeploymentReady,
        /// Its EventPolicies are ready.
        EventPoliciesReady,
        /// The certificates to trust are in its namespace.
        TrustBundlePropagated
    } also {
        /// Its certificate is there.
        CertificateReady
    }
);
condition_set!(
    /// Conditions of a JobSink.
    JobSinkCondition {
        /// It has an address.
        Addressable,
        /// Its EventPolicies are ready.
        EventPoliciesReady
    }
);

/// No identity is needed while OIDC is off.
pub fn oidc_disabled() -> ConditionState {
    ConditionState::true_because("authentication-oidc feature disabled", "")
}

/// The identity of a Trigger before its Broker's controller has looked.
pub fn oidc_unsupported() -> ConditionState {
    ConditionState::true_because(
        "authentication-oidc feature not yet supported for this Broker class",
        "",
    )
}

/// The token of a SinkBinding whose sink asks for none.
pub fn sink_without_audience() -> ConditionState {
    ConditionState::true_because("Sink has no audience defined", "")
}

/// There is no dead letter sink.
pub fn no_dead_letter_sink() -> ConditionState {
    ConditionState::true_because(
        "DeadLetterSinkNotConfigured",
        "No dead letter sink is configured.",
    )
}

/// The dead letter sink has no URL, and why.
pub fn dead_letter_sink_unresolved(why: &str) -> ConditionState {
    ConditionState::false_because("Unable to get the dead letter sink's URI", why)
}

/// The subscriber has no URL, and why.
pub fn subscriber_unresolved(why: &str) -> ConditionState {
    ConditionState::false_because("Unable to get the Subscriber's URI", why)
}

/// `EventPoliciesReady` of an object that EventPolicies `applying` apply to: their names, and whether each is ready.
pub fn event_policies(features: &Features, applying: &[(&str, bool)]) -> ConditionState {
    if !features.is_oidc() {
        return ConditionState::true_because(
            "OIDCDisabled",
            "Feature \"authentication-oidc\" must be enabled to support Authorization",
        );
    }
    if applying.is_empty() {
        return default_authorization(features.default_authorization_mode);
    }
    let waiting: Vec<&str> = applying
        .iter()
        .filter(|(_, ready)| !ready)
        .map(|(name, _)| *name)
        .collect();
    if waiting.is_empty() {
        return ConditionState::True;
    }
    ConditionState::false_because(
        "EventPoliciesNotReady",
        format!("event policies {} are not ready", waiting.join(", ")),
    )
}

fn default_authorization(mode: AuthorizationMode) -> ConditionState {
    ConditionState::true_because(
        "DefaultAuthorizationMode",
        format!("Default authz mode is {:?}", mode.as_str()),
    )
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $value;)*
    };
}

/// Reasons of conditions, as Knative writes them.
pub mod reason {
    reasons! {
        /// Broker: its configuration names no channel.
        CHANNEL_TEMPLATE_FAILED = "ChannelTemplateFailed";
        /// Broker, Channel: the channel behind it could not be made or is not ready.
        CHANNEL_FAILURE = "ChannelFailure";
        /// Broker: its channel has no address.
        NO_ADDRESS = "NoAddress";
        /// Broker: ingress or filter has no endpoint.
        ENDPOINT_SLICES_UNAVAILABLE = "EndpointSlicesUnavailable";
        /// Broker: ingress or filter could not be looked at.
        SERVICE_FAILURE = "ServiceFailure";
        /// Trigger: there is no such Broker.
        BROKER_DOES_NOT_EXIST = "BrokerDoesNotExist";
        /// Trigger: the Broker could not be read.
        FAILED_TO_GET_BROKER = "FailedToGetBroker";
        /// Trigger: the Broker's status names no channel.
        MISSING_BROKER_CHANNEL = "MissingBrokerChannel";
        /// Trigger: the Broker says nothing about itself.
        BROKER_UNKNOWN = "BrokerUnknown";
        /// Trigger: the Subscription of its name is another's.
        SUBSCRIPTION_NOT_OWNED = "SubscriptionNotOwnedByTrigger";
        /// Trigger: the Subscription could not be made.
        NOT_SUBSCRIBED = "NotSubscribed";
        /// Trigger: the dependency annotation cannot be read.
        REFERENCE_ERROR = "ReferenceError";
        /// Trigger: the object that it waits for does not exist.
        DEPENDENCY_DOES_NOT_EXIST = "DependencyDoesNotExist";
        /// Trigger: objects of that kind cannot be watched.
        LISTER_DOES_NOT_EXIST = "ListerDoesNotExist";
        /// Trigger: the object that it waits for could not be read.
        DEPENDENCY_GET_FAILED = "DependencyGetFailed";
        /// Trigger: the object that it waits for has not seen its own newest spec.
        GENERATION_NOT_EQUAL = "GenerationNotEqual";
        /// Trigger: the object that it waits for says nothing about itself.
        DEPENDENCY_UNKNOWN = "DependencyUnknown";
        /// EventType: what it refers to does not exist.
        RESOURCE_DOES_NOT_EXIST = "ResourceDoesNotExist";
        /// EventType: it refers to nothing.
        REFERENCE_NOT_SET = "ReferenceNotSet";
        /// EventType: what it refers to could not be read.
        REFERENCE_GET_FAILED = "ReferenceGetFailed";
        /// EventPolicy: OIDC is off.
        OIDC_AUTHENTICATION_DISABLED = "OIDCAuthenticationDisabled";
        /// EventPolicy: a sender has no subject.
        SUBJECTS_NOT_RESOLVED = "SubjectsNotResolved";
        /// EventTransform: its Deployment is not available.
        JSONATA_DEPLOYMENT_UNAVAILABLE = "JsonataDeploymentUnavailable";
        /// EventTransform: its certificate is not ready.
        JSONATA_CERTIFICATE_NOT_READY = "JsonataCertificateNotReady";
        /// EventTransform: it has no URL.
        NO_URL = "NoURL";
        /// EventTransform: its Service has no endpoints.
        WAITING_FOR_SERVICE_ENDPOINTS = "WaitingForServiceEndpoints";
        /// Channel, IntegrationSink: the address has no host.
        EMPTY_HOSTNAME = "EmptyHostname";
        /// Channel: the channel behind it says nothing about itself.
        BACKING_CHANNEL_UNKNOWN = "BackingChannelUnknown";
        /// Subscription: the channel cannot be used.
        CHANNEL_REFERENCE_FAILED = "ChannelReferenceFailed";
        /// Subscription: the subscriber has no URL.
        SUBSCRIBER_RESOLVE_FAILED = "SubscriberResolveFailed";
        /// Subscription: the reply has no URL.
        REPLY_RESOLVE_FAILED = "ReplyResolveFailed";
        /// Subscription: the dead letter sink has no URL.
        DEAD_LETTER_SINK_RESOLVE_FAILED = "DeadLetterSinkResolveFailed";
        /// Subscription: the channel could not be told.
        PHYSICAL_CHANNEL_SYNC_FAILED = "PhysicalChannelSyncFailed";
        /// Subscription: the channel has not said anything yet.
        NOT_MARKED_READY = "SubscriptionNotMarkedReadyByChannel";
        /// InMemoryChannel: there is no dispatcher.
        DISPATCHER_DEPLOYMENT_DOES_NOT_EXIST = "DispatcherDeploymentDoesNotExist";
        /// InMemoryChannel: the dispatcher's Service is missing.
        DISPATCHER_SERVICE_DOES_NOT_EXIST = "DispatcherServiceDoesNotExist";
        /// InMemoryChannel: the dispatcher's Service could not be read.
        DISPATCHER_SERVICE_GET_FAILED = "DispatcherServiceGetFailed";
        /// InMemoryChannel: the dispatcher's endpoints are missing.
        DISPATCHER_ENDPOINTS_DO_NOT_EXIST = "DispatcherEndpointsDoesNotExist";
        /// InMemoryChannel: the dispatcher has no ready endpoint.
        DISPATCHER_ENDPOINTS_NOT_READY = "DispatcherEndpointsNotReady";
        /// InMemoryChannel: its own Service could not be made.
        CHANNEL_SERVICE_FAILED = "ChannelServiceFailed";
        /// Sequence, Parallel: a channel is not ready.
        CHANNELS_NOT_READY = "ChannelsNotReady";
        /// Sequence, Parallel: a Subscription is not ready.
        SUBSCRIPTIONS_NOT_READY = "SubscriptionsNotReady";
        /// Sequence, Parallel: there is no address.
        EMPTY_ADDRESS = "emptyAddress";
        /// Parallel: a channel has no address.
        NOT_ADDRESSABLE = "NotAddressable";
        /// Sources: the sink resolved to nothing.
        SINK_EMPTY = "SinkEmpty";
        /// Sources: the sink could not be resolved.
        SINK_NOT_FOUND = "NotFound";
        /// Sources: the adapter's Deployment is not available.
        DEPLOYMENT_UNAVAILABLE = "DeploymentUnavailable";
        /// PingSource: the adapter's Deployment is being changed.
        DEPLOYMENT_UPDATING = "DeploymentUpdating";
        /// IntegrationSink: its Deployment is being changed.
        DEPLOYMENT_ROLLING_OUT = "DeploymentRollingOut";
        /// SinkBinding: there is no such workload.
        SUBJECT_MISSING = "SubjectMissing";
        /// SinkBinding: the workload could not be read.
        SUBJECT_UNAVAILABLE = "SubjectUnavailable";
        /// SinkBinding: the workload could not be changed.
        BINDING_FAILED = "BindingFailed";
        /// SinkBinding: the sink has no address.
        NO_ADDRESSABLE = "NoAddressable";
        /// SinkBinding: the certificates could not be copied.
        FAILED_TRUST_BUNDLE_PROPAGATION = "FailedTrustBundlePropagation";
        /// Every kind: a new spec was seen and not acted on.
        NEW_OBSERVED_GENERATION_FAILURE = "NewObservedGenFailure";
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::conditions::Conditions;
    use crate::config::Flag;

    fn shown<K: ConditionSet>(conditions: Conditions<K>) -> Vec<String> {
        conditions
            .finish(&[], Timestamp::UNIX_EPOCH)
            .iter()
            .map(|c| {
                format!(
                    "{}={}/{}/{}",
                    c.kind,
                    c.status.as_str(),
                    c.severity,
                    c.reason
                )
            })
            .collect()
    }

    /// As recorded of a Broker whose ConfigMap is absent: what was never told of is not there if it does not decide.
    #[test]
    fn a_broker_without_its_config_map() {
        let told = Conditions::new().with(
            BrokerCondition::TriggerChannelReady,
            ConditionState::false_because(reason::CHANNEL_TEMPLATE_FAILED, "no"),
        );
        assert_eq!(
            shown(told),
            [
                "Addressable=Unknown//",
                "EventPoliciesReady=Unknown//",
                "FilterReady=Unknown//",
                "IngressReady=Unknown//",
                "Ready=False//ChannelTemplateFailed",
                "TriggerChannelReady=False//ChannelTemplateFailed",
            ]
        );
    }

    #[test]
    fn a_dead_letter_sink_only_informs_on_a_broker() {
        let told = Conditions::new()
            .with(BrokerCondition::IngressReady, ConditionState::True)
            .with(BrokerCondition::TriggerChannelReady, ConditionState::True)
            .with(BrokerCondition::FilterReady, ConditionState::True)
            .with(BrokerCondition::Addressable, ConditionState::True)
            .with(
                BrokerCondition::EventPoliciesReady,
                event_policies(&Features::default(), &[]),
            )
            .with(
                BrokerCondition::DeadLetterSinkResolved,
                dead_letter_sink_unresolved("services \"absent\" not found"),
            );
        let shown = shown(told);
        assert!(shown.contains(&"Ready=True//".to_owned()), "{shown:?}");
        assert!(
            shown.contains(
                &"DeadLetterSinkResolved=False/Info/Unable to get the dead letter sink's URI"
                    .to_owned()
            ),
            "{shown:?}"
        );
    }

    #[test]
    fn policies_are_judged_once_they_are_in_force() {
        let on = Features {
            authentication_oidc: Flag::Enabled,
            ..Features::default()
        };
        for (applying, want) in [
            (
                &[][..],
                ConditionState::true_because(
                    "DefaultAuthorizationMode",
                    "Default authz mode is \"Allow-Same-Namespace\"",
                ),
            ),
            (&[("a", true)], ConditionState::True),
            (
                &[("a", false), ("b", true)],
                ConditionState::false_because(
                    "EventPoliciesNotReady",
                    "event policies a are not ready",
                ),
            ),
        ] {
            assert_eq!(event_policies(&on, applying), want);
        }
    }
}
