//! Defaults of volumes.

use serde_json::{Value, json};

use crate::fields::{Fields, default, default_text, each};

/// Mode of files from Secrets, ConfigMaps and the downward API.
pub const FILE_MODE: i32 = 0o644;
/// Seconds that a projected token of a ServiceAccount lives.
pub const TOKEN_SECONDS: i64 = 3600;

pub(super) fn fill_volume(volume: &mut Fields) {
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key).and_then(Value::as_object_mut) {
            default(source, "defaultMode", FILE_MODE);
            references(source);
            for part in each(source, "sources") {
                if let Some(token) = part
                    .get_mut("serviceAccountToken")
                    .and_then(Value::as_object_mut)
                {
                    default(token, "expirationSeconds", TOKEN_SECONDS);
                }
                if let Some(downward) = part.get_mut("downwardAPI").and_then(Value::as_object_mut) {
                    references(downward);
                }
            }
        }
    }
    if let Some(path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        default(path, "type", "");
    }
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
}

fn references(source: &mut Fields) {
    for item in each(source, "items") {
        if let Some(reference) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
            default_text(reference, "apiVersion", "v1");
        }
    }
}
