//! The breaker under loom: small models whose threads are run in every order that the bound on preemptions allows.
//!
//! A slot that is not given back, a wake-up that is lost or a waiter that is granted twice ends a model in a deadlock or in
//! a count that is not zero. Built with `--cfg kinglet_loom`; `cargo xtask soak loom` runs them for longer.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use kinglet_decide::feed::{Endpoint, Key, Protocol, Report};
use loom::future::block_on;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use tokio::sync::mpsc;

use super::*;

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 80))
}

fn one_container() -> [Endpoint; 1] {
    [Endpoint {
        pod: "pod".into(),
        address: address(),
    }]
}

fn config() -> ClusterConfig {
    ClusterConfig {
        hop: crate::role::Hop::Whole,
        concurrency: 1,
        ..ClusterConfig::of_service(Protocol::Http1)
    }
}

/// A breaker of a Revision with one slot on each of `endpoints`, and what it reports.
fn breaker(endpoints: &[Endpoint]) -> (Arc<Breaker>, mpsc::Receiver<Report>) {
    let (sender, reports) = mpsc::channel(16);
    let context = Arc::new(BreakerContext::new(Options::default(), sender));
    let breaker = Breaker::new(Key::new("ns", "rev"), context);
    breaker.update(config(), endpoints);
    (breaker, reports)
}

fn slot(breaker: &Arc<Breaker>) -> Option<Slot> {
    match breaker.admit(false) {
        Admission::Admitted(slot) => Some(slot),
        Admission::Queued(waiter) => block_on(waiter),
        Admission::QueueFull => panic!("the queue is not full"),
        Admission::Removed => None,
    }
}

/// Nothing is held, nobody waits, and the next request is admitted at once.
fn is_at_rest(breaker: &Arc<Breaker>) {
    assert_eq!(breaker.in_flight(), 0);
    assert_eq!(breaker.inner.lock().waiting, 0);
    assert!(matches!(breaker.admit(false), Admission::Admitted(_)));
}

#[test]
fn the_limit_holds_and_every_waiter_is_admitted() {
    loom::model(|| {
        let (breaker, _reports) = breaker(&one_container());
        let running = Arc::new(AtomicU32::new(0));
        let request = |breaker: Arc<Breaker>, running: Arc<AtomicU32>| {
            let slot = slot(&breaker).expect("a slot");
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            running.fetch_sub(1, Ordering::SeqCst);
            drop(slot);
        };
        let others = [(); 2].map(|()| {
            let (breaker, running) = (breaker.clone(), running.clone());
            thread::spawn(move || request(breaker, running))
        });
        request(breaker.clone(), running);
        for other in others {
            other.join().unwrap();
        }
        is_at_rest(&breaker);
    });
}

#[test]
fn who_arrives_as_the_first_container_comes_is_admitted_and_has_poked() {
    loom::model(|| {
        let (breaker, mut reports) = breaker(&[]);
        let waiter = {
            let breaker = breaker.clone();
            thread::spawn(move || drop(slot(&breaker).expect("a slot")))
        };
        breaker.update(config(), &one_container());
        waiter.join().unwrap();
        // A request that found no container has poked, and once only.
        let pokes = std::iter::from_fn(|| reports.try_recv().ok()).count();
        assert!(pokes <= 1, "{pokes}");
        is_at_rest(&breaker);
    });
}

#[test]
fn who_gives_up_as_it_is_granted_a_slot_gives_it_back() {
    loom::model(|| {
        let (breaker, _reports) = breaker(&one_container());
        let held = slot(&breaker).expect("a slot");
        let Admission::Queued(mut waiter) = breaker.admit(false) else {
            panic!("the only slot is in use");
        };
        let gives_up = thread::spawn(move || {
            let polled = Pin::new(&mut waiter).poll(&mut Context::from_waker(Waker::noop()));
            drop(waiter);
            if let Poll::Ready(granted) = polled {
                drop(granted);
            }
        });
        let next = {
            let breaker = breaker.clone();
            thread::spawn(move || drop(slot(&breaker).expect("a slot")))
        };
        drop(held);
        gives_up.join().unwrap();
        next.join().unwrap();
        is_at_rest(&breaker);
    });
}

#[test]
fn who_could_not_reach_its_container_is_admitted_again() {
    loom::model(|| {
        let (breaker, _reports) = breaker(&one_container());
        let other = {
            let breaker = breaker.clone();
            thread::spawn(move || drop(slot(&breaker).expect("a slot")))
        };
        let mut held = slot(&breaker).expect("a slot");
        match held.readmit() {
            Admission::Admitted(again) => held = again,
            Admission::Queued(waiter) => held = block_on(waiter).expect("a slot"),
            Admission::QueueFull | Admission::Removed => panic!("it keeps its place"),
        }
        drop(held);
        other.join().unwrap();
        is_at_rest(&breaker);
    });
}

#[test]
fn a_pod_that_ends_hears_of_its_last_request() {
    loom::model(|| {
        let (breaker, _reports) = breaker(&one_container());
        let request = {
            let breaker = breaker.clone();
            thread::spawn(move || match breaker.admit(false) {
                Admission::Admitted(slot) => drop(slot),
                Admission::Queued(waiter) => drop(waiter),
                Admission::QueueFull | Admission::Removed => panic!("neither full nor removed"),
            })
        };
        for container in breaker.drain_address(address().ip()) {
            block_on(container.drained());
            assert_eq!(container.slots_in_use(), 0);
        }
        request.join().unwrap();
        assert!(
            matches!(breaker.admit(false), Admission::Queued(_)),
            "no new slot on it"
        );
    });
}

#[test]
fn who_waits_for_a_backend_that_is_removed_is_told() {
    loom::model(|| {
        let (breaker, _reports) = breaker(&[]);
        let waiter = {
            let breaker = breaker.clone();
            thread::spawn(move || assert!(slot(&breaker).is_none()))
        };
        breaker.remove();
        waiter.join().unwrap();
        assert_eq!(breaker.in_flight(), 0);
        assert_eq!(breaker.inner.lock().waiting, 0);
    });
}
