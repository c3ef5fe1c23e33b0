//! The store against a small registry on loopback, archives, samples, restarts.

#![expect(
    clippy::disallowed_methods,
    reason = "the small registry is a task of the test"
)]

#[path = "it/archives.rs"]
mod archives;
#[path = "it/authorities.rs"]
mod authorities;
#[path = "it/content.rs"]
mod content;
#[path = "it/pulls.rs"]
mod pulls;
#[path = "it/refusals.rs"]
mod refusals;
#[path = "it/registry.rs"]
mod registry;
#[path = "it/samples.rs"]
mod samples;
#[path = "it/sharing.rs"]
mod sharing;
#[path = "it/store.rs"]
mod store;
