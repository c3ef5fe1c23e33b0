//! What the tags of a Revision's images mean, asked in the background.
//!
//! A tag is resolved once, when its Revision is made, so that a Revision never changes by itself. A reconcile waits
//! a moment for the answer (an image at hand is known at once) and otherwise goes on; the answer wakes the Revision.
//! Bounds: [`WORKERS`] questions at a time; per Revision one question and one answer are kept; a failure is tried
//! again after a pause that doubles up to [`PAUSE_MAX`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1::{Container, Secret, ServiceAccount};
use kinglet_api::serving::{ContainerStatus, Revision};
use kinglet_image::{Credentials, ImageName};
use kinglet_reconcile::{Context, Key, Queue};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::configs::LiveConfigs;

/// Questions at a time, as in Knative.
const WORKERS: usize = 100;
/// How long a reconcile waits for an answer before it tells that it waits.
const PATIENCE: Duration = Duration::from_millis(30);
/// First pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause after many failures.
const PAUSE_MAX: Duration = Duration::from_secs(1000);
/// Docker Hub as Knative's settings name it.
const DOCKER_HUB: &str = "index.docker.io";

/// Knows what a tag means.
pub trait ResolveDigest: Send + Sync + 'static {
    /// The image by digest (`repository@sha256:…`), or why it is not known, in words for the user.
    fn resolve<'a>(
        &'a self,
        image: &'a str,
        credentials: &'a Credentials,
    ) -> BoxFuture<'a, Result<String, String>>;
}

/// The images of a Revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// All of them.
    Resolved(Resolved),
    /// Asked for.
    Pending,
    /// One could not be resolved. `news` when nobody was told yet.
    Failed {
        /// `Unable to fetch image …`.
        message: String,
        /// Whether this is the first look at the failure.
        news: bool,
    },
}

/// Images by container; empty where the tag is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) containers: Vec<ContainerStatus>,
    pub(super) init_containers: Vec<ContainerStatus>,
}

#[derive(Clone, Debug)]
enum Resolution {
    Waiting,
    Done(BTreeMap<String, String>),
    Failed(String),
}

struct Entry {
    uid: String,
    resolution: watch::Receiver<Resolution>,
    reported: bool,
    failures: u32,
    again_at: Option<tokio::time::Instant>,
}

/// Asks and remembers. Cheap to clone.
#[derive(Clone)]
pub(super) struct DigestResolver(Arc<Inner>);

struct Inner {
    context: Context,
    live: LiveConfigs,
    resolver: Arc<dyn ResolveDigest>,
    queue: Queue,
    permits: Arc<Semaphore>,
    entries: Mutex<HashMap<Key, Entry>>,
}

