//! Carrying out a plan and telling the story when a child cannot be created.

use kinglet_reconcile::{Fault, Kit, Next, Note, Object, Plan, Severity, Verb};

/// Applies the plan. A creation that the API server refuses becomes a Warning `CreationFailed` on `about`.
pub(crate) async fn apply<K: Object>(kit: &Kit, about: &K, plan: Plan) -> Result<Next, Fault> {
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
    let outcome = kit.apply(plan).await;
    if let Err(fault) = &outcome
        && !fault.is_stale()
        && let Some((_, kind, name)) = creations
            .iter()
            .find(|(attempt, ..)| attempted(fault) == Some(attempt))
    {
        let message = format!("Failed to create {kind} {name:?}: {}", fault.message());
        kit.note(Note::new(
            about,
            Severity::Warning,
            "CreationFailed",
            message,
        ));
    }
    outcome
}

/// Whether the API server does not want an object of this kind as we make it.
pub(crate) fn is_refused(fault: &Fault, kind: &str) -> bool {
    matches!(fault, Fault::Refused { attempt, .. } if attempt.starts_with(&format!("creating {kind} ")))
}

fn attempted(fault: &Fault) -> Option<&str> {
    match fault {
        Fault::Refused { attempt, .. }
        | Fault::Busy { attempt, .. }
        | Fault::NotFound { attempt, .. }
        | Fault::Unreachable { attempt, .. } => Some(attempt),
        _ => None,
    }
}
