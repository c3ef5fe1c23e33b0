//! Whether the buffer (the activator) stays in a revision's request path, and how many of it.

/// What a ServerlessService's `spec.mode` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMode {
    /// Requests go straight to the pods.
    Serve,
    /// Requests go through the buffer.
    Proxy,
}

/// Fewest activators a revision is given.
pub const FEWEST_ACTIVATORS: u32 = 2;

/// Chooses the mode from the ordered scale (`None`: unknown) and the excess burst capacity.
pub fn mode(want: Option<u32>, excess_burst_capacity: i32) -> PathMode {
    match want {
        Some(want) if want > 0 && excess_burst_capacity >= 0 => PathMode::Serve,
        Some(_) | None => PathMode::Proxy,
    }
}

/// How many activators serve the revision.
pub fn activators(
    ready: u32,
    total: f64,
    target_burst_capacity: f64,
    activator_capacity: f64,
) -> u32 {
    if target_burst_capacity == 0.0 {
        return FEWEST_ACTIVATORS;
    }
    let capacity = f64::from(ready) * total + target_burst_capacity.max(0.0);
    let needed = (capacity / activator_capacity.max(1.0)).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "casts from float saturate, which is what is wanted here"
    )]
    let needed = needed as u32;
    // The field is an int32.
    needed.clamp(FEWEST_ACTIVATORS, i32::MAX.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activator_counts_as_knative() {
        let rows = [
            (0, 100.0, 211.0, 3),
            (1, 100.0, 211.0, 4),
            (2, 100.0, 211.0, 5),
            (3, 100.0, 211.0, 6),
            (10, 100.0, 211.0, 13),
            (10, 1.0, 211.0, 3),
            (10, 100.0, -1.0, 10),
            (10, 10.0, -1.0, 2),
            (10, 100.0, 0.0, 2),
        ];
        for (ready, total, burst, expected) in rows {
            assert_eq!(
                activators(ready, total, burst, 100.0),
                expected,
                "{ready} × {total}, {burst}"
            );
        }
    }

    #[test]
    fn modes_as_knative() {
        assert_eq!(mode(None, 100), PathMode::Proxy);
        assert_eq!(mode(Some(0), 100), PathMode::Proxy);
        assert_eq!(mode(Some(1), 0), PathMode::Serve);
        assert_eq!(mode(Some(1), -1), PathMode::Proxy);
    }
}
