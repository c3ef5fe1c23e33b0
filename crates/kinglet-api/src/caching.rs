//! `caching.internal.knative.dev/v1alpha1`: Image, a wish to have an image at hand.

use k8s_openapi::api::core::v1::LocalObjectReference;
use serde::{Deserialize, Serialize};

use crate::duck::Status;
use crate::kind::kind;

/// API group of this kind.
pub const GROUP: &str = "caching.internal.knative.dev";
/// Its only version.
pub const VERSION: &str = "v1alpha1";

kind!(
    /// An image that some Revision will need soon.
    Image, "images", "caching.internal.knative.dev", "v1alpha1", ImageSpec, ImageStatus
);

/// Spec of an Image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageSpec {
    /// The image, by digest; empty when its registry is exempt from resolution.
    pub image: String,
    /// Account whose pull secrets help.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Pull secrets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// Status of an Image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
}
