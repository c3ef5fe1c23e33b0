//! The data plane from outside: real sockets, fake containers, a fake control plane.

mod bodies;
mod cluster;
mod lifecycle;
mod limits;
mod protocols;
mod routing;
mod timeouts;
mod wake;
mod world;
