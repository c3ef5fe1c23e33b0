//! What tests and chores need to drive the real binary from outside. Nothing in it ships.
//!
//! Flow: a test starts an [`Instance`] on free ports in a temporary folder -> speaks to it as a user's client would
//! ([`Api`], [`kubectl`], [`load`]) -> dropping it ends the process by its id and removes the folder.
//! Always: no sleeping for luck; [`until`] awaits a condition with a deadline and says what it last saw.

pub mod api;
pub mod cluster;
pub mod component;
pub mod cycles;
pub mod footprint;
pub mod instance;
pub mod kubectl;
pub mod load;
pub mod until;
pub mod web;

pub use api::Api;
pub use instance::{Instance, Setup, Shape};
pub use until::until;
