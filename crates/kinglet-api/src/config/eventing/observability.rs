//! `config-observability` of Eventing: as Serving's, and whether a source's failed send becomes an Event.

use crate::config::{Data, Observability, read};

/// `config-observability`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventingObservability {
    /// Logs, metrics and traces.
    pub common: Observability,
    /// A failed send becomes a Warning on the source.
    pub sink_event_error_reporting: bool,
}

impl EventingObservability {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        Ok(Self {
            common: Observability::parse(data)?,
            sink_event_error_reporting: read::boolean(
                data,
                &["sink-event-error-reporting.enable"],
                false,
            )?,
        })
    }
}
