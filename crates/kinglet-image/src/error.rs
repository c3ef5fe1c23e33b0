//! What can go wrong between a reference and unpacked layers.

use std::path::PathBuf;

/// A failed attempt to have, resolve, import or remove an image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference does not parse.
    #[error("image reference {reference:?} is not valid: {message}")]
    InvalidName {
        /// As written.
        reference: String,
        /// The rule it breaks.
        message: String,
    },
    /// Pull policy `Never`, and the image is not here.
    #[error(
        "image {reference:?} is not present on this machine and its pull policy is Never; import it with `kinglet image import`"
    )]
    NeverPulled {
        /// As written.
        reference: String,
    },
    /// Pull policy `Never`, and the image that is here came with credentials that the Pod does not have.
    #[error(
        "image {reference:?} is present on this machine, but it was pulled with credentials that this Pod does not have, and its pull policy is Never"
    )]
    NotAllowed {
        /// As written.
        reference: String,
    },
    /// Every source for the image failed; one line each.
    #[error("pulling {reference}: {}", attempts.join("; "))]
    Pull {
        /// As written.
        reference: String,
        /// What each source answered.
        attempts: Vec<String>,
    },
    /// No source could say what a tag means; one line each.
    #[error("resolving {reference}: {}", attempts.join("; "))]
    Resolve {
        /// As written.
        reference: String,
        /// What each source answered.
        attempts: Vec<String>,
    },
    /// registries.conf forbids it.
    #[error("image {reference} is blocked by registries.conf (prefix {prefix:?})")]
    Blocked {
        /// As written.
        reference: String,
        /// The matching prefix.
        prefix: String,
    },
    /// A built-in sample that does not exist.
    #[error("there is no sample {reference}; the samples are {}", known.join(", "))]
    NoSample {
        /// As written.
        reference: String,
        /// All samples.
        known: Vec<String>,
    },
    /// No such image in the store.
    #[error("no image {reference:?} on this machine (`kinglet image ls` lists them)")]
    NotHere {
        /// As written.
        reference: String,
    },
    /// The image is used by a running container.
    #[error("image {reference} is used by a running container")]
    InUse {
        /// As written.
        reference: String,
    },
    /// A sample cannot be removed.
    #[error(
        "image {reference} lies inside the kinglet binary and takes no room; it cannot be removed"
    )]
    BuiltIn {
        /// As written.
        reference: String,
    },
    /// registries.conf does not parse.
    #[error("reading registries from {}: {message}", path.display())]
    Registries {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// An archive that is neither a docker nor an OCI archive.
    #[error("reading image archive {}: {message}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A layer that cannot be unpacked.
    #[error("unpacking layer {layer}: {message}")]
    Layer {
        /// Digest or name.
        layer: String,
        /// Why.
        message: String,
    },
    /// Reading or writing the store. The cause is part of the sentence: it ends in conditions and Events, where
    /// "no space left on device" is the news.
    #[error("{action} {}: {cause}", path.display())]
    Store {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        cause: std::io::Error,
    },
    /// A pull that another caller started and that ended in an error.
    #[error("{0}")]
    Shared(String),
}

impl ImageError {
    /// The waiting reason a kubelet gives a container for it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName { .. } => "InvalidImageName",
            Self::NeverPulled { .. } | Self::NotAllowed { .. } => "ErrImageNeverPull",
            Self::Pull { .. }
            | Self::Resolve { .. }
            | Self::BuiltIn { .. }
            | Self::Blocked { .. }
            | Self::NoSample { .. }
            | Self::NotHere { .. }
            | Self::InUse { .. }
            | Self::Registries { .. }
            | Self::Archive { .. }
            | Self::Layer { .. }
            | Self::Store { .. }
            | Self::Shared(_) => "ErrImagePull",
        }
    }

    pub(crate) fn store(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Store {
            action,
            path,
            cause,
        }
    }
}
