//! The same checks with a real kube-apiserver and kube-controller-manager behind our controllers, binder and node.

use kinglet_testkit::cluster::{self, Cluster};
use kinglet_testkit::{Api, Setup, instance};

use crate::checks::{self, System};
use crate::{not_run, run, setup};

#[test]
fn controllers_work_over_a_real_control_plane() {
    run(async {
        if cluster::programs().is_none() {
            return not_run(
                "KINGLET_PEERS does not name a folder with kube-apiserver (cargo xtask peers), or etcd is not installed",
            );
        }
        let mut cluster = Cluster::without_manager().await?;
        let data = instance::scratch("attached");
        let attached = Setup {
            attach: Some(cluster.kubeconfig.clone()),
            data: Some(data.clone()),
            ..setup()
        };
        let outcome = all(&mut cluster, &attached).await;
        let _ = std::fs::remove_dir_all(&data);
        outcome
    });
}

async fn all(cluster: &mut Cluster, attached: &Setup) -> anyhow::Result<()> {
    let api = Api::open(&cluster.kubeconfig).await?;
    let instance = attached.start().await?;
    // Ours first, so that Kubernetes' garbage collector knows our kinds from its start.
    cluster.manage().await?;
    let system = System {
        api: &api,
        instance: &instance,
    };
    tokio::try_join!(checks::story(system), checks::deletion(system), async {
        checks::private_names(system).await?;
        checks::splits(system).await?;
        checks::rollout(system).await?;
        checks::failures(system).await
    })?;
    instance.stop().await?;
    // Started again, with everything there already.
    let again = attached.start().await?;
    checks::still_serves(System {
        api: &api,
        instance: &again,
    })
    .await?;
    again.stop().await
}
