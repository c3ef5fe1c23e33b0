//! `sinks.knative.dev`: JobSink and IntegrationSink.

mod integration_sink;
mod job_sink;

pub use integration_sink::{IntegrationSink, IntegrationSinkSpec, IntegrationSinkStatus, Log};
pub use job_sink::{JobSink, JobSinkSpec, JobSinkStatus, JobStatus};

/// API group of these kinds.
pub const GROUP: &str = "sinks.knative.dev";
