//! `config-logging`: how loud components are.

use std::collections::BTreeMap;

use super::Data;

const LEVELS: [&str; 8] = [
    "debug", "info", "warn", "warning", "error", "dpanic", "panic", "fatal",
];

/// `config-logging`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The zap configuration, as it stands; handed to the queue.
    pub zap_logger_config: String,
    /// Component to level.
    pub levels: BTreeMap<String, String>,
}

impl Logging {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let mut levels = BTreeMap::new();
        for (key, value) in data {
            let Some(component) = key
                .strip_prefix("loglevel.")
                .filter(|component| !component.is_empty())
            else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            if !LEVELS.contains(&value.to_ascii_lowercase().as_str()) {
                return Err(format!("unrecognized level: {}", crate::go::quote(value)));
            }
            levels.insert(component.to_owned(), value.to_ascii_lowercase());
        }
        Ok(Self {
            zap_logger_config: data.get("zap-logger-config").cloned().unwrap_or_default(),
            levels,
        })
    }

    /// Level of a component, if one is set.
    pub fn level(&self, component: &str) -> Option<&str> {
        self.levels.get(component).map(String::as_str)
    }
}