impl DigestResolver {
    pub(super) fn new(
        context: Context,
        live: LiveConfigs,
        resolver: Arc<dyn ResolveDigest>,
        queue: Queue,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(WORKERS));
        Self(Arc::new(Inner {
            context,
            live,
            resolver,
            queue,
            permits,
            entries: Mutex::default(),
        }))
    }

    /// The images of `revision`, waiting [`PATIENCE`] at most.
    pub(super) async fn of(&self, key: &Key, revision: &Revision) -> Known {
        if let Some(known) = from_status(revision) {
            self.forget(key);
            return Known::Resolved(known);
        }
        let questions = match self.questions(revision) {
            Ok(questions) if questions.is_empty() => {
                return Known::Resolved(answered(revision, &BTreeMap::new()));
            }
            Ok(questions) => questions,
            Err(message) => return self.unreadable(key, revision, message),
        };
        let mut resolution = self.ask(key, revision, questions);
        // Only fails when the asking task was stopped, together with us.
        let _ = tokio::time::timeout(
            PATIENCE,
            resolution.wait_for(|resolution| !matches!(resolution, Resolution::Waiting)),
        )
        .await;
        let now = resolution.borrow().clone();
        match now {
            Resolution::Waiting => Known::Pending,
            Resolution::Done(found) => Known::Resolved(answered(revision, &found)),
            Resolution::Failed(message) => Known::Failed {
                message,
                news: self.is_news(key),
            },
        }
    }

    /// Drops what is known about a Revision that is gone or settled.
    pub(super) fn forget(&self, key: &Key) {
        self.0.entries.lock().remove(key);
    }

    /// The images that must be asked about.
    fn questions(&self, revision: &Revision) -> Result<Vec<String>, String> {
        let configs = self.0.live.get();
        let skipped = &configs.deployment.registries_skipping_tag_resolving;
        let mut questions = Vec::new();
        for image in images(revision) {
            let name =
                ImageName::parse(image).map_err(|error| failure(image, &error.to_string()))?;
            let registry = if name.registry == "docker.io" {
                DOCKER_HUB
            } else {
                &name.registry
            };
            if name.digest.is_none()
                && !skipped.contains(registry)
                && !questions.iter().any(|known| known == image)
            {
                questions.push(image.to_owned());
            }
        }
        Ok(questions)
    }

    fn ask(
        &self,
        key: &Key,
        revision: &Revision,
        questions: Vec<String>,
    ) -> watch::Receiver<Resolution> {
        let uid = revision.metadata.uid.clone().unwrap_or_default();
        let mut entries = self.0.entries.lock();
        let known = entries.get(key).filter(|entry| entry.uid == uid);
        let due = |entry: &Entry| {
            entry
                .again_at
                .is_some_and(|at| at <= tokio::time::Instant::now())
        };
        if let Some(entry) = known.filter(|entry| !due(entry)) {
            return entry.resolution.clone();
        }
        let failures = known.map_or(0, |entry| entry.failures);
        let (sender, resolution) = watch::channel(Resolution::Waiting);
        let entry = Entry {
            uid,
            resolution: resolution.clone(),
            reported: false,
            failures,
            again_at: None,
        };
        entries.insert(key.clone(), entry);
        drop(entries);
        let (this, key) = (self.clone(), key.clone());
        let account = Account::of(revision);
        self.0
            .context
            .tasks()
            .spawn_cancellable("digests", async move {
                let outcome = this.resolve_all(&account, &questions).await;
                this.settle(&key, &sender, outcome);
            });
        resolution
    }

    async fn resolve_all(
        &self,
        account: &Account,
        questions: &[String],
    ) -> Result<BTreeMap<String, String>, String> {
        let Ok(_permit) = self.0.permits.acquire().await else {
            return Err("the controller is stopping".to_owned());
        };
        let credentials = account.credentials(&self.0.context).await;
        let limit = self.0.live.get().deployment.digest_resolution_timeout;
        let mut found = BTreeMap::new();
        for image in questions {
            let resolution =
                tokio::time::timeout(limit, self.0.resolver.resolve(image, &credentials)).await;
            let digest = match resolution {
                Ok(Ok(digest)) => digest,
                Ok(Err(error)) => return Err(failure(image, &error)),
                Err(_) => return Err(failure(image, &format!("no resolution within {limit:?}"))),
            };
            found.insert(image.clone(), digest);
        }
        Ok(found)
    }

    /// Keeps the answer and wakes the Revision; after a failure once more when it is time to try again.
    fn settle(
        &self,
        key: &Key,
        sender: &watch::Sender<Resolution>,
        outcome: Result<BTreeMap<String, String>, String>,
    ) {
        match outcome {
            Ok(found) => {
                sender.send_replace(Resolution::Done(found));
            }
            Err(message) => {
                let pause = {
                    let mut entries = self.0.entries.lock();
                    entries.get_mut(key).map(|entry| {
                        let pause = PAUSE_MIN
                            .saturating_mul(2_u32.saturating_pow(entry.failures))
                            .min(PAUSE_MAX);
                        entry.failures = entry.failures.saturating_add(1);
                        entry.again_at = Some(tokio::time::Instant::now() + pause);
                        pause
                    })
                };
                sender.send_replace(Resolution::Failed(message));
                if let Some(pause) = pause {
                    self.0.queue.add_after(key.clone(), pause);
                }
            }
        }
        self.0.queue.add(key.clone());
    }

    fn is_news(&self, key: &Key) -> bool {
        let mut entries = self.0.entries.lock();
        entries
            .get_mut(key)
            .is_some_and(|entry| !std::mem::replace(&mut entry.reported, true))
    }

    /// An image name that nobody can read will not become better; it is told once.
    fn unreadable(&self, key: &Key, revision: &Revision, message: String) -> Known {
        let uid = revision.metadata.uid.clone().unwrap_or_default();
        let mut entries = self.0.entries.lock();
        let news = entries.get(key).is_none_or(|entry| entry.uid != uid);
        if news {
            let (_, resolution) = watch::channel(Resolution::Failed(message.clone()));
            entries.insert(
                key.clone(),
                Entry {
                    uid,
                    resolution,
                    reported: true,
                    failures: 0,
                    again_at: None,
                },
            );
        }
        Known::Failed { message, news }
    }
}

