//! Deployments: one ReplicaSet per template, old ones scaled down as the new one becomes available.
//!
//! Flow: Deployment, its ReplicaSets -> [`decide`](decide::decide) -> ReplicaSet writes first, then the status.
//! Always: what scales a ReplicaSet comes before any status write, because a cold start waits for it.

mod conditions;
mod decide;
mod hash;
mod rollout;
mod template;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::{
    Cache, Context, Controller, Key, Next, Object, ReconcileError, Write, controller_of,
    is_controlled_by, refers_to,
};
use serde_json::Value;

use crate::pods;

/// Name of the controller, as in Kubernetes' events.
const NAME: &str = "deployment-controller";

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let (sets, deployments) = (context.cache::<ReplicaSet>(), context.cache::<Deployment>());
    Controller::<Deployment>::new(NAME)
        .owns::<ReplicaSet>()
        .watches::<Pod, _>(move |pod| waits_for_end(pod, &sets, &deployments))
        .workers(4)
        .run(context, reconcile);
}

/// A Deployment of strategy Recreate goes on when the last old Pod has really ended.
fn waits_for_end(
    pod: &Pod,
    sets: &Cache<ReplicaSet>,
    deployments: &Cache<Deployment>,
) -> Option<Key> {
    if pods::is_active(pod) {
        return None;
    }
    let namespace = pod.metadata.namespace.as_deref()?;
    let set = sets.get(
        namespace,
        &controller_of(pod)
            .filter(|owner| refers_to::<ReplicaSet>(owner))?
            .name,
    )?;
    let owner = controller_of(&*set).filter(|owner| refers_to::<Deployment>(owner))?;
    let deployment = deployments.get(namespace, &owner.name)?;
    decide::is_recreate(&deployment).then(|| Key::new(namespace, owner.name.as_str()))
}

async fn reconcile(context: Context, key: Key) -> Result<Next, ReconcileError> {
    let Some(deployment) = context.cache::<Deployment>().find(&key) else {
        return Ok(Next::Done);
    };
    // With the fields of the template that our types do not know. Another version by now has woken us again.
    let Some(raw) = context.raw(&*deployment) else {
        return Ok(Next::Again);
    };
    let observed = observe(&context, &deployment);
    let mut plan = decide::decide(&observed, context.now());
    let Some(new) = plan.create.take() else {
        return context.apply(plan.plan).await;
    };
    if !context.still_owns(&*deployment).await? {
        return Ok(Next::Done);
    }
    match context
        .create_as::<ReplicaSet>(&creation(&new, &deployment, &raw))
        .await
    {
        Ok(created) => {
            plan.plan.event(decide::scaled(
                &deployment,
                &created,
                0,
                decide::replicas_of(&created),
            ));
            if decide::replicas_of(&created) == 0 {
                plan.plan.steps.pop();
            }
            context.apply(plan.plan).await
        }
        Err(error) if error.is_already_exists() => {
            collided(&context, &deployment, &new, error).await
        }
        Err(error) => {
            context
                .apply(decide::creation_failed(
                    &observed,
                    &new,
                    &error.message(),
                    context.now(),
                ))
                .await?;
            Err(error)
        }
    }
}

/// Creates a ReplicaSet with the whole template.
fn creation(new: &ReplicaSet, deployment: &Deployment, raw: &[u8]) -> Write {
    let raw: Value = serde_json::from_slice(raw).unwrap_or_default();
    let read = deployment.spec.as_ref().map(|spec| &spec.template);
    Write::create(new).with_unknown_fields("/spec/template", &raw["spec"]["template"], &read)
}

fn observe(context: &Context, deployment: &Arc<Deployment>) -> decide::ObservedDeployment {
    let sets = context.cache::<ReplicaSet>();
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
    let selected = sets.select(
        namespace,
        &deployment
            .spec
            .as_ref()
            .map(|spec| spec.selector.clone())
            .unwrap_or_default(),
    );
    let mine = |set: &Arc<ReplicaSet>| is_controlled_by(&**set, &**deployment);
    let owned: Vec<_> = sets
        .by_owner(deployment.meta_uid())
        .into_iter()
        .filter(mine)
        .collect();
    let orphans = selected
        .into_iter()
        .filter(|set| controller_of(&**set).is_none() && set.metadata.deletion_timestamp.is_none())
        .collect();
    let pods = context.cache::<Pod>();
    let lingering = |set: &Arc<ReplicaSet>| {
        let of_set = pods.by_owner(set.meta_uid());
        of_set.iter().filter(|pod| !pods::is_terminal(pod)).count()
    };
    let pods_left = if decide::is_recreate(deployment) {
        owned
            .iter()
            .map(|set| (set.meta_uid().to_owned(), lingering(set)))
            .collect()
    } else {
        std::collections::BTreeMap::new()
    };
    decide::ObservedDeployment {
        deployment: Arc::clone(deployment),
        owned,
        orphans,
        pods_left,
    }
}

/// The name is taken: by ourselves moments ago (then the cache will show it), or by another object with the same hash.
async fn collided(
    context: &Context,
    deployment: &Deployment,
    new: &ReplicaSet,
    error: ReconcileError,
) -> Result<Next, ReconcileError> {
    let key = kinglet_reconcile::key_of(new);
    let present = context.read::<ReplicaSet>(&key).await?;
    if is_controlled_by(&*present, deployment) && template::same(&present, deployment) {
        return Ok(Next::Again);
    }
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
    context.update_status(deployment, &status).await?;
    Err(error)
}

/// The uid of an object, empty before it has one.
trait MetaUid {
    fn meta_uid(&self) -> &str;
}

impl<K: Object> MetaUid for K {
    fn meta_uid(&self) -> &str {
        kinglet_reconcile::uid_of(self)
    }
}
