//! Statistics between processes: an activator's socket to the autoscaler, the autoscaler's end of it, and the scraping
//! of queue-proxies (spec/cluster.md 3.2 to 3.4).
//!
//! Flow: [`StatClient`] takes the reports of a data plane -> binary frames -> [`serve`] -> reports for the autoscaler;
//! [`Scraper`] asks queue-proxies and answers with one statistic for all of them. The bytes are `kinglet_decide::wire`.
//! Always: a statistic that cannot be sent now is dropped, since the next one is better; a request that waits for a pod
//! is told again until somebody has heard it; what a peer sends is bounded before it is read.

mod client;
mod outbox;
mod scrape;
mod server;

pub use client::{StatClient, StatClientOptions};
pub use scrape::{QueueProxy, ScrapeError, Scraper};
pub use server::serve;

use std::hash::{BuildHasher as _, RandomState};

/// Longest frame: 4,096 entries with every name as long as Kubernetes allows make half of it.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// A random number, good enough to spread retries and to choose pods.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
