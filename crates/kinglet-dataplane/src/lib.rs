//! Gateway, activator and queue-proxy in one: accepts requests and forwards each to a container with a free slot.
//!
//! Flow: [`listen`] accepts -> `gateway` finds the route (`decide::route`) -> `breaker` gives the request a slot on a ready
//! container or lets it wait, poking the autoscaler once -> `attempt` sends it over a connection to that container ->
//! `response_body` streams the response back; its end releases the slot and the meter knows how long it was held.
//! Control: `feed::Update` in, `feed::Report` out, both over bounded channels that the root connects.
//!
//! Always:
//! - no Kubernetes client and no Knative kind: finished snapshots come in, numbers go out;
//! - a slot is the right to one request on one container: never more of them than `containerConcurrency`, and it is
//!   released on every way out (response complete, client gone, timeout, panic);
//! - a request that has reached no container yet is never failed because a container went away;
//! - bodies are streamed, never collected; every queue, wait and pool has a bound, all of them in [`Options`].

mod plane;

pub mod activator;
mod admin;
pub mod feed;
pub mod queue;

mod listen;

mod gateway;
mod headers;
mod local;
mod routes;

mod breaker;
mod clusters;

mod attempt;
mod connect;
mod pool;
mod request_body;
mod response_body;
mod tunnel;

mod metrics;
mod options;
mod probe;
mod report;
mod request_log;
mod response;
mod role;
mod tls;
mod trace;

pub mod stats;

pub use listen::Listener;
pub use local::LocalService;
pub use metrics::{MetricsOptions, StatConnection};
pub use options::Options;
pub use plane::{Cut, Dataplane, Handle};
pub use probe::{GatewayAnswer, GatewayProber};
pub use request_log::RequestLogEntry;
pub use role::{Health, Role};
pub use trace::ColdStart;
