//! Jobs: Pods that run to their end, as many as the spec asks for, each counted once.
//!
//! Flow: Job, its Pods -> [`decide`](decide::decide) -> the status, then finalizers, deletions and new Pods.
//! Always: a Pod that has ended keeps its finalizer until its uid (or its index) is in the stored status, and leaves the
//! lists of the status only when the finalizer is gone; so a crash between two writes neither loses nor doubles a count.

mod decide;
mod ending;
mod indexes;
mod pod;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::{
    Cascade, Context, Controller, EventRecord, Key, Next, Plan, ReconcileError, Selector, Severity,
    Write, controller_of, is_controlled_by, key_of, name_of, owner_reference, refers_to, uid_of,
};
use serde_json::Value;

use crate::pods;
use crate::selectors::adopters;
use decide::{Decision, FINALIZER};

/// Name of the controller, as in Kubernetes' events.
const NAME: &str = "job-controller";

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let adopters = adopters(context, |job: &Job| {
        let selector = job.spec.as_ref()?.selector.as_ref()?;
        selector.match_labels.clone()
    });
    Controller::<Job>::new(NAME)
        .owns::<Pod>()
        .watches::<Pod, _>(adopters)
        .workers(4)
        .run(context, reconcile);
}

async fn reconcile(context: Context, key: Key) -> Result<Next, ReconcileError> {
    let Some(job) = context.cache::<Job>().find(&key) else {
        return let_go(&context, &key).await;
    };
    if decide::is_managed_elsewhere(&job) {
        return Ok(Next::Done);
    }
    // With the fields of the template that our types do not know. Another version by now has woken us again.
    let Some(raw) = context.raw(&*job) else {
        return Ok(Next::Again);
    };
    adopt(&context, &job).await?;
    let mut pods = context.cache::<Pod>().by_owner(uid_of(&*job));
    pods.retain(|pod| is_controlled_by(&**pod, &*job));
    let decision = decide::decide(&job, &pods, context.now());
    apply(&context, &job, &raw, decision).await
}

/// Carries a decision out: first what is counted, then what the count allows.
async fn apply(
    context: &Context,
    job: &Arc<Job>,
    raw: &[u8],
    decision: Decision,
) -> Result<Next, ReconcileError> {
    let Decision {
        status,
        counted,
        unwanted,
        doomed,
        create,
        events,
        expired,
        again,
    } = decision;
    let mut plan = Plan::new();
    if expired {
        plan.delete(&**job, Cascade::Foreground);
        return context.apply(plan).await;
    }
    plan.status(&**job, &status);
    for (severity, reason, message) in events {
        plan.event(EventRecord::new(&**job, severity, reason, message));
    }
    for pod in &counted {
        plan.remove_finalizer(&**pod, FINALIZER);
    }
    for pod in unwanted.iter().chain(&doomed) {
        // A Pod that the Job itself takes away is no failure: it goes without having been counted.
        if unwanted.iter().any(|each| Arc::ptr_eq(each, pod)) {
            plan.remove_finalizer(&**pod, FINALIZER);
        }
        plan.delete(&**pod, Cascade::Background);
        let message = format!("Deleted pod: {}", name_of(&**pod));
        plan.normal(&**job, "SuccessfulDelete", message);
    }
    if let Some(again) = again {
        plan.after(again);
    }
    let next = context.apply(plan).await?;
    if create.is_empty() || !context.still_owns(&**job).await? {
        return Ok(next);
    }
    make(context, job, raw, &create).await?;
    Ok(next)
}

/// Creates Pods, for these indexes where the Job has indexes.
async fn make(
    context: &Context,
    job: &Job,
    raw: &[u8],
    create: &[Option<u32>],
) -> Result<(), ReconcileError> {
    let raw: Value = serde_json::from_slice(raw).unwrap_or_default();
    let raw = &raw["spec"]["template"]["spec"];
    let template = job.spec.as_ref().map(|spec| &spec.template);
    let read = template.and_then(|template| template.spec.as_ref());
    for index in create {
        let desired = pod::of(job, *index);
        let write = Write::create(&desired).with_unknown_fields("/spec", raw, &read);
        match context.create_as::<Pod>(&write).await {
            Ok(created) => context.event(EventRecord::new(
                job,
                Severity::Normal,
                "SuccessfulCreate",
                format!("Created pod: {}", name_of(&*created)),
            )),
            // Nothing can be created in a namespace that goes away, however often one tries.
            Err(ReconcileError::Refused { message, .. })
                if message.contains("being terminated") =>
            {
                return Ok(());
            }
            Err(error) => {
                let message = format!("Error creating: {}", error.message());
                context.event(EventRecord::new(
                    job,
                    Severity::Warning,
                    "FailedCreate",
                    message,
                ));
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Takes Pods that match and that nobody controls; lets go of those that no longer match.
async fn adopt(context: &Context, job: &Job) -> Result<(), ReconcileError> {
    let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector.map(Selector::from) else {
        return Ok(());
    };
    if selector.is_empty() || job.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let pods = context.cache::<Pod>();
    for pod in pods.by_owner(uid_of(job)) {
        let alive = pod.metadata.deletion_timestamp.is_none();
        if is_controlled_by(&*pod, job) && alive && !selector.matches(pod.metadata.labels.as_ref())
        {
            let mut released = (*pod).clone();
            let owners = released.metadata.owner_references.get_or_insert_default();
            owners.retain(|owner| owner.uid != uid_of(job));
            without_finalizer(&mut released);
            context.perform(&Write::update(&*pod, &released)).await?;
        }
    }
    for pod in pods.select(&key_of(job).namespace, selector) {
        if controller_of(&*pod).is_none() && pods::is_active(&pod) {
            let mut adopted = (*pod).clone();
            let owners = adopted.metadata.owner_references.get_or_insert_default();
            owners.push(owner_reference(job));
            let finalizers = adopted.metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|each| each == FINALIZER) {
                finalizers.push(FINALIZER.to_owned());
            }
            context.perform(&Write::update(&*pod, &adopted)).await?;
        }
    }
    Ok(())
}

fn without_finalizer(pod: &mut Pod) {
    if let Some(finalizers) = &mut pod.metadata.finalizers {
        finalizers.retain(|each| each != FINALIZER);
    }
}

/// Takes the finalizer off Pods whose Job is gone: nobody counts them any more.
async fn let_go(context: &Context, key: &Key) -> Result<Next, ReconcileError> {
    let all = Selector::default();
    let mut plan = Plan::new();
    for pod in context.cache::<Pod>().select(&key.namespace, all) {
        let was_its = controller_of(&*pod)
            .is_some_and(|owner| refers_to::<Job>(owner) && *owner.name == *key.name);
        if was_its && decide::is_tracked(&pod) {
            plan.remove_finalizer(&*pod, FINALIZER);
        }
    }
    context.apply(plan).await
}
