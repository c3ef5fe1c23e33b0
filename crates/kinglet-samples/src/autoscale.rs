//! Work by query: `?sleep=MILLISECONDS&prime=LIMIT&bloat=MEGABYTES`.

use std::time::{Duration, Instant};

use http::StatusCode;

use crate::serve::{Answer, Request, text};

/// A sieve beyond this takes seconds and hundreds of megabytes.
const PRIME_MAX: u64 = 100_000_000;
const BLOAT_MAX_MEGABYTES: u64 = 4_096;
const SLEEP_MAX_MILLISECONDS: u64 = 3_600_000;

pub(crate) async fn answer(request: &Request) -> Answer {
    match work(request.uri().query().unwrap_or_default()).await {
        Ok(done) => text(StatusCode::OK, done),
        Err(why) => text(StatusCode::BAD_REQUEST, why),
    }
}

async fn work(query: &str) -> Result<String, String> {
    let mut done = String::new();
    if let Some(megabytes) = number(query, "bloat", BLOAT_MAX_MEGABYTES)? {
        let mut held =
            vec![0_u8; usize::try_from(megabytes << 20).map_err(|error| error.to_string())?];
        // Touched, or the kernel would not hand it out.
        held.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        std::hint::black_box(&held);
        done.push_str(&format!("Allocated {megabytes} Mb of memory.\n"));
    }
    if let Some(limit) = number(query, "prime", PRIME_MAX)? {
        // Beside the one thread that serves, so that others are answered meanwhile.
        match tokio::task::spawn_blocking(move || largest_prime(limit))
            .await
            .map_err(|error| error.to_string())?
        {
            Some(prime) => done.push_str(&format!(
                "The largest prime less than {limit} is {prime}.\n"
            )),
            None => done.push_str(&format!("There are no primes smaller than {limit}.\n")),
        }
    }
    if let Some(milliseconds) = number(query, "sleep", SLEEP_MAX_MILLISECONDS)? {
        // For whoever wants to know that the request is here.
        eprintln!("sleeping {milliseconds} ms");
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        done.push_str(&format!(
            "Slept for {:.2} milliseconds.\n",
            began.elapsed().as_secs_f64() * 1000.0
        ));
    }
    Ok(done)
}

fn number(query: &str, name: &str, max: u64) -> Result<Option<u64>, String> {
    let Some(value) = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
    else {
        return Ok(None);
    };
    match value.parse() {
        Ok(0) => Ok(None),
        Ok(number) if number <= max => Ok(Some(number)),
        _ => Err(format!(
            "{name}={value}: must be a whole number from 0 to {max}\n"
        )),
    }
}

fn largest_prime(limit: u64) -> Option<u64> {
    let limit = usize::try_from(limit).ok()?;
    let mut composite = vec![false; limit.max(2)];
    let mut factor = 2;
    while factor * factor < limit {
        if !composite[factor] {
            (factor * factor..limit)
                .step_by(factor)
                .for_each(|multiple| composite[multiple] = true);
        }
        factor += 1;
    }
    (2..limit)
        .rev()
        .find(|candidate| !composite[*candidate])
        .map(|prime| prime as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_below_a_limit() {
        for (limit, prime) in [
            (3, Some(2)),
            (10, Some(7)),
            (10_000, Some(9973)),
            (2, None),
            (1, None),
        ] {
            assert_eq!(largest_prime(limit), prime, "{limit}");
        }
    }

    #[test]
    fn bad_numbers_name_the_parameter() {
        assert!(
            number("sleep=abc", "sleep", 10)
                .expect_err("no number")
                .contains("sleep=abc")
        );
        assert!(number("sleep=11", "sleep", 10).is_err());
        assert_eq!(number("a=1&sleep=10", "sleep", 10), Ok(Some(10)));
        assert_eq!(number("a=1", "sleep", 10), Ok(None));
    }
}
