//! Nothing is left on the machine. The long run is `cargo xtask soak cycles`.

use anyhow::ensure;
use kinglet_testkit::footprint::{Footprint, Slack};
use kinglet_testkit::{Api, Setup, cycles, instance};

use crate::{run, setup};

/// Services at a time; each is one cycle.
const BATCH: u32 = 10;
/// Two batches are measured against one; what grows with every cycle shows by far.
const SLACK: Slack = Slack {
    descriptors: 16,
    threads: 64,
    files: 8,
    disk_kb: 16 << 10,
    memory_kb: 32 << 10,
};

#[test]
fn cycles_and_a_crash_leave_nothing() {
    run(async {
        let data = instance::scratch("cycles");
        let setup = Setup {
            data: Some(data.clone()),
            ..setup()
        };
        let outcome = story(&setup).await;
        let left = Footprint::of_stopped(&data);
        let _ = std::fs::remove_dir_all(&data);
        outcome?;
        ensure!(
            left.left_behind().is_empty(),
            "left behind: {}",
            left.left_behind().join("; ")
        );
        Ok(())
    });
}

async fn story(setup: &Setup) -> anyhow::Result<()> {
    let mut instance = setup.start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    cycles::sleep_soon(&api).await?;
    cycles::batch(&instance, &api, BATCH).await?;
    let warm = cycles::at_rest(&instance).await?;
    for _ in 0..2 {
        cycles::batch(&instance, &api, BATCH).await?;
    }
    cycles::settled(&instance, &api, &warm, SLACK).await?;

    // After a crash with services under way, the next life has what the first had, and no more.
    instance.kill();
    let instance = setup.start().await?;
    let api = Api::open(instance.ready.kubeconfig.as_ref()).await?;
    cycles::batch(&instance, &api, BATCH).await?;
    cycles::settled(&instance, &api, &warm, SLACK).await?;
    instance.stop().await
}
