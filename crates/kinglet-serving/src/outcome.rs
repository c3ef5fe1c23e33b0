//! Carrying out a plan for an object that owns what the plan creates.

use kinglet_reconcile::{Context, EventRecord, Next, Object, Plan, ReconcileError, Severity, Verb};

/// Applies the plan. A creation that the API server refuses becomes a Warning `CreationFailed` on `about`.
///
/// Nothing is created for an object that is gone or going ([`Context::still_owns`]).
pub(crate) async fn apply<K: Object>(
    context: &Context,
    about: &K,
    plan: Plan,
) -> Result<Next, ReconcileError> {
    let creates = plan.writes().any(|write| write.verb == Verb::Create);
    if creates && !context.still_owns(about).await? {
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
