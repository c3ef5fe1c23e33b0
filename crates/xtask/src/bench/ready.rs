//! From apply to Ready with the image cached.

use std::time::{Duration, Instant};

use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::load::percentile;

use super::start;

const ROUNDS: u32 = 20;

pub(crate) async fn run() -> anyhow::Result<()> {
    let (instance, api) = start().await?;
    let services = serving("default", "services");
    api.create(
        &services,
        &sample_service("warm-up", "default", "helloworld"),
    )
    .await?;
    api.condition(
        &format!("{services}/warm-up"),
        "Ready",
        "True",
        Duration::from_secs(60),
    )
    .await?;
    let mut alone = Vec::new();
    for number in 0..ROUNDS {
        let began = Instant::now();
        api.create(
            &services,
            &sample_service(&format!("one-{number}"), "default", "helloworld"),
        )
        .await?;
        api.condition(
            &format!("{services}/one-{number}"),
            "Ready",
            "True",
            Duration::from_secs(60),
        )
        .await?;
        alone.push(began.elapsed().as_secs_f64() * 1e3);
    }
    println!(
        "apply to Ready, one at a time ({ROUNDS}): median {:.0} ms, p99 {:.0} ms",
        percentile(&alone, 50.0),
        percentile(&alone, 99.0)
    );
    let began = Instant::now();
    let mut together = tokio::task::JoinSet::new();
    for number in 0..ROUNDS {
        let (api, services) = (api.clone(), services.clone());
        together.spawn(async move {
            api.create(
                &services,
                &sample_service(&format!("all-{number}"), "default", "helloworld"),
            )
            .await?;
            api.condition(
                &format!("{services}/all-{number}"),
                "Ready",
                "True",
                Duration::from_secs(60),
            )
            .await?;
            anyhow::Ok(began.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut times = Vec::new();
    while let Some(outcome) = together.join_next().await {
        times.push(outcome??);
    }
    println!(
        "{ROUNDS} services at once: median {:.0} ms, last {:.0} ms",
        percentile(&times, 50.0),
        percentile(&times, 100.0)
    );
    instance.stop().await
}
