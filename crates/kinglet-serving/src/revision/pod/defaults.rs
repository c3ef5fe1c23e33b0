//! What Kubernetes fills into a pod spec, so that what is written is what is stored.

use k8s_openapi::api::core::v1::PodSpec;
use kinglet_quantity::pod;
use serde_json::Value;

pub(super) fn fill(spec: &PodSpec) -> PodSpec {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else {
        unreachable!("a pod spec is an object with texts as keys");
    };
    pod::fill_spec(&mut fields);
    serde_json::from_value(Value::Object(fields)).expect("defaults have the types of their fields")
}
