//! Gateway, activator and queue-proxy in one: takes requests and brings each to a container with a free slot.
//!
//! Flow: [`listen`] accepts -> `gateway` finds the route (`decide::route`) -> `lobby` seats the request on a ready
//! container or lets it wait, poking the autoscaler once -> `exchange` forwards it over a connection of that container ->
//! `download` streams the answer back; its end frees the seat and the meter knows how long it was taken.
//! Control: `feed::Update` in, `feed::Report` out, both over bounded channels that the root connects.
//!
//! Always:
//! - no Kubernetes client and no Knative kind: finished snapshots come in, numbers go out;
//! - a seat is a slot on one container: never more of them than `containerConcurrency`, and it is given back on every
//!   way out (answer complete, client gone, timeout, panic);
//! - a request that has reached no container yet is never failed because a container went away;
//! - bodies are streamed, never collected; every queue, wait and pool has a bound, all of them in [`Options`].

mod answer;
mod connect;
mod download;
mod exchange;
mod gateway;
mod headers;
mod link;
mod listen;
mod lobby;
mod options;
mod places;
mod plane;
mod report;
mod routes;
mod tls;
mod trace;
mod tunnel;
mod upload;

pub use listen::Listener;
pub use options::Options;
pub use plane::{Dataplane, Handle};
pub use tls::Certificates;
pub use trace::ColdStart;
