//! The data plane from outside: real sockets, fake containers, a fake control plane.

mod bodies;
mod cluster;
mod limits;
mod lifecycle;
mod protocols;
mod routing;
mod timeouts;
mod wake;
mod world;
