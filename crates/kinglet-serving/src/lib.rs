//! Knative Serving's reconcilers: from a Service to pods and routes.
//!
//! Flow: objects in shared caches -> a pure decision per kind -> one plan of writes; the gateway's counts ->
//! [`autoscale`] -> replica counts -> ready pods -> the gateway.
//! Always: decisions are synchronous and see no clock but their argument; every write goes through the kit.

pub mod configs;

pub mod autoscale;
