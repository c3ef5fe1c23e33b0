//! The data plane from outside: real sockets, fake containers, a fake control plane.

#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn peers, measure real time and read where to find programs"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop where it is"
)]

mod bodies;
mod breaks;
mod chain;
mod cold_start;
mod connections;
mod draining;
mod half_closed;
mod heads;
mod https;
mod lifecycle;
mod limits;
mod local;
mod probe;
mod protocols;
mod request_log;
mod roles;
mod routing;
mod services;
mod stats;
mod timeouts;
mod wake;
mod world;
