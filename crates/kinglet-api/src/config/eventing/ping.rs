//! `config-ping-defaults`: how much data a PingSource may have.

use crate::config::{Data, read};

/// `config-ping-defaults`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingDefaults {
    /// Most bytes of data; negative means no limit.
    pub data_max_size: i64,
}

impl Default for PingDefaults {
    fn default() -> Self {
        Self { data_max_size: -1 }
    }
}

impl PingDefaults {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        read::int(data, &["data-max-size", "dataMaxSize"], 64, -1)
            .map(|data_max_size| Self { data_max_size })
    }
}
