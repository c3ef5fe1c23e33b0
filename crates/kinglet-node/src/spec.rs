//! From a Pod's container to what the engine starts: pure, given what the API and the image say.
//!
//! Flow: [`downward`] about pod and node -> [`environment`] -> [`container`] puts the program together with privileges,
//! limits and mounts.

pub(crate) mod container;
pub(crate) mod downward;
pub(crate) mod environment;
pub(crate) mod resources;
pub(crate) mod security;
