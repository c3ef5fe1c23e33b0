//! `sources.knative.dev`: PingSource, ApiServerSource, ContainerSource, SinkBinding, IntegrationSource.

mod api_server_source;
mod container_source;
mod integration_source;
mod ping_source;
mod sink_binding;

pub use api_server_source::{
    ApiServerSource, ApiServerSourceSpec, ApiServerSourceStatus, ApiVersionKind,
    ApiVersionKindSelector, Mode,
};
pub use container_source::{ContainerSource, ContainerSourceSpec, ContainerSourceStatus};
pub use integration_source::{
    IntegrationSource, IntegrationSourceSpec, IntegrationSourceStatus, Timer,
};
pub use ping_source::{PingSource, PingSourceSpec, PingSourceStatus, PingSourceV1Beta2};
pub use sink_binding::{SinkBinding, SinkBindingSpec, SinkBindingStatus, Subject};

/// API group of these kinds.
pub const GROUP: &str = "sources.knative.dev";
