//! What the two kinds of channel do not share.

use kinglet_api::conditions::eventing::{
    DurableChannelCondition as Durable, InMemoryChannelCondition as InMemory, reason,
};
use kinglet_api::conditions::{ConditionSet, ConditionState, Conditions};
use kinglet_api::duck::{ChannelableSpec, ChannelableStatus};
use kinglet_api::keys;
use kinglet_api::messaging::{DurableChannel, InMemoryChannel, Retention};
use kinglet_reconcile::{Object, annotation};

use crate::addresses;

/// What is known about the way to a channel, and about the channel in the data plane.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The dispatcher's Service is there.
    pub(super) service: bool,
    /// It has an endpoint.
    pub(super) endpoint: bool,
    /// What the data plane says against the channel.
    pub(super) refused: Option<String>,
}

/// A kind of channel that the data plane of this process keeps.
pub(super) trait PhysicalChannel: Object {
    /// Its conditions.
    type Condition: ConditionSet + std::fmt::Debug;
    /// Name of its controller.
    const CONTROLLER: &'static str;
    /// Service that its events are sent to.
    const DISPATCHER: &'static str;
    /// What its own Service is labelled with.
    const ROLE: &'static str;
    const ADDRESSABLE: Self::Condition;
    const CHANNEL_SERVICE: Self::Condition;
    const DEAD_LETTER: Self::Condition;
    const POLICIES: Self::Condition;

    fn channelable(&self) -> &ChannelableSpec;
    fn status(&self) -> &ChannelableStatus;
    fn retention(&self) -> Retention;
    /// Senders are answered before their events are delivered.
    fn is_asynchronous(&self) -> bool;
    /// The conditions that only this kind has.
    fn own(facts: &Facts) -> Conditions<Self::Condition>;
}

impl PhysicalChannel for InMemoryChannel {
    type Condition = InMemory;
    const CONTROLLER: &'static str = "inmemorychannel-controller";
    const DISPATCHER: &'static str = addresses::IN_MEMORY_DISPATCHER;
    const ROLE: &'static str = "in-memory-channel";
    const ADDRESSABLE: InMemory = InMemory::Addressable;
    const CHANNEL_SERVICE: InMemory = InMemory::ChannelServiceReady;
    const DEAD_LETTER: InMemory = InMemory::DeadLetterSinkResolved;
    const POLICIES: InMemory = InMemory::EventPoliciesReady;

    fn channelable(&self) -> &ChannelableSpec {
        &self.spec
    }

    fn status(&self) -> &ChannelableStatus {
        &self.status
    }

    fn retention(&self) -> Retention {
        Retention::default()
    }

    fn is_asynchronous(&self) -> bool {
        annotation(self, keys::ASYNC_HANDLER).is_some_and(|value| value == "true")
    }

    fn own(facts: &Facts) -> Conditions<InMemory> {
        let service = match facts.service {
            true => ConditionState::True,
            false => ConditionState::false_because(
                reason::DISPATCHER_SERVICE_DOES_NOT_EXIST,
                "Dispatcher Service does not exist",
            ),
        };
        let endpoint = match facts.endpoint {
            true => ConditionState::True,
            false => ConditionState::false_because(
                reason::DISPATCHER_ENDPOINTS_NOT_READY,
                "There are no endpoints ready for Dispatcher service",
            ),
        };
        let dispatcher = match &facts.refused {
            None => ConditionState::True,
            Some(why) => ConditionState::false_because("DispatcherFailed", why.clone()),
        };
        // The dispatcher's own condition decides about nothing, so what it says is said where it does.
        let endpoint = match &facts.refused {
            Some(why) if facts.endpoint => {
                ConditionState::false_because(reason::DISPATCHER_ENDPOINTS_NOT_READY, why.clone())
            }
            _ => endpoint,
        };
        Conditions::new()
            .with(InMemory::DispatcherReady, dispatcher)
            .with(InMemory::ServiceReady, service)
            .with(InMemory::EndpointsReady, endpoint)
    }
}

impl PhysicalChannel for DurableChannel {
    type Condition = Durable;
    const CONTROLLER: &'static str = "durablechannel-controller";
    const DISPATCHER: &'static str = addresses::DURABLE_DISPATCHER;
    const ROLE: &'static str = "durable-channel";
    const ADDRESSABLE: Durable = Durable::Addressable;
    const CHANNEL_SERVICE: Durable = Durable::ChannelServiceReady;
    const DEAD_LETTER: Durable = Durable::DeadLetterSinkResolved;
    const POLICIES: Durable = Durable::EventPoliciesReady;

    fn channelable(&self) -> &ChannelableSpec {
        &self.spec.channelable
    }

    fn status(&self) -> &ChannelableStatus {
        &self.status
    }

    fn retention(&self) -> Retention {
        self.spec.retention.clone()
    }

    fn is_asynchronous(&self) -> bool {
        true
    }

    fn own(facts: &Facts) -> Conditions<Durable> {
        let log = match (&facts.refused, facts.service && facts.endpoint) {
            (Some(why), _) => ConditionState::false_because("LogFailed", why.clone()),
            (None, false) => ConditionState::false_because(
                reason::DISPATCHER_ENDPOINTS_NOT_READY,
                "There are no endpoints ready for Dispatcher service",
            ),
            (None, true) => ConditionState::True,
        };
        Conditions::new().with(Durable::LogReady, log)
    }
}
