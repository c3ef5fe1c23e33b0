//! Pure serving decisions: scale, routes, splits, limits, rollout, garbage.
//!
//! Flow: facts observed by `serving` and `dataplane` -> **here** -> plans they carry out.
//! Always: no clock, no randomness, no IO, no Kubernetes types. Equal inputs give equal answers.

#![warn(missing_docs)]

pub mod assign;
pub mod balance;
pub mod call;
pub mod feed;
pub mod meter;
pub mod route;
pub mod scale;
pub mod wire;
