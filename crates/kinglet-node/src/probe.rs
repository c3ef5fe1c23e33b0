//! Probes: is a container started, ready, alive?
//!
//! Flow: [`spec`] reads a container's probes (pure) -> [`schedule`] runs each of them again and again through [`prober`]
//! ([`http`], [`grpc`], [`exec`], a bare connection) -> [`thresholds`] turns results into outcomes -> the pod's worker.
//! Always: the end of a connection never hides an answer that came before it; while nobody listens a young container is
//! asked again soon instead of being counted as failed; a probe with a `host` of its own leaves through the egress.

pub(crate) mod connect;
pub(crate) mod exec;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod prober;
pub(crate) mod schedule;
pub(crate) mod spec;
pub(crate) mod stream;
pub(crate) mod thresholds;
pub(crate) mod tls;

pub(crate) use spec::{ProbeSpec, ProbeType};