fn failure(image: &str, error: &str) -> String {
    format!("Unable to fetch image {image:?}: failed to resolve image to digest: {error}")
}

fn containers(revision: &Revision) -> impl Iterator<Item = &Container> {
    revision
        .spec
        .pod
        .containers
        .iter()
        .chain(revision.spec.pod.init_containers.iter().flatten())
}

fn images(revision: &Revision) -> impl Iterator<Item = &str> {
    containers(revision).map(|container| container.image.as_deref().unwrap_or_default())
}

/// What the status says, if it says it for every container.
fn from_status(revision: &Revision) -> Option<Resolved> {
    let status = &revision.status;
    let reported = status.container_statuses.len() + status.init_container_statuses.len();
    (reported == containers(revision).count() && reported > 0).then(|| Resolved {
        containers: status.container_statuses.clone(),
        init_containers: status.init_container_statuses.clone(),
    })
}

fn answered(revision: &Revision, found: &BTreeMap<String, String>) -> Resolved {
    let one = |container: &Container| {
        let image = container.image.as_deref().unwrap_or_default();
        // What was not asked about is a digest already, or its registry is exempt.
        let by_digest = if image.contains('@') { image } else { "" };
        ContainerStatus {
            name: container.name.clone(),
            image_digest: found
                .get(image)
                .map_or(by_digest, String::as_str)
                .to_owned(),
        }
    };
    Resolved {
        containers: revision.spec.pod.containers.iter().map(one).collect(),
        init_containers: revision
            .spec
            .pod
            .init_containers
            .iter()
            .flatten()
            .map(one)
            .collect(),
    }
}

/// Whose pull secrets help.
struct Account {
    namespace: String,
    service_account: String,
    secrets: Vec<String>,
}

impl Account {
    fn of(revision: &Revision) -> Self {
        let pod = &revision.spec.pod;
        Self {
            namespace: revision.namespace().to_owned(),
            service_account: pod
                .service_account_name
                .clone()
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            secrets: pod
                .image_pull_secrets
                .iter()
                .flatten()
                .map(|secret| secret.name.clone())
                .collect(),
        }
    }

    /// Read from the API server when needed, not cached: Secrets of a whole cluster have no place in our memory.
    async fn credentials(&self, context: &Context) -> Credentials {
        let mut secrets = self.secrets.clone();
        let key = |name: &str| Key::new(self.namespace.as_str(), name);
        if let Ok(account) = context
            .read::<ServiceAccount>(&key(&self.service_account))
            .await
        {
            secrets.extend(
                account
                    .image_pull_secrets
                    .iter()
                    .flatten()
                    .map(|secret| secret.name.clone()),
            );
        }
        let mut credentials = Credentials::default();
        for name in secrets {
            let Ok(secret) = context.read::<Secret>(&key(&name)).await else {
                continue;
            };
            let data = secret.data.as_ref();
            let documents = [".dockerconfigjson", ".dockercfg"]
                .into_iter()
                .filter_map(|entry| data?.get(entry));
            for document in documents {
                if let Err(error) = credentials.add_docker_config(&document.0) {
                    tracing::warn!(secret = name, error, "pull secret not understood");
                }
            }
        }
        credentials
    }
}
