//! A revisioned key space with watch, kept in memory and written behind to SQLite.
//!
//! Flow: `apiserver` puts and deletes -> **here**: memory and history at once, disk in the same order -> watchers.
//!
//! Always:
//! - there is one ordered history; every change has its own revision, and revisions never go back, not even over a crash;
//! - what is on disk is a prefix of that history (for the keys that go to disk at all);
//! - a [`Durability::Synced`] write that was answered with success survives a crash; one that was refused has no effect
//!   that lasts: a change that watchers may already have seen is taken back by a later change;
//! - history is bounded: reading or watching from before its beginning is a typed [`TooOld`], never a gap;
//! - SQLite is not visible from outside.

#![warn(missing_docs)]

mod disk;
mod error;
mod history;
mod lock;
mod model;
mod state;
mod store;
mod watch;
mod writer;

pub use error::{OpenError, TooOld, WriteError};
pub use model::{Durability, Entry, Expect, Options, Page};
pub use store::{Store, Write};
pub use watch::{Change, Event, Watch};
