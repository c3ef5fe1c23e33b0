//! Rules about the ConfigMaps in `knative-serving` (spec/serving.md 3.0).

use serde_json::Value;

use crate::config;

use super::{Operation, Review, look};

const EXAMPLE_CHECKSUM: &str = "knative.dev/example-checksum";

/// Whether the object is one of ours.
pub(super) fn applies(review: &Review<'_>) -> bool {
    review.group.is_empty()
        && review.kind == "ConfigMap"
        && review.namespace == config::SYSTEM_NAMESPACE
        && review.operation != Operation::Delete
        && config::NAMES.contains(&review.name)
}

/// The example is left alone and everything parses.
pub(super) fn validate(review: &Review<'_>, object: &Value) -> Result<(), String> {
    let data = look::map(object, "data");
    let annotations = look::map(look::at(object, "metadata"), "annotations");
    if let (Some(example), Some(checksum)) =
        (data.get("_example"), annotations.get(EXAMPLE_CHECKSUM))
        && config::example_checksum(example) != *checksum
    {
        return Err("the update modifies a key in \"_example\" which is probably not what you want. Instead, copy the respective setting to the top-level of the ConfigMap, directly below \"data\"".to_owned());
    }
    config::check(review.name, &data)
}
