//! Revision garbage collector: deletes Revisions that no Route leads to and that are old enough or too many.
//!
//! Flow: a Configuration changed, a Revision of it came into reserve, or time passed -> [`decide`] -> deletions.
//! Always: the latest ready Revision, those in use and those marked `no-gc` stay; no status is written.

mod decide;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::ConfigMap;
use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision};
use kinglet_reconcile::{
    Cascade, Context, Controller, Key, Next, controller_of, is_deleting, key_of, name_of,
};

use crate::configs::{self, LiveConfigs};

/// Starts the controller.
pub fn start(context: &Context, live: LiveConfigs) {
    let all = context.cache::<Configuration>();
    Controller::<Configuration>::new("revision-gc-controller")
        .watches::<Revision, _>(|revision| {
            // Only one in reserve can be collected; the others change all the time.
            let reserve = revision.label(keys::ROUTING_STATE) == Some("reserve");
            let owner = controller_of(revision).filter(|_| reserve)?;
            Some(Key::new(revision.namespace(), owner.name.as_str()))
        })
        .watches::<ConfigMap, _>(move |map| {
            let concerned = configs::is_ours(map) && name_of(map) == "config-gc";
            let all = if concerned { all.all() } else { Vec::new() };
            all.into_iter().map(|configuration| key_of(&*configuration))
        })
        .run(context, move |context, key| {
            let live = live.clone();
            async move {
                let found = context.cache::<Configuration>().find(&key);
                let Some(configuration) = found.filter(|found| !is_deleting(&**found)) else { return Ok(Next::Done) };
                let revisions = context.cache::<Revision>().select(&key.namespace, [(keys::CONFIGURATION, &*key.name)]);
                let verdict = decide::decide(&configuration, &revisions, &live.get().gc, context.now());
                for revision in &verdict.delete {
                    tracing::info!(revision = revision.name(), namespace = %key.namespace, "collecting a revision that is not used");
                    // One that cannot be deleted must not keep the others.
                    if let Err(error) = context.delete(&**revision, Cascade::Background).await {
                        tracing::warn!(%error, "a revision was not collected");
                    }
                }
                Ok(verdict.again.map_or(Next::Done, Next::After))
            }
        });
}
