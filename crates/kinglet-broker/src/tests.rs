//! The data plane in paused time, with sinks that follow a script; every test with the short ways and without.

mod access;
mod delivery;
mod durable;
mod ingress;
mod sockets;
mod world;
