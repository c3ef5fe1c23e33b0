//! Which pod addresses are in use.

use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The addresses of one subnet; the first is the gateway's.
#[derive(Clone, Debug)]
pub(crate) struct Addresses(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    base: u32,
    used: Vec<bool>,
    next: usize,
}

/// An address in use; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    address: Ipv4Addr,
    index: usize,
    owner: Addresses,
}

impl Addresses {
    pub(crate) fn new(subnet: Ipv4Addr, bits: u8) -> Self {
        // Without network address, gateway and broadcast address.
        let count = (1_usize << (32 - bits)) - 3;
        Self(Arc::new(Mutex::new(State {
            base: u32::from(subnet) + 2,
            used: vec![false; count],
            next: 0,
        })))
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.lock().used.len()
    }

    /// The next free one in turn: an address rests as long as possible before another pod gets it, so that nobody who
    /// still remembers the former pod talks to a stranger.
    pub(crate) fn lease(&self) -> Option<Lease> {
        let mut state = self.0.lock();
        let count = state.used.len();
        let index = (0..count)
            .map(|step| (state.next + step) % count)
            .find(|index| !state.used[*index])?;
        state.used[index] = true;
        state.next = (index + 1) % count;
        let address =
            Ipv4Addr::from(state.base + u32::try_from(index).expect("at most 2^24 addresses"));
        Some(Lease {
            address,
            index,
            owner: self.clone(),
        })
    }
}

impl Lease {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.owner.0.lock().used[self.index] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_come_back() {
        let addresses = Addresses::new(Ipv4Addr::new(10, 0, 0, 0), 29);
        assert_eq!(addresses.capacity(), 5);
        let first = addresses.lease().expect("free");
        assert_eq!(first.address(), Ipv4Addr::new(10, 0, 0, 2));
        drop(first);
        let rest: Vec<_> = (0..5).map(|_| addresses.lease().expect("free")).collect();
        assert_eq!(
            rest[0].address(),
            Ipv4Addr::new(10, 0, 0, 3),
            "a returned address rests"
        );
        assert_eq!(rest[4].address(), Ipv4Addr::new(10, 0, 0, 2));
        assert!(addresses.lease().is_none());
        drop(rest);
        assert!(addresses.lease().is_some());
    }
}
