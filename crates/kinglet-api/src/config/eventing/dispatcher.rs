//! `config-imc-event-dispatcher`: connections that a dispatcher keeps open.

use crate::config::{Data, read};

/// `config-imc-event-dispatcher`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDispatcher {
    /// Idle connections in all.
    pub max_idle_connections: i64,
    /// Idle connections to one host.
    pub max_idle_connections_per_host: i64,
}

impl Default for EventDispatcher {
    fn default() -> Self {
        Self {
            max_idle_connections: 1000,
            max_idle_connections_per_host: 100,
        }
    }
}

impl EventDispatcher {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let or = Self::default();
        Ok(Self {
            max_idle_connections: read::int(
                data,
                &["MaxIdleConnections"],
                32,
                or.max_idle_connections,
            )?,
            max_idle_connections_per_host: read::int(
                data,
                &["MaxIdleConnectionsPerHost"],
                32,
                or.max_idle_connections_per_host,
            )?,
        })
    }
}
