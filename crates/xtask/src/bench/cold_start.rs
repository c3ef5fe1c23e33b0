//! From zero to the answer.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::load::percentile;
use kinglet_testkit::{Instance, web};
use serde_json::json;

use super::{allow_zero, annotated, start};

const AT_ONCE: u32 = 20;

pub(crate) async fn run(rounds: u32) -> anyhow::Result<()> {
    let (instance, api) = start().await?;
    allow_zero(&api).await?;
    let services = serving("default", "services");
    for number in 0..rounds + AT_ONCE {
        let service = annotated(
            sample_service(&format!("cold-{number}"), "default", "helloworld"),
            &json!({"autoscaling.knative.dev/initial-scale": "0"}),
        );
        api.create(&services, &service).await?;
    }
    for number in 0..rounds + AT_ONCE {
        api.condition(
            &format!("{services}/cold-{number}"),
            "Ready",
            "True",
            Duration::from_secs(60),
        )
        .await?;
    }
    one_after_the_other(&instance, rounds).await?;
    at_once(&instance, rounds).await?;
    instance.stop().await
}

/// Wakes `rounds` Services in turn, and prints how long the first answers and their steps took.
async fn one_after_the_other(instance: &Instance, rounds: u32) -> anyhow::Result<()> {
    let mut alone = Vec::new();
    for number in 0..rounds {
        let host = format!("cold-{number}.default.localhost");
        let began = Instant::now();
        let answer = web::get(instance.gateway(), &host, "/").await?;
        alone.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.status == 200, "{host}: {answer:?}");
        // The next one starts on a quiet machine.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    println!(
        "cold start, helloworld, {rounds} one after the other: median {:.1} ms, p99 {:.1} ms, min {:.1} ms",
        percentile(&alone, 50.0),
        percentile(&alone, 99.0),
        percentile(&alone, 0.0)
    );
    println!("{}", steps(instance)?);
    Ok(())
}

/// Returns the steps of the last cold starts as `kinglet status` prints them.
fn steps(instance: &Instance) -> anyhow::Result<String> {
    let mut waterfall = String::new();
    let output = std::process::Command::new(crate::release_binary()?)
        .args(["status", "--cold-starts", "--data"])
        .arg(&instance.data)
        .output()?;
    for line in String::from_utf8_lossy(&output.stdout)
        .lines()
        .skip_while(|line| !line.starts_with("Cold starts"))
        .take(12)
    {
        waterfall.push_str(line);
        waterfall.push('\n');
    }
    Ok(waterfall)
}

/// Wakes the other Services together.
async fn at_once(instance: &Instance, first: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    for number in first..first + AT_ONCE {
        let gateway = instance.gateway().to_owned();
        requests.spawn(async move {
            let began = Instant::now();
            let answer =
                web::get(&gateway, &format!("cold-{number}.default.localhost"), "/").await?;
            ensure!(answer.status == 200, "{answer:?}");
            anyhow::Ok(began.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut together = Vec::new();
    while let Some(outcome) = requests.join_next().await {
        together.push(outcome??);
    }
    let all = began.elapsed().as_secs_f64();
    println!(
        "{AT_ONCE} cold starts at once: {:.0}/s, median {:.0} ms, last {:.0} ms",
        f64::from(AT_ONCE) / all,
        percentile(&together, 50.0),
        percentile(&together, 100.0)
    );
    Ok(())
}
