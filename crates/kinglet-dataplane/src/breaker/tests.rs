//! The breaker under random arrivals, departures, changes of mind and changes of containers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use kinglet_decide::feed::{Endpoint, Protocol, Report};
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;

const CONTAINERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Leave(usize),
    GiveUp(usize),
    Exchange(usize),
    Describe([bool; CONTAINERS]),
    Drain(usize),
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Arrive),
        4 => any::<usize>().prop_map(Step::Leave),
        2 => any::<usize>().prop_map(Step::GiveUp),
        1 => any::<usize>().prop_map(Step::Exchange),
        2 => any::<[bool; CONTAINERS]>().prop_map(Step::Describe),
        1 => (0..CONTAINERS).prop_map(Step::Drain),
        1 => Just(Step::Forget),
    ];
    proptest::collection::vec(step, 1..80)
}

struct World {
    breaker: Arc<Breaker>,
    reports: mpsc::Receiver<Report>,
    concurrency: u32,
    admitted: Vec<Slot>,
    waiting: Vec<Waiter>,
}

impl World {
    fn new(concurrency: u32) -> Self {
        let (sender, reports) = mpsc::channel(1000);
        let options = Options {
            queue_depth: 5,
            ..Options::default()
        };
        let breaker = Breaker::new(
            Key::new("ns", "rev"),
            Arc::new(BreakerContext::new(options, sender)),
        );
        Self {
            breaker,
            reports,
            concurrency,
            admitted: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn config(&self) -> ClusterConfig {
        ClusterConfig {
            hop: crate::role::Hop::Whole,
            concurrency: self.concurrency,
            ..ClusterConfig::of_service(Protocol::Http1)
        }
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Arrive => self.take(self.breaker.admit(false)),
            Step::Leave(at) if !self.admitted.is_empty() => {
                drop(self.admitted.swap_remove(at % self.admitted.len()))
            }
            Step::GiveUp(at) if !self.waiting.is_empty() => {
                drop(self.waiting.remove(at % self.waiting.len()))
            }
            Step::Exchange(at) if !self.admitted.is_empty() => {
                let mut slot = self.admitted.swap_remove(at % self.admitted.len());
                let other = slot.readmit();
                drop(slot);
                match other {
                    Admission::Queued(waiter) => self.waiting.insert(0, waiter),
                    other => self.take(other),
                }
            }
            Step::Describe(there) => {
                let endpoints: Vec<Endpoint> = (0..CONTAINERS)
                    .filter(|at| there[*at])
                    .map(endpoint)
                    .collect();
                self.breaker.update(self.config(), &endpoints);
            }
            Step::Drain(at) => {
                self.breaker.drain_address(endpoint(*at).address.ip());
            }
            Step::Forget => self.breaker.remove(),
            Step::Leave(_) | Step::GiveUp(_) | Step::Exchange(_) => {}
        }
    }

    fn take(&mut self, entered: Admission) {
        match entered {
            Admission::Admitted(slot) => self.admitted.push(slot),
            Admission::Queued(waiter) => self.waiting.push(waiter),
            Admission::QueueFull => assert!(self.waiting.len() >= 5),
            Admission::Removed => assert!(self.breaker.inner.lock().removed),
        }
    }

    /// Collects what was granted; returns the queue positions it came from.
    fn collect(&mut self) -> Vec<usize> {
        let mut context = Context::from_waker(Waker::noop());
        let mut granted = Vec::new();
        let mut kept = Vec::new();
        for (place, mut waiter) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            match Pin::new(&mut waiter).poll(&mut context) {
                Poll::Pending => kept.push(waiter),
                Poll::Ready(Some(slot)) => {
                    granted.push(place);
                    self.admitted.push(slot);
                }
                Poll::Ready(None) => {}
            }
        }
        self.waiting = kept;
        granted
    }
}

fn endpoint(at: usize) -> Endpoint {
    Endpoint {
        pod: format!("pod-{at}").into(),
        address: format!("10.0.0.{at}:80").parse().expect("an address"),
    }
}

proptest! {
    #[test]
    fn seats_are_never_exceeded_lost_or_left_empty(concurrency in 0u32..4, steps in steps()) {
        let mut world = World::new(concurrency);
        for step in &steps {
            world.act(step);
            let granted = world.collect();
            prop_assert!(granted.iter().copied().eq(0..granted.len()), "first come, first served: {granted:?} after {step:?}");
            let inner = world.breaker.inner.lock();
            prop_assert_eq!(inner.meter.in_flight() as usize, world.admitted.len() + world.waiting.len());
            prop_assert_eq!(inner.waiting, world.waiting.len());
            let open = || inner.containers.iter().filter(|container| !container.is_draining());
            for slot in &world.admitted {
                let known = inner.containers.iter().chain(&inner.draining).any(|container| Arc::ptr_eq(container, slot.container()));
                prop_assert!(known, "a container is forgotten before its last request has ended");
            }
            prop_assert!(inner.draining.iter().all(|container| container.is_draining() && container.slots_in_use() > 0));
            for container in inner.containers.iter().chain(&inner.draining) {
                let here = world.admitted.iter().filter(|slot| Arc::ptr_eq(slot.container(), container)).count();
                prop_assert!(concurrency == 0 || here <= concurrency as usize);
            }
            if !world.waiting.is_empty() {
                prop_assert!(open().all(|container| container.free(concurrency).is_none()), "a free slot while somebody waits");
                if inner.config.is_some() && open().count() == 0 {
                    prop_assert!(inner.poked_at.is_some(), "somebody waits and nobody was told");
                }
            }
        }
        world.admitted.clear();
        world.collect();
        world.waiting.clear();
        world.admitted.clear();
        prop_assert_eq!(world.breaker.in_flight(), 0);
        world.reports.close();
    }
}
