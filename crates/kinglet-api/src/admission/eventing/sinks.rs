//! Rules of JobSinks and IntegrationSinks.

use serde_json::{Value, json};

use super::{Judge, sources};
use crate::admission::look;
use crate::field::Findings;

/// Levels of a log.
const LEVELS: [&str; 6] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF"];

impl Judge<'_> {
    pub(super) fn job_sink(&self) -> Findings {
        let job = look::at(self.spec, "job");
        if job.is_null() {
            return Findings::missing_one_of(&["job"]).under("spec");
        }
        let unchanged = self.old_spec() == Some(self.spec);
        if unchanged || self.review.user_is_controller {
            return Findings::none();
        }
        match (self.ask.try_job)(&self.tried(job)) {
            Ok(()) => Findings::none(),
            Err(error) => Findings::error(error, "job").under("spec"),
        }
    }

    /// The Job as it would be made for an event.
    fn tried(&self, job: &Value) -> Value {
        let mut job = job.clone();
        if let Some(fields) = job.as_object_mut() {
            fields.insert("apiVersion".to_owned(), json!("batch/v1"));
            fields.insert("kind".to_owned(), json!("Job"));
            fields.remove("status");
            let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                metadata.remove("name");
                metadata.insert(
                    "generateName".to_owned(),
                    json!(format!("{}-", self.review.name)),
                );
                metadata.insert("namespace".to_owned(), json!(self.review.namespace));
            }
        }
        job
    }

    pub(super) fn integration_sink(&self) -> Findings {
        let aws = look::at(self.spec, "aws");
        let log = look::at(self.spec, "log");
        let set = sources::integrations(aws, &["s3", "sqs", "sns"]) + usize::from(!log.is_null());
        let mut found = match set {
            0 => Findings::error("at least one sink type must be specified", "spec"),
            1 => sources::not_aws(aws, "the sink type log"),
            _ => Findings::error("only one sink type can be set", "spec"),
        };
        let level = look::text(log, "level");
        if !level.is_empty() && !LEVELS.contains(&level.to_uppercase().as_str()) {
            found.add(Findings::invalid(level, "log.level"));
        }
        found.under("spec")
    }
}
