//! Places that senders share: nobody takes more than a part of them, so that one that asks without end does not keep the
//! others from their answers.
//!
//! A pod's address can be believed: its wire carries no other one (`rp_filter`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// A number of places, and how many of them each sender holds.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    places_max: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    /// Only senders that hold something: at most as many as there are places.
    by_sender: HashMap<IpAddr, usize>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Share {
    of: Shares,
    sender: IpAddr,
}

impl Shares {
    /// So many places for all together.
    pub fn new(places_max: usize) -> Self {
        Self(Arc::new(Inner {
            places_max,
            held: Mutex::default(),
        }))
    }

    /// A place for this sender, if there is one and it holds fewer than `each_max`.
    pub fn take(&self, sender: IpAddr, each_max: usize) -> Option<Share> {
        let mut held = self.0.held.lock();
        let own = held.by_sender.get(&sender).copied().unwrap_or(0);
        if own >= each_max || held.all >= self.0.places_max {
            return None;
        }
        held.all += 1;
        held.by_sender.insert(sender, own + 1);
        Some(Share {
            of: self.clone(),
            sender,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.0.held.lock();
        held.all = held.all.saturating_sub(1);
        if let Some(own) = held.by_sender.get_mut(&self.sender) {
            *own -= 1;
            if *own == 0 {
                held.by_sender.remove(&self.sender);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_leaves_places_for_others() {
        let shares = Shares::new(5);
        let (greedy, modest) = (IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 3]));
        let taken: Vec<Share> = (0..10).filter_map(|_| shares.take(greedy, 3)).collect();
        assert_eq!(taken.len(), 3);
        let other: Vec<Share> = (0..10).filter_map(|_| shares.take(modest, 3)).collect();
        assert_eq!(other.len(), 2, "all together they have a bound, too");
        drop(taken);
        assert!(shares.take(modest, 3).is_some());
        drop(other);
        assert!(shares.0.held.lock().by_sender.is_empty());
        assert_eq!(shares.0.held.lock().all, 0);
    }
}
