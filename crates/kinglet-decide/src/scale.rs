//! How many containers a revision deserves: Knative's pod autoscaler as arithmetic.
//!
//! Flow: `dataplane` counts requests -> [`window`] averages them -> [`autoscaler`] turns averages into a
//! desired scale -> [`bounds`] turns the desired scale into a decision (limits, scale to zero) -> [`activity`] and [`path`]
//! say what the PodAutoscaler and its ServerlessService show.
//! Always: no clock, no randomness, no IO. Time is a [`Moment`] handed in; equal inputs give equal
//! answers; no answer is negative, NaN or above its maximum.

pub mod activity;
pub mod autoscaler;
pub mod bounds;
pub mod moment;
pub mod path;
pub mod sample;
pub mod scrape;
pub mod subset;
pub mod target;
pub mod window;

pub use autoscaler::{Autoscaler, DeciderSpec, ObservedMetrics, ScaleResult};
pub use moment::Moment;
