//! Awaiting a condition with a deadline.

use std::time::Duration;

use anyhow::bail;

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
