//! `serving.knative.dev/v1`: Service, Configuration, Revision, Route.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::duck::{Addressable, Status};
use crate::kind::{is_default, kind};

/// API group of these kinds.
pub const GROUP: &str = "serving.knative.dev";
/// Their only version.
pub const VERSION: &str = "v1";
/// Port a container listens on when its spec names none.
pub const DEFAULT_USER_PORT: u16 = 8080;

kind!(
    /// What a user writes: a template for revisions and how traffic is spread over them.
    Service, "services", "serving.knative.dev", "v1", ServiceSpec, ServiceStatus
);
kind!(
    /// The template whose every change makes a new Revision.
    Configuration, "configurations", "serving.knative.dev", "v1", ConfigurationSpec, ConfigurationStatus
);
kind!(
    /// An immutable snapshot of code and configuration.
    Revision, "revisions", "serving.knative.dev", "v1", RevisionSpec, RevisionStatus
);
kind!(
    /// A name that spreads requests over Revisions.
    Route, "routes", "serving.knative.dev", "v1", RouteSpec, RouteStatus
);

/// Configuration spec and Route spec in one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// Template of the revisions.
    pub template: RevisionTemplate,
    /// How traffic is spread; empty means everything to the latest ready revision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

/// Status of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Newest revision that became ready.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub latest_ready_revision_name: String,
    /// Newest revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub latest_created_revision_name: String,
    /// Public URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// In-cluster address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Addressable>,
    /// Traffic as it flows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

/// Spec of a Configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationSpec {
    /// Template of the revisions.
    pub template: RevisionTemplate,
}

/// Status of a Configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigurationStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Newest revision that became ready.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub latest_ready_revision_name: String,
    /// Newest revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub latest_created_revision_name: String,
}

/// What a Revision is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionTemplate {
    /// Name (when brought by the user), labels and annotations of the Revision.
    pub metadata: ObjectMeta,
    /// Spec of the Revision.
    pub spec: RevisionSpec,
}

/// Spec of a Revision: a pod spec and how requests are handed to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionSpec {
    /// The pod's spec, inlined.
    #[serde(flatten)]
    pub pod: PodSpec,
    /// Requests at once per container; 0 means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_concurrency: Option<i64>,
    /// Longest duration of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i64>,
    /// Longest wait for the first byte of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_start_timeout_seconds: Option<i64>,
    /// Longest silence between bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<i64>,
}

impl RevisionSpec {
    /// The container that gets the requests: the only one, or the one with ports.
    pub fn serving_container(&self) -> Option<&Container> {
        match self.pod.containers.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|container| {
                container
                    .ports
                    .as_ref()
                    .is_some_and(|ports| !ports.is_empty())
            }),
        }
    }

    /// The other containers.
    pub fn sidecars(&self) -> impl Iterator<Item = &Container> {
        let serving = self.serving_container().map(std::ptr::from_ref);
        self.pod
            .containers
            .iter()
            .filter(move |container| Some(std::ptr::from_ref(*container)) != serving)
    }

    /// Port that the serving container listens on. Go clients write a port that was not given as 0.
    pub fn user_port(&self) -> u16 {
        self.first_port()
            .and_then(|port| u16::try_from(port.container_port).ok())
            .filter(|port| *port != 0)
            .unwrap_or(DEFAULT_USER_PORT)
    }

    /// Protocol of the serving container: `h2c` if its port is named so.
    pub fn protocol(&self) -> crate::networking::Protocol {
        match self.first_port().and_then(|port| port.name.as_deref()) {
            Some("h2c") => crate::networking::Protocol::H2c,
            _ => crate::networking::Protocol::Http1,
        }
    }

    fn first_port(&self) -> Option<&k8s_openapi::api::core::v1::ContainerPort> {
        self.serving_container()?.ports.as_ref()?.first()
    }
}

/// Status of a Revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RevisionStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Where its logs can be read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log_url: String,
    /// Images by container, resolved to digests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    /// The same for init containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Pods that are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_replicas: Option<i32>,
    /// Pods that are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_replicas: Option<i32>,
}

/// The resolved image of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name of the container.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Image by digest; empty when its registry is exempt from resolution.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_digest: String,
}

/// Spec of a Route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteSpec {
    /// How traffic is spread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

/// Status of a Route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Public URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// In-cluster address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Addressable>,
    /// Traffic as it flows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficTarget>,
}

/// One share of the traffic. Empty strings mean "not set", as in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficTarget {
    /// Name of a URL of its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// A fixed revision.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision_name: String,
    /// The latest ready revision of a Configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub configuration_name: String,
    /// Whether the latest ready revision is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_revision: Option<bool>,
    /// Share of the traffic, 0 to 100; unset means 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<i64>,
    /// URL of the tag (status only).
    #[serde(skip_serializing_if = "is_default")]
    pub url: Option<String>,
}
