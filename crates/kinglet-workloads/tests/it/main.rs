//! The controllers against an API server: ours in this process, and a real kube-apiserver where `KINGLET_PEERS` names a
//! folder with the programs built from `tests/peers`.

mod fake_node;
mod real;
mod scenarios;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn against_a_real_kube_apiserver() {
    talk();
    let Some(peer) = real::Peer::start().await else { return };
    scenarios::all(&peer.client()).await;
}

/// Logs of the controllers, when `RUST_LOG` asks for them.
fn talk() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}
