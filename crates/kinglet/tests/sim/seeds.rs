//! Runs from seeds: a user who changes his mind while everything goes wrong, then calm.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::faults::Odds;
use crate::invariants::Observer;
use crate::random::Random;
use crate::world::{MISSING_IMAGE, SERVICES, World, service};

/// Seeds of the ordinary run; `cargo xtask soak sim` runs many.
const SEEDS: u64 = 4;
/// What the user does in one run.
const ACTIONS: u64 = 30;
const NAMES: [&str; 3] = ["one", "two", "three"];
/// Longest time of the simulation until everything is at rest: longer than a stable window, the grace before zero, the
/// longest pause of a queue and a few periods of the garbage collector together.
const REST_MAX: Duration = Duration::from_secs(1800);
/// Nothing is written for so long at rest.
const QUIET: Duration = Duration::from_secs(60);

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "seeds to run again are told in the environment"
)]
fn everything_comes_to_rest_whatever_happened() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds: Vec<u64> = match number("KINGLET_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("KINGLET_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    // Injected panics are part of the day.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let injected = panic
            .payload()
            .downcast_ref::<&str>()
            .is_some_and(|text| text.starts_with("injected"));
        if !injected {
            shown(panic);
        }
    }));
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| crate::run(one(seed)));
        if let Err(panic) = outcome {
            let words = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            panic!("seed {seed} (KINGLET_SIM_SEED={seed} runs it alone): {words}");
        }
    }
}

async fn one(seed: u64) {
    let random = Random::new(seed ^ 0x5EED);
    let mut world = World::start(seed, Odds::BAD_DAY).await;
    let mut observer = Observer::new(&world);
    world.faults.set(true);
    for _ in 0..ACTIONS {
        act(&world, &random).await;
        if random.once_in(10) {
            world.restart_controllers().await;
        }
        let pause = Instant::now() + random.up_to_ms(3_000);
        while Instant::now() < pause {
            observer.look();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    world.faults.set(false);
    rest(&mut observer).await;
}

/// Waits until everything is as it shall be and nobody writes any more.
async fn rest(observer: &mut Observer) {
    let began = Instant::now();
    let mut last = (observer.revision(), Instant::now());
    loop {
        observer.look();
        if observer.revision() != last.0 {
            last = (observer.revision(), Instant::now());
        }
        let (orphans, unsettled) = (observer.orphans(), observer.unsettled());
        if orphans.is_empty() && unsettled.is_empty() && last.1.elapsed() >= QUIET {
            return;
        }
        assert!(
            began.elapsed() < REST_MAX,
            "not at rest: quiet for {:?}, without an owner {orphans:?}, unsettled {unsettled:#?}",
            last.1.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// One thing a user does. What is refused (nothing there, not owned) is part of life.
async fn act(world: &World, random: &Random) {
    let name = NAMES[random.index(NAMES.len())];
    let path = format!("{SERVICES}/{name}");
    let outcome = match random.below(10) {
        0..=3 => {
            let text = format!("v{}", random.below(1000));
            let image = if random.once_in(5) {
                MISSING_IMAGE
            } else {
                "registry.example/hello:1"
            };
            let body = service(name, image, &text);
            if world.get(&path).await.is_some() {
                world
                    .call("PATCH", &path, json!({"spec": body["spec"]}))
                    .await
            } else {
                world.call("POST", SERVICES, body).await
            }
        }
        4 => {
            let revision = some_revision(world, name, random).await;
            let traffic = json!([
                {"revisionName": revision, "percent": 30, "tag": "old"},
                {"latestRevision": true, "percent": 70},
            ]);
            world
                .call("PATCH", &path, json!({"spec": {"traffic": traffic}}))
                .await
        }
        5 => {
            let traffic = json!([{"latestRevision": true, "percent": 100}]);
            world
                .call("PATCH", &path, json!({"spec": {"traffic": traffic}}))
                .await
        }
        6 => {
            let labels = json!({"team": format!("t{}", random.below(5))});
            world
                .call("PATCH", &path, json!({"metadata": {"labels": labels}}))
                .await
        }
        7 => {
            let revision = some_revision(world, name, random).await;
            let path =
                format!("/apis/serving.knative.dev/v1/namespaces/default/revisions/{revision}");
            world.call("DELETE", &path, Value::Null).await
        }
        _ => {
            let policy = ["Background", "Foreground"][random.index(2)];
            world
                .call("DELETE", &path, json!({"propagationPolicy": policy}))
                .await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "the user was refused");
    }
}

async fn some_revision(world: &World, service: &str, random: &Random) -> String {
    let all = world
        .list(&format!(
            "/apis/serving.knative.dev/v1/namespaces/default/revisions?labelSelector=serving.knative.dev/service={service}"
        ))
        .await;
    let at = random.index(all.len());
    all.get(at)
        .and_then(|revision| revision["metadata"]["name"].as_str())
        .unwrap_or("nope")
        .to_owned()
}
