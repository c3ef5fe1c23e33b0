//! Rules of PingSources.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Judge;
use crate::admission::look;
use crate::cron::{InvalidSchedule, Schedule};
use crate::field::Findings;

impl Judge<'_> {
    pub(super) fn ping_source(&self) -> Findings {
        let mut found = self.source();
        let schedule = look::text(self.spec, "schedule");
        if let Err(error) = Schedule::parse(schedule, look::text(self.spec, "timezone")) {
            let field = match error {
                InvalidSchedule::TimeZone(_) => "timezone",
                InvalidSchedule::Fields(_) => "schedule",
            };
            found.add(Findings::invalid(error, field));
        }
        found.add(self.data());
        found.under("spec")
    }

    fn data(&self) -> Findings {
        let (data, encoded) = (
            look::text(self.spec, "data"),
            look::text(self.spec, "dataBase64"),
        );
        match (data.is_empty(), encoded.is_empty()) {
            (false, false) => Findings::several_of(&["data", "dataBase64"]),
            (true, true) => Findings::none(),
            (false, true) => {
                let mut found = self.length(data, "data");
                found.add(self.json(data.as_bytes(), "data"));
                found
            }
            (true, false) => {
                let mut found = self.length(encoded, "dataBase64");
                match STANDARD.decode(encoded) {
                    Ok(decoded) => found.add(self.json(&decoded, "dataBase64")),
                    Err(error) => found.add(Findings::invalid(error, "dataBase64")),
                }
                found
            }
        }
    }

    fn length(&self, text: &str, field: &str) -> Findings {
        let limit = self.configs.ping.data_max_size;
        let over = usize::try_from(limit).is_ok_and(|limit| text.len() > limit);
        if !over {
            return Findings::none();
        }
        Findings::invalid(
            format!(
                "the {field} length of {} bytes exceeds limit set at {limit}.",
                text.len()
            ),
            field,
        )
    }

    /// Data that is called JSON is a JSON object.
    fn json(&self, data: &[u8], field: &str) -> Findings {
        if look::text(self.spec, "contentType") != "application/json" {
            return Findings::none();
        }
        match serde_json::from_slice::<Map<String, Value>>(data) {
            Ok(_) => Findings::none(),
            Err(error) => Findings::invalid(error, field),
        }
    }
}
