//! The controllers against an API server: ours in this process, and a real kube-apiserver where `KINGLET_PEERS` names a
//! folder with the programs built from `tests/peers`.

#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn peers, measure real time and read where to find programs"
)]
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test may panic; helpers of tests are not seen as tests"
)]

mod deletion;
mod fake_node;
mod late;
mod scenarios;

use std::io::Write as _;

use kinglet_apiserver::{ApiServer, Identity, Options};
use kinglet_store::Store;
use kinglet_testkit::cluster::{self, Cluster};
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Our API server in this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_our_own_api_server() {
    talk();
    let store = Store::in_memory(ApiServer::store_options());
    let api = ApiServer::new(store, Options::default());
    scenarios::all(&kube::Client::new(
        api.service(Identity::in_process(
            "system:serviceaccount:kube-system:workloads",
        )),
        "default",
    ))
    .await;
}

/// A real API server, with our controllers instead of Kubernetes' own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instead_of_kube_controller_manager() {
    if let Some(client) = peers() {
        let cluster = Cluster::without_manager().await.unwrap();
        scenarios::all(&client(&cluster).await).await;
    }
}

/// A real API server and Kubernetes' own controllers: only our binder runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_kube_controller_manager() {
    if let Some(client) = peers() {
        let cluster = Cluster::start().await.unwrap();
        scenarios::binder_only(&client(&cluster).await).await;
    }
}

type Connect = fn(&Cluster) -> std::pin::Pin<Box<dyn Future<Output = kube::Client> + Send + '_>>;

/// How to connect to a real control plane, where there is one; else says in one line that the test is not run.
fn peers() -> Option<Connect> {
    talk();
    if cluster::programs().is_none() {
        let why = "KINGLET_PEERS does not name a folder with kube-apiserver (cargo xtask peers), or etcd is not installed";
        assert!(
            std::env::var_os("CI").is_none(),
            "CI runs every test, but {why}"
        );
        // Not `eprintln`: the harness shows that of failed tests only.
        let _ = writeln!(std::io::stderr(), "not run: {why}");
        return None;
    }
    Some(|cluster| Box::pin(connect(cluster)))
}

async fn connect(cluster: &Cluster) -> kube::Client {
    // The first one to install it wins; the others find it there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let file = Kubeconfig::read_from(&cluster.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

/// Logs of the controllers, when `RUST_LOG` asks for them.
fn talk() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}
