//! Carrying out a plan for an object that owns what the plan creates.

use kinglet_reconcile::{
    Context, EventRecord, Next, Object, Plan, ReconcileError, Severity, Verb, is_deleting, key_of,
    uid_of,
};

/// Applies the plan. A creation that the API server refuses becomes a Warning `CreationFailed` on `about`.
///
/// Before anything is created the API server is asked whether `about` still is what the caches say. When an owner is
/// deleted, the garbage collector takes its children afterwards; a cache that has heard of the child's end but not of
/// the owner's would make the child anew.
pub(crate) async fn apply<K: Object>(
    context: &Context,
    about: &K,
    plan: Plan,
) -> Result<Next, ReconcileError> {
    let creates = plan.writes().any(|write| write.verb == Verb::Create);
    if creates && !still_owns(context, about).await? {
        return Ok(Next::Done);
    }
    let creations: Vec<(String, String, String)> = plan
        .writes()
        .filter(|write| write.verb == Verb::Create)
        .map(|write| {
            (
                format!("creating {} {}", write.kind, write.key),
                write.kind.clone(),
                write.key.name.to_string(),
            )
        })
        .collect();
    let outcome = context.apply(plan).await;
    if let Err(error) = &outcome
        && !error.is_stale()
        && let Some((_, kind, name)) = creations
            .iter()
            .find(|(attempt, ..)| attempted(error) == Some(attempt))
    {
        let message = format!("Failed to create {kind} {name:?}: {}", error.message());
        context.event(EventRecord::new(
            about,
            Severity::Warning,
            "CreationFailed",
            message,
        ));
    }
    outcome
}

/// Whether `owner` exists, is the same object, and is not being deleted, by the API server's word.
async fn still_owns<K: Object>(context: &Context, owner: &K) -> Result<bool, ReconcileError> {
    match context.read::<K>(&key_of(owner)).await {
        Ok(found) => Ok(uid_of(&*found) == uid_of(owner) && !is_deleting(&*found)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the API server does not want an object of this kind as we make it.
pub(crate) fn is_refused(error: &ReconcileError, kind: &str) -> bool {
    matches!(error, ReconcileError::Refused { attempt, .. } if attempt.starts_with(&format!("creating {kind} ")))
}

fn attempted(error: &ReconcileError) -> Option<&str> {
    match error {
        ReconcileError::Refused { attempt, .. }
        | ReconcileError::Busy { attempt, .. }
        | ReconcileError::NotFound { attempt, .. }
        | ReconcileError::Unreachable { attempt, .. } => Some(attempt),
        _ => None,
    }
}
