//! How many pods must be asked to know them all (cluster shape: pods are scraped, not the gateway).

/// Square of the normal quantile times 100 over 25: 95 % confidence, as Knative chose it.
const POPULATION_FACTOR: f64 = 15.3664;

/// Number of pods to scrape out of `ready`.
pub fn sample_size(ready: u32) -> u32 {
    if ready <= 3 {
        return ready;
    }
    let population = f64::from(ready);
    let size = (population * POPULATION_FACTOR / (population + POPULATION_FACTOR - 1.0)).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole and between 1 and 16 by construction, so the cast is exact"
    )]
    let size = size as u32;
    size.min(ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_knative() {
        let rows = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 3),
            (4, 4),
            (5, 4),
            (6, 5),
            (7, 6),
            (8, 6),
            (9, 6),
            (10, 7),
            (15, 8),
            (20, 9),
            (25, 10),
            (30, 11),
            (50, 12),
            (75, 13),
            (100, 14),
            (200, 15),
            (500, 15),
            (1000, 16),
            (10_000, 16),
        ];
        for (ready, expected) in rows {
            assert_eq!(sample_size(ready), expected, "{ready} pods");
        }
    }
}
