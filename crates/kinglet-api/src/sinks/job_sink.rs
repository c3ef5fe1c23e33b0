//! JobSink: a Job for each event.

use k8s_openapi::api::batch::v1::Job;
use serde::{Deserialize, Serialize};

use crate::duck::{AddressStatus, AppliedEventPolicyRef, Status};
use crate::kind::kind;

kind!(
    /// Runs a Job for each event.
    JobSink, "jobsinks", "sinks.knative.dev", "v1alpha1", JobSinkSpec, JobSinkStatus
);

/// Spec of a JobSink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobSinkSpec {
    /// The Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
}

/// Status of a JobSink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobSinkStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Where events are taken.
    #[serde(flatten)]
    pub addresses: AddressStatus,
    /// How its Jobs are found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// The EventPolicies that apply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AppliedEventPolicyRef>,
}

/// How the Jobs of a JobSink are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobStatus {
    /// Their labels.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
}
