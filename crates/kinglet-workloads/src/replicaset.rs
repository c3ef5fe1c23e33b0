//! ReplicaSets: as many active Pods as the spec says.
//!
//! Always: a Pod that was created is in the cache before the reconcile ends (the context reads its own writes), and a key
//! has one worker, so nothing is created twice on the ground of a stale view.

mod decide;

pub(crate) use decide::worth;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::{
    Cache, Cascade, Context, Controller, EventRecord, Key, Next, Plan, ReconcileError, Selector,
    Severity, Write, controller_of, key_of, name_of, owner_reference, uid_of,
};

use serde_json::Value;

use crate::pods;
use crate::selectors::adopters;

/// Name of the controller, as in Kubernetes' events.
const NAME: &str = "replicaset-controller";

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let adopters = adopters(context, |set: &ReplicaSet| {
        set.spec
            .as_ref()
            .and_then(|spec| spec.selector.match_labels.clone())
    });
    Controller::<ReplicaSet>::new(NAME)
        .owns::<Pod>()
        .watches::<Pod, _>(adopters)
        .workers(4)
        .run(context, reconcile);
}

async fn reconcile(context: Context, key: Key) -> Result<Next, ReconcileError> {
    let Some(set) = context.cache::<ReplicaSet>().find(&key) else {
        return Ok(Next::Done);
    };
    // With the fields of the template that our types do not know. Another version by now has woken us again.
    let Some(raw) = context.raw(&*set) else {
        return Ok(Next::Again);
    };
    let pods = context.cache::<Pod>();
    adopt(&context, &set, &pods).await?;
    let mut failure = None;
    if set.metadata.deletion_timestamp.is_none() {
        failure = scale(&context, &set, &raw, &active(&set, &pods))
            .await
            .err();
    }
    let (status, again) = decide::status(
        &set,
        &active(&set, &pods),
        failure.as_ref().map(ScaleError::reason_and_message),
        context.now(),
    );
    let mut plan = Plan::new();
    plan.status(&*set, &status);
    if let Some(again) = again {
        plan.after(again);
    }
    let next = context.apply(plan).await?;
    match failure {
        // Nothing can be created in a namespace that goes away, however often one tries.
        Some(ScaleError { error, .. }) if is_closing(&error) => Ok(Next::Done),
        Some(ScaleError { error, .. }) => Err(error),
        None => Ok(next),
    }
}

/// What went wrong while scaling.
struct ScaleError {
    reason: &'static str,
    error: ReconcileError,
}

impl ScaleError {
    fn reason_and_message(&self) -> (&'static str, String) {
        (self.reason, self.error.message())
    }
}

fn active(set: &ReplicaSet, pods: &Cache<Pod>) -> Vec<Arc<Pod>> {
    let mine = |pod: &Arc<Pod>| controller_of(&**pod).is_some_and(|owner| owner.uid == uid_of(set));
    let mut all = pods.by_owner(uid_of(set));
    all.retain(|pod| mine(pod) && pods::is_active(pod));
    all
}

async fn scale(
    context: &Context,
    set: &ReplicaSet,
    raw: &[u8],
    active: &[Arc<Pod>],
) -> Result<(), ScaleError> {
    match decide::scale(set, active, context.now()) {
        decide::Scale::Keep => Ok(()),
        decide::Scale::Create(count) => create(context, set, raw, count).await,
        decide::Scale::Delete(victims) => {
            for pod in victims {
                match context.delete(&*pod, Cascade::Background).await {
                    Ok(()) => record_event(
                        context,
                        set,
                        Severity::Normal,
                        "SuccessfulDelete",
                        format!("Deleted pod: {}", name_of(&*pod)),
                    ),
                    Err(error) => {
                        record_event(
                            context,
                            set,
                            Severity::Warning,
                            "FailedDelete",
                            format!("Error deleting: {}", error.message()),
                        );
                        return Err(ScaleError {
                            reason: "FailedDelete",
                            error,
                        });
                    }
                }
            }
            Ok(())
        }
    }
}

async fn create(
    context: &Context,
    set: &ReplicaSet,
    raw: &[u8],
    count: usize,
) -> Result<(), ScaleError> {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let read = template.and_then(|template| template.spec.as_ref());
    let raw: Value = serde_json::from_slice(raw).unwrap_or_default();
    let raw = &raw["spec"]["template"]["spec"];
    let pod = Write::create(&decide::pod(set)).with_unknown_fields("/spec", raw, &read);
    let owns = context.still_owns(set).await;
    let owns = owns.map_err(|error| ScaleError {
        reason: "FailedCreate",
        error,
    })?;
    if !owns {
        return Ok(());
    }
    for _ in 0..count {
        match context.create_as::<Pod>(&pod).await {
            Ok(created) => record_event(
                context,
                set,
                Severity::Normal,
                "SuccessfulCreate",
                format!("Created pod: {}", name_of(&*created)),
            ),
            Err(error) => {
                if !is_closing(&error) {
                    record_event(
                        context,
                        set,
                        Severity::Warning,
                        "FailedCreate",
                        format!("Error creating: {}", error.message()),
                    );
                }
                return Err(ScaleError {
                    reason: "FailedCreate",
                    error,
                });
            }
        }
    }
    Ok(())
}

/// Whether the namespace is going away.
fn is_closing(error: &ReconcileError) -> bool {
    matches!(error, ReconcileError::Refused { message, .. } if message.contains("being terminated"))
}

fn record_event(
    context: &Context,
    set: &ReplicaSet,
    severity: Severity,
    reason: &str,
    message: String,
) {
    context.event(EventRecord::new(set, severity, reason, message));
}

/// Takes Pods that match and that nobody controls; lets go of those that no longer match.
async fn adopt(
    context: &Context,
    set: &ReplicaSet,
    pods: &Cache<Pod>,
) -> Result<(), ReconcileError> {
    let Some(spec) = &set.spec else { return Ok(()) };
    let selector = Selector::from(&spec.selector);
    if selector.is_empty() || set.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let key = key_of(set);
    for pod in pods.by_owner(uid_of(set)) {
        let mine = controller_of(&*pod).is_some_and(|owner| owner.uid == uid_of(set));
        if mine
            && pod.metadata.deletion_timestamp.is_none()
            && !selector.matches(pod.metadata.labels.as_ref())
        {
            let mut released = (*pod).clone();
            released
                .metadata
                .owner_references
                .get_or_insert_default()
                .retain(|owner| owner.uid != uid_of(set));
            context.perform(&Write::update(&*pod, &released)).await?;
        }
    }
    for pod in pods.select(&key.namespace, selector) {
        if controller_of(&*pod).is_none() && pods::is_active(&pod) {
            let mut adopted = (*pod).clone();
            adopted
                .metadata
                .owner_references
                .get_or_insert_default()
                .push(owner_reference(set));
            context.perform(&Write::update(&*pod, &adopted)).await?;
        }
    }
    Ok(())
}
