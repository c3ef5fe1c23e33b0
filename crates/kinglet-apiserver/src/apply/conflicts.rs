//! The refusal of an apply that would take fields from other managers, in the real server's words.

use super::merge::Found;
use super::path;

/// Fields that others own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    /// Whole sentence for `Status.message`.
    pub message: String,
    /// `(message, field)` of each cause; its reason is `FieldManagerConflict`.
    pub causes: Vec<(String, String)>,
}

/// Words the refusal as the real server does.
pub(super) fn conflicts(found: &Found) -> Conflicts {
    let causes = found
        .iter()
        .map(|(id, path)| (format!("conflict with {}", id.shown()), path::shown(path)))
        .collect();
    let message = match found.as_slice() {
        [(id, path)] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            id.shown(),
            path::shown(path)
        ),
        many => {
            let mut lines = Vec::new();
            let mut last = None;
            for (id, path) in many {
                if last != Some(id) {
                    lines.push(format!("conflicts with {}:", id.shown()));
                    last = Some(id);
                }
                lines.push(format!("- {}", path::shown(path)));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                many.len(),
                lines.join("\n")
            )
        }
    };
    Conflicts { message, causes }
}
