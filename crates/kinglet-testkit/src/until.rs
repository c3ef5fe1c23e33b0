//! Awaiting a condition with a deadline; the one place that knows how slow this machine is.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::bail;

/// How many times as long as on a real machine things may take, from `KINGLET_TEST_PATIENCE`: an emulated processor is ten
/// to thirty times slower. Without it, or with something that is no number, once.
static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
    let asked = std::env::var("KINGLET_TEST_PATIENCE").ok();
    patience_of(asked.as_deref())
});

fn patience_of(asked: Option<&str>) -> u32 {
    asked
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1)
        .max(1)
}

/// A limit for this machine. [`until`] applies it; who waits by other means calls it.
pub fn patiently(limit: Duration) -> Duration {
    limit * *PATIENCE
}

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Calls `look` until it answers `Ok(Some(_))`. On timeout the last thing seen is in the error: `look` may return
/// `Err` for "not yet, because …".
pub async fn until<T, F>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let limit = patiently(limit);
    let deadline = tokio::time::Instant::now() + limit;
    let mut last = String::from("nothing yet");
    loop {
        match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(error) => last = format!("{error:#}"),
        }
        if tokio::time::Instant::now() > deadline {
            bail!(
                "waited {:.0} s for {what}; last: {last}",
                limit.as_secs_f64()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_at_least_one() {
        for (asked, expected) in [
            (None, 1),
            (Some("20"), 20),
            (Some(" 3\n"), 3),
            (Some("0"), 1),
            (Some("much"), 1),
        ] {
            assert_eq!(patience_of(asked), expected, "{asked:?}");
        }
    }
}
