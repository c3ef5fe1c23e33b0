//! What can go wrong in a reconcile: what was attempted, and whether another attempt can succeed.

use std::time::Duration;

/// Why a reconcile or a call to the API server did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// The object changed after it was seen; the plan was stale and lost.
    #[error("{attempt}: {message}")]
    Conflict {
        /// What was attempted.
        attempt: String,
        /// The API server's words.
        message: String,
    },
    /// The object is not (or no longer) there.
    #[error("{attempt}: {message}")]
    NotFound {
        /// What was attempted.
        attempt: String,
        /// The API server's words.
        message: String,
    },
    /// An object of that name is there already.
    #[error("{attempt}: {message}")]
    AlreadyExists {
        /// What was attempted.
        attempt: String,
        /// The API server's words.
        message: String,
    },
    /// The API server understood and said no: invalid, forbidden, quota.
    #[error("{attempt}: {message}")]
    Refused {
        /// What was attempted.
        attempt: String,
        /// HTTP status.
        code: u16,
        /// Machine-readable reason, such as `Forbidden` or `Invalid`.
        reason: String,
        /// The API server's words.
        message: String,
    },
    /// The API server answered that it cannot now (429, 5xx).
    #[error("{attempt}: {message}")]
    Busy {
        /// What was attempted.
        attempt: String,
        /// HTTP status.
        code: u16,
        /// The API server's words.
        message: String,
    },
    /// The API server could not be reached.
    #[error("{attempt}: the API server cannot be reached")]
    Unreachable {
        /// What was attempted.
        attempt: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer could not be read as the kind that was asked for.
    #[error("{attempt}: the answer could not be read")]
    Garbled {
        /// What was attempted.
        attempt: String,
        /// Where it broke.
        #[source]
        source: serde_json::Error,
    },
    /// A domain error that another try may cure.
    #[error("{0}")]
    Transient(String),
    /// A domain error that only a change of the object (or of what it depends on) can cure: reported, not retried.
    #[error("{0}")]
    Permanent(String),
    /// The reconcile took longer than its deadline.
    #[error("the reconcile did not finish within {0:?}")]
    Timeout(Duration),
    /// Another replica is responsible for the key now; it goes on there.
    #[error("{attempt}: this replica does not lead any more")]
    NotLeading {
        /// What was attempted.
        attempt: String,
    },
    /// The reconcile panicked; the message is the panic's.
    #[error("the reconcile panicked: {0}")]
    Panicked(String),
}

impl ReconcileError {
    /// A domain error that another try may cure.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::Transient(message.into())
    }

    /// A domain error that only a change of the object can cure.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::Permanent(message.into())
    }

    /// Whether the same reconcile may succeed later without anybody changing the object.
    ///
    /// A refusal counts: quotas are raised and names become free.
    pub fn retry_helps(&self) -> bool {
        !matches!(self, Self::Permanent(_) | Self::NotLeading { .. })
    }

    /// Whether leadership was lost before the write.
    pub fn is_not_leading(&self) -> bool {
        matches!(self, Self::NotLeading { .. })
    }

    /// Whether the reason is only that the cache was behind; such a reconcile is repeated silently.
    pub fn is_stale(&self) -> bool {
        matches!(
            self,
            Self::Conflict { .. } | Self::NotFound { .. } | Self::AlreadyExists { .. }
        )
    }

    /// Whether the object was not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the name was taken.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. })
    }

    /// Whether the version seen was not the latest.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// The innermost words without what was attempted, for conditions and events.
    pub fn message(&self) -> String {
        match self {
            Self::Conflict { message, .. }
            | Self::NotFound { message, .. }
            | Self::AlreadyExists { message, .. }
            | Self::Refused { message, .. }
            | Self::Busy { message, .. } => message.clone(),
            Self::Unreachable { source, .. } => source.to_string(),
            Self::Garbled { source, .. } => source.to_string(),
            Self::Transient(message) | Self::Permanent(message) => message.clone(),
            Self::Timeout(_) | Self::Panicked(_) | Self::NotLeading { .. } => self.to_string(),
        }
    }
}
