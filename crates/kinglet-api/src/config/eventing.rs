//! The ConfigMaps of `knative-eventing`, read into types; [`EventingConfigs`] is all of them at one moment.
//!
//! As in [`crate::config`]: an absent map means what is shipped, a map that does not parse leaves the last good value in force
//! and is reported. Knative's webhook judges four of them ([`check`]); what it lets into the others is reported, not refused.

mod broker_defaults;
mod channel_defaults;
mod dispatcher;
mod features;
mod mapping;
mod observability;
mod ping;
mod sugar;

pub use broker_defaults::{BrokerDefaults, DefaultBrokerConfig};
pub use channel_defaults::{ChannelDefaults, broker_channel_template};
pub use dispatcher::EventDispatcher;
pub use features::{AuthorizationMode, Features, TransportEncryption};
pub use mapping::{KReferenceMapping, Mapped};
pub use observability::EventingObservability;
pub use ping::PingDefaults;
pub use sugar::Sugar;

use super::{Data, LeaderElection, Logging, Problem};

/// Namespace of the ConfigMaps.
pub const SYSTEM_NAMESPACE: &str = "knative-eventing";
/// The ConfigMap that Brokers are configured with where nothing else is said.
pub const BROKER_CHANNEL: &str = "config-br-default-channel";

/// Names of the ConfigMaps read here, besides those that Brokers name themselves ([`broker_channel_template`]).
pub const NAMES: [&str; 10] = [
    "config-br-defaults",
    "config-features",
    "config-imc-event-dispatcher",
    "config-kreference-mapping",
    "config-leader-election",
    "config-logging",
    "config-observability",
    "config-ping-defaults",
    "config-sugar",
    "default-ch-webhook",
];

/// All configuration of Eventing at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventingConfigs {
    /// `config-br-defaults`.
    pub broker_defaults: BrokerDefaults,
    /// `default-ch-webhook`.
    pub channel_defaults: ChannelDefaults,
    /// `config-features`.
    pub features: Features,
    /// `config-imc-event-dispatcher`.
    pub dispatcher: EventDispatcher,
    /// `config-kreference-mapping`.
    pub mapping: KReferenceMapping,
    /// `config-leader-election`.
    pub leader_election: LeaderElection,
    /// `config-logging`.
    pub logging: Logging,
    /// `config-observability`.
    pub observability: EventingObservability,
    /// `config-ping-defaults`.
    pub ping: PingDefaults,
    /// `config-sugar`.
    pub sugar: Sugar,
}

impl EventingConfigs {
    /// Reads all maps that `data` finds; those it does not find are as shipped.
    pub fn from_maps<'a>(data: impl Fn(&str) -> Option<&'a Data>) -> (Self, Vec<Problem>) {
        Self::default().updated(data)
    }

    /// Reads all maps anew. One that does not parse keeps the value it had here.
    pub fn updated<'a>(&self, data: impl Fn(&str) -> Option<&'a Data>) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        macro_rules! parse {
            ($map:literal, $field:ident, $parse:expr) => {
                match data($map).map($parse) {
                    None => Default::default(),
                    Some(Ok(good)) => good,
                    Some(Err(message)) => {
                        problems.push(Problem { map: $map, message });
                        self.$field.clone()
                    }
                }
            };
        }
        let configs = Self {
            broker_defaults: parse!("config-br-defaults", broker_defaults, BrokerDefaults::parse),
            channel_defaults: parse!(
                "default-ch-webhook",
                channel_defaults,
                ChannelDefaults::parse
            ),
            features: parse!("config-features", features, |data| Ok::<_, String>(
                Features::parse(data)
            )),
            dispatcher: parse!(
                "config-imc-event-dispatcher",
                dispatcher,
                EventDispatcher::parse
            ),
            mapping: parse!(
                "config-kreference-mapping",
                mapping,
                KReferenceMapping::parse
            ),
            leader_election: parse!(
                "config-leader-election",
                leader_election,
                LeaderElection::parse
            ),
            logging: parse!("config-logging", logging, Logging::parse),
            observability: parse!(
                "config-observability",
                observability,
                EventingObservability::parse
            ),
            ping: parse!("config-ping-defaults", ping, PingDefaults::parse),
            sugar: parse!("config-sugar", sugar, Sugar::parse),
        };
        (configs, problems)
    }
}

/// Whether a ConfigMap of that name may hold `data`, as far as Knative's webhook looks.
pub fn check(map: &str, data: &Data) -> Result<(), String> {
    match map {
        "config-leader-election" => LeaderElection::parse(data).map(drop),
        "config-logging" => Logging::parse(data).map(drop),
        "config-observability" => EventingObservability::parse(data).map(drop),
        "config-sugar" => Sugar::parse(data).map(drop),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
