//! Plays the node: bound Pods run and are ready at once, deleted ones end at once; those annotated `ends` end in that phase.

use k8s_openapi::api::core::v1::Pod;
use kinglet_reconcile::{
    Cascade, Context, Controller, Key, Next, Plan, ReconcileError, Verb, Write,
};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Starts it.
pub(crate) fn start(context: &Context) {
    let counter = Arc::new(AtomicU32::new(1));
    Controller::<Pod>::new("fake-node").run(context, move |context, key| {
        let counter = Arc::clone(&counter);
        run(context, key, counter)
    });
}

async fn run(context: Context, key: Key, counter: Arc<AtomicU32>) -> Result<Next, ReconcileError> {
    let Some(pod) = context.cache::<Pod>().find(&key) else {
        return Ok(Next::Done);
    };
    let bound = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .is_some();
    if pod.metadata.deletion_timestamp.is_some() {
        let mut write = Write::delete(&*pod, Cascade::Background);
        if let Verb::Delete { grace_seconds, .. } = &mut write.verb {
            *grace_seconds = Some(0);
        }
        context.perform(&write).await?;
        return Ok(Next::Done);
    }
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let done = matches!(phase, Some("Running" | "Succeeded" | "Failed"));
    if !bound || done || key.name.starts_with("sleepy") {
        return Ok(Next::Done);
    }
    let ip = format!("10.9.0.{}", counter.fetch_add(1, Ordering::Relaxed));
    let now = context.now().to_string();
    let mut plan = Plan::new();
    if let Some(phase) = kinglet_reconcile::annotation(&*pod, "ends") {
        plan.status(
            &*pod,
            &json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": i32::from(phase == "Failed"), "startedAt": now, "finishedAt": now}}}]}),
        );
        return context.apply(plan).await;
    }
    plan.status(
        &*pod,
        &json!({
            "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": now},
                {"type": "Ready", "status": "True", "lastTransitionTime": now},
            ],
        }),
    );
    context.apply(plan).await
}
