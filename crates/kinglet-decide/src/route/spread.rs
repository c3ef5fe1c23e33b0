//! An even spread over weights: no dice, no lock.
//!
//! Guarantee: of any run of requests, each target gets its share to within a few requests, however many connections
//! they come from. Weights are reduced and laid out as a smooth round; each round starts at another, pseudo-random
//! place, because with a plain round-robin a client that alternates between two requests (page, image, page, image)
//! would send all of one kind to the same target.

use std::sync::atomic::{AtomicU32, Ordering};

/// Targets in the order in which they are served.
#[derive(Debug)]
pub struct Spread {
    /// One round: values to hand out, smoothly interleaved.
    round: Box<[usize]>,
    seed: u32,
    turn: AtomicU32,
}

impl Spread {
    /// A spread over `(value, weight)`; `None` when no weight is above zero.
    pub fn new(weights: &[(usize, u8)], seed: u32) -> Option<Self> {
        let divisor = weights
            .iter()
            .fold(0, |divisor, (_, weight)| gcd(divisor, u32::from(*weight)));
        if divisor == 0 {
            return None;
        }
        let weights: Vec<(usize, i64)> = weights
            .iter()
            .filter(|(_, weight)| *weight > 0)
            .map(|(value, weight)| (*value, i64::from(u32::from(*weight) / divisor)))
            .collect();
        Some(Self {
            round: smooth(&weights),
            seed,
            turn: AtomicU32::new(0),
        })
    }

    /// The next target's value.
    pub fn next(&self) -> usize {
        let length = self.round.len();
        if length == 1 {
            return self.round[0];
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) as usize;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a turn is a `u32`, and so is its quotient"
        )]
        let round = (turn / length) as u32;
        let start = scramble(self.seed ^ round) as usize;
        self.round[(turn % length + start % length) % length]
    }
}

/// Smooth weighted round-robin: each step everybody gains its weight, the richest is served and pays the total.
fn smooth(weights: &[(usize, i64)]) -> Box<[usize]> {
    let total: i64 = weights.iter().map(|(_, weight)| weight).sum();
    let mut credit = vec![0i64; weights.len()];
    (0..total)
        .map(|_| {
            for (credit, (_, weight)) in credit.iter_mut().zip(weights) {
                *credit += weight;
            }
            let mut best = 0;
            for candidate in 1..credit.len() {
                if credit[candidate] > credit[best] {
                    best = candidate;
                }
            }
            credit[best] -= total;
            weights[best].0
        })
        .collect()
}

/// A bijective integer hash (Murmur3's finaliser): enough to make round starts look unrelated.
fn scramble(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
