//! Container images: names, registries and mirrors, archives, the unpacked layer store.
//!
//! Flow: `node` asks [`Images::ensure`] for a reference -> local store, built-in samples or a registry -> unpacked
//! layers ready for overlayfs. `serving` asks [`Images::resolve_digest`] what a tag means today.
//! Always: a layer directory is complete or absent (renamed into place); an image record is written after all its
//! layers; the host `samples.kinglet` never reaches the network; every download and unpack has a bound.

#![warn(missing_docs)]

pub mod archive;
pub mod builtin;
pub mod credentials;
mod egress_proxy;
pub mod error;
pub mod images;
pub mod layer;
mod layer_store;
pub mod name;
pub mod progress;
pub mod records;
pub mod registries;
pub mod registry;
mod samples;
mod singleflight;

pub use builtin::BuiltinImage;
pub use credentials::Credentials;
pub use error::ImageError;
pub use images::{ImageSummary, Images, PullOptions, PullPolicy, ReadyImage, Requester};
pub use name::ImageName;
pub use progress::{Progress, ProgressEvent};
pub use records::ImageConfig;
pub use registries::Registries;
pub use registry::Timeouts;
