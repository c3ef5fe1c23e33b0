//! Deleting owners at any moment of their life, while the controllers hear of everything late and in any order.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kinglet_apiserver::{ApiServer, Identity, Options};
use kinglet_store::Store;
use kinglet_workloads::Parts;
use kube::api::{Api, DeleteParams, ListParams, PostParams};

use parking_lot::Mutex;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::late::{Created, Random};
use crate::scenarios::{Run, deployment, until};

const NAMESPACE: &str = "late";
/// Deployments that are made and deleted.
const ROUNDS: usize = 50;
/// How many of them at a time.
const AT_ONCE: usize = 3;
/// Longest life before the deletion: some are deleted before they have a ReplicaSet, some when all is settled.
const LIFE_MAX: Duration = Duration::from_millis(800);
const SEED: u64 = 6;

/// No child is made again for an owner that is gone or going: every Deployment here has one ReplicaSet in its life, and
/// every ReplicaSet one Pod. It is the ordinary course of things, so nothing is warned of.
#[tokio::test]
async fn no_child_is_made_again_for_a_deleted_owner() {
    let warnings = Warnings::default();
    // This test's runtime has one thread, so this hears of everything in it and of nothing in other tests.
    let subscriber = tracing_subscriber::registry().with(warnings.clone());
    let _listening = tracing::subscriber::set_default(subscriber);
    let store = Store::in_memory(ApiServer::store_options());
    let api = ApiServer::new(store, Options::default());
    let identity = || Identity::in_process("system:serviceaccount:kube-system:workloads");
    let (random, created) = (Random::new(SEED), Created::default());
    let late = crate::late::client(api.service(identity()), random.clone(), created.clone());
    let (run, tasks) = Run::start(&late, Parts::ALL);
    run.namespace(NAMESPACE).await;
    let prompt = kube::Client::new(api.service(identity()), NAMESPACE);
    futures_util::stream::iter(0..ROUNDS)
        .for_each_concurrent(AT_ONCE, |round| {
            let life = random.up_to(LIFE_MAX);
            let how = if round % 2 == 0 {
                DeleteParams::background()
            } else {
                DeleteParams::foreground()
            };
            round_of(&prompt, format!("d{round}"), life, how)
        })
        .await;
    assert!(created.total() > ROUNDS, "too few children to tell");
    assert_eq!(created.more_than_one(), [], "children made again");
    assert_eq!(*warnings.0.lock(), [""; 0], "warnings");
    assert!(
        tasks.shutdown(Duration::from_secs(10)).await,
        "every task ends"
    );
}

/// What was logged as a warning or an error. Clones share it.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if *event.metadata().level() <= tracing::Level::WARN {
            self.0.lock().push(format!("{event:?}"));
        }
    }
}

/// One Deployment: made, deleted after `life`, awaited until nothing is left of it.
async fn round_of(client: &kube::Client, name: String, life: Duration, how: DeleteParams) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let made = deployment(&name, 1, "v1");
    deployments
        .create(&PostParams::default(), &made)
        .await
        .unwrap();
    tokio::time::sleep(life).await;
    deployments.delete(&name, &how).await.unwrap();
    let labels = ListParams::default().labels(&format!("app={name}"));
    until("nothing is left", || async {
        let owner = deployments.get_opt(&name).await.unwrap().is_some();
        let sets = sets.list(&labels).await.unwrap().items.len();
        let pods = pods.list(&labels).await.unwrap().items.len();
        if !owner && sets == 0 && pods == 0 {
            Ok(())
        } else {
            Err(format!("{name}: owner {owner}, {sets} sets, {pods} pods"))
        }
    })
    .await;
}
