//! The lobby under random arrivals, departures, changes of mind and changes of containers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use kinglet_decide::feed::Endpoint;
use proptest::prelude::*;

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
    lobby: Arc<Lobby>,
    reports: mpsc::Receiver<Report>,
    concurrency: u32,
    seated: Vec<Visit>,
    waiting: Vec<Ticket>,
}

impl World {
    fn new(concurrency: u32) -> Self {
        let (sender, reports) = mpsc::channel(1000);
        let options = Options {
            queue_depth: 5,
            ..Options::default()
        };
        let lobby = Lobby::new(
            Key::new("ns", "rev"),
            Arc::new(Wiring::new(options, sender)),
        );
        Self {
            lobby,
            reports,
            concurrency,
            seated: Vec::new(),
            waiting: Vec::new(),
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            revision: true,
            concurrency: self.concurrency,
            ..Facts::of_service(Protocol::Http1)
        }
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Arrive => self.take(self.lobby.enter()),
            Step::Leave(at) if !self.seated.is_empty() => {
                drop(self.seated.swap_remove(at % self.seated.len()))
            }
            Step::GiveUp(at) if !self.waiting.is_empty() => {
                drop(self.waiting.remove(at % self.waiting.len()))
            }
            Step::Exchange(at) if !self.seated.is_empty() => {
                let mut visit = self.seated.swap_remove(at % self.seated.len());
                let other = visit.exchange();
                drop(visit);
                match other {
                    Entered::Waiting(ticket) => self.waiting.insert(0, ticket),
                    other => self.take(other),
                }
            }
            Step::Describe(there) => {
                let endpoints: Vec<Endpoint> = (0..CONTAINERS)
                    .filter(|at| there[*at])
                    .map(endpoint)
                    .collect();
                self.lobby.describe(self.facts(), &endpoints);
            }
            Step::Drain(at) => {
                self.lobby.close_address(endpoint(*at).address.ip());
            }
            Step::Forget => self.lobby.forget(),
            Step::Leave(_) | Step::GiveUp(_) | Step::Exchange(_) => {}
        }
    }

    fn take(&mut self, entered: Entered) {
        match entered {
            Entered::Seated(visit) => self.seated.push(visit),
            Entered::Waiting(ticket) => self.waiting.push(ticket),
            Entered::Full => assert!(self.waiting.len() >= 5),
        }
    }

    /// Collects what was granted; answers which places in the queue it came from.
    fn collect(&mut self) -> Vec<usize> {
        let mut context = Context::from_waker(Waker::noop());
        let mut granted = Vec::new();
        let mut kept = Vec::new();
        for (place, mut ticket) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            match Pin::new(&mut ticket).poll(&mut context) {
                Poll::Pending => kept.push(ticket),
                Poll::Ready(Some(visit)) => {
                    granted.push(place);
                    self.seated.push(visit);
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
            let inner = world.lobby.inner.lock();
            prop_assert_eq!(inner.meter.in_flight() as usize, world.seated.len() + world.waiting.len());
            prop_assert_eq!(inner.waiting, world.waiting.len());
            let open = || inner.containers.iter().filter(|container| !container.is_closing());
            for container in &inner.containers {
                let here = world.seated.iter().filter(|visit| Arc::ptr_eq(visit.container(), container)).count();
                prop_assert!(concurrency == 0 || here <= concurrency as usize);
            }
            if !world.waiting.is_empty() {
                prop_assert!(open().all(|container| container.free(concurrency).is_none()), "a free seat while somebody waits");
                if inner.facts.is_some() && open().count() == 0 {
                    prop_assert!(inner.poked_at.is_some(), "somebody waits and nobody was told");
                }
            }
        }
        world.seated.clear();
        world.collect();
        world.waiting.clear();
        world.seated.clear();
        prop_assert_eq!(world.lobby.in_flight(), 0);
        world.reports.close();
    }
}
