//! Asks the conversion webhook of a definition.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::review::{Question, SPOKEN, kind_of};
use crate::object::{items, text};
use crate::state::ServerState;
use crate::webhook_client::{self, Endpoint};

/// How long one call may take, with the wait for its turn; the real server's bound.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Calls to one webhook at once; more wait for their turn.
const CALLS_MAX: usize = 16;

/// The bounds of the webhooks that are in use, by definition: they outlast the kinds, which are made anew with every change of a definition.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Places {
    fn of(&self, definition: &str) -> Arc<Semaphore> {
        let mut all = self.0.lock();
        all.retain(|_, places| places.strong_count() > 0);
        if let Some(places) = all.get(definition).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(Semaphore::new(CALLS_MAX));
        all.insert(definition.to_owned(), Arc::downgrade(&places));
        places
    }
}

/// The webhook of a definition.
#[derive(Debug)]
pub(crate) struct Webhook {
    endpoint: Result<Endpoint, String>,
    /// The first version of reviews that both sides speak.
    review: Option<&'static str>,
    calls: Arc<Semaphore>,
}

impl Webhook {
    /// Reads `spec.conversion.webhook`; what is wrong with it is said when it is used.
    pub(crate) fn of(definition: &str, webhook: &Value, places: &Places) -> Self {
        let review = items(webhook, &["conversionReviewVersions"])
            .iter()
            .filter_map(Value::as_str)
            .find_map(|version| SPOKEN.into_iter().find(|spoken| *spoken == version));
        Self {
            endpoint: Endpoint::read(&webhook["clientConfig"]),
            review,
            calls: places.of(definition),
        }
    }

    /// Converts objects in one call; the error is a whole sentence.
    pub(super) async fn convert(
        &self,
        server: &ServerState,
        objects: Vec<Value>,
        version: &str,
    ) -> Result<Vec<Value>, String> {
        let review = self
            .review
            .ok_or("no supported conversion review versions")?;
        let subject = objects.first().map(kind_of).unwrap_or_default();
        let failed = |detail: String| format!("conversion webhook for {subject} failed: {detail}");
        let endpoint = self
            .endpoint
            .as_ref()
            .map_err(|detail| failed(detail.clone()))?;
        let uid = server.uuid();
        let question = Question {
            review,
            uid: &uid,
            objects: &objects,
            version,
        };
        let body = Bytes::from(question.body().to_string());
        let call = async {
            // Never closed; a call that ends gives its place back.
            let _place = self.calls.acquire().await;
            webhook_client::call(server, endpoint, body).await
        };
        let answer = tokio::time::timeout(TIMEOUT, call)
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "Post \"{}\": context deadline exceeded",
                    endpoint.shown_url()
                ))
            })
            .map_err(failed)?;
        tracing::debug!(
            objects = objects.len(),
            version,
            webhook = text(&objects[0], &["kind"]),
            "converted by a webhook"
        );
        question.converted(&answer)
    }
}
