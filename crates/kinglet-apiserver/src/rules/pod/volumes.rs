//! What may be in the volumes of a pod.

use std::collections::HashSet;

use serde_json::Value;

use super::environment;
use crate::builtin::quantity as quantities;
use crate::names;
use crate::object::{items, number, text};
use crate::status::Cause;

/// Every kind of volume that Kubernetes knows.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
const PROJECTED: [&str; 5] = [
    "clusterTrustBundle",
    "configMap",
    "downwardAPI",
    "secret",
    "serviceAccountToken",
];
/// Tokens of pods live between these.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Checks the volumes and answers their names.
pub(super) fn check<'a>(spec: &'a Value, path: &str, causes: &mut Vec<Cause>) -> HashSet<&'a str> {
    let mut known = HashSet::new();
    for (index, volume) in items(spec, &["volumes"]).iter().enumerate() {
        let at = format!("{path}.volumes[{index}]");
        let name = text(volume, &["name"]);
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if let Some(wrong) = names::label(name) {
            causes.push(Cause::invalid(format!("{at}.name"), &name.into(), &wrong));
        } else if !known.insert(name) {
            causes.push(Cause::duplicate(format!("{at}.name"), &name.into()));
        }
        let sources: Vec<&str> = SOURCES
            .iter()
            .copied()
            .filter(|source| volume.get(*source).is_some_and(|v| !v.is_null()))
            .collect();
        if let [_, second, ..] = sources.as_slice() {
            causes.push(Cause::forbidden(
                format!("{at}.{second}"),
                "may not specify more than 1 volume type",
            ));
        }
        if let [kind] = sources.as_slice() {
            source(kind, &volume[*kind], &format!("{at}.{kind}"), causes);
        }
    }
    known
}

fn source(kind: &str, source: &Value, path: &str, causes: &mut Vec<Cause>) {
    match kind {
        "secret" => {
            named(source, "secretName", path, causes);
            keys(source, path, causes);
        }
        "configMap" => {
            named(source, "name", path, causes);
            keys(source, path, causes);
        }
        "hostPath" => host_path(source, path, causes),
        "emptyDir" => {
            let limit = quantities::of(&source["sizeLimit"]);
            if limit.is_some_and(quantities::Quantity::is_negative) {
                causes.push(Cause::forbidden(
                    format!("{path}.sizeLimit"),
                    "SizeLimit field must be a valid resource quantity",
                ));
            }
        }
        "downwardAPI" => {
            mode(source, "defaultMode", path, causes);
            for item in items(source, &["items"]) {
                downward(item, path, causes);
            }
        }
        "projected" => projected(source, path, causes),
        _ => {}
    }
}

fn named(source: &Value, field: &str, path: &str, causes: &mut Vec<Cause>) {
    if text(source, &[field]).is_empty() {
        causes.push(Cause::required(format!("{path}.{field}"), ""));
    }
}

fn mode(source: &Value, field: &str, path: &str, causes: &mut Vec<Cause>) {
    if number(source, &[field]).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        causes.push(Cause::invalid(
            format!("{path}.{field}"),
            &source[field],
            "must be a number between 0 and 0777 (octal), both inclusive",
        ));
    }
}

/// Which keys become which files.
fn keys(source: &Value, path: &str, causes: &mut Vec<Cause>) {
    mode(source, "defaultMode", path, causes);
    for (index, item) in items(source, &["items"]).iter().enumerate() {
        let at = format!("{path}.items[{index}]");
        named(item, "key", &at, causes);
        file(text(item, &["path"]), &format!("{at}.path"), causes);
        mode(item, "mode", &at, causes);
    }
}

fn downward(item: &Value, path: &str, causes: &mut Vec<Cause>) {
    file(text(item, &["path"]), &format!("{path}.path"), causes);
    mode(item, "mode", path, causes);
    match (
        item["fieldRef"].is_object(),
        item["resourceFieldRef"].is_object(),
    ) {
        (false, false) => causes.push(Cause::required(
            path,
            "one of fieldRef and resourceFieldRef is required",
        )),
        (true, true) => causes.push(Cause::invalid(
            path,
            &"resource".into(),
            "fieldRef and resourceFieldRef can not be specified simultaneously",
        )),
        (true, false) => {}
        (false, true) => environment::resource_field(
            text(item, &["resourceFieldRef", "resource"]),
            &format!("{path}.resourceFieldRef.resource"),
            causes,
        ),
    }
}

fn host_path(source: &Value, path: &str, causes: &mut Vec<Cause>) {
    named(source, "path", path, causes);
    let host = text(source, &["path"]);
    if host.split('/').any(|part| part == "..") {
        causes.push(Cause::invalid(
            format!("{path}.path"),
            &host.into(),
            "must not contain '..'",
        ));
    }
    let kind = text(source, &["type"]);
    if !HOST_PATH_TYPES.contains(&kind) {
        causes.push(Cause::unsupported(
            format!("{path}.type"),
            &kind.into(),
            &HOST_PATH_TYPES,
        ));
    }
}

fn projected(source: &Value, path: &str, causes: &mut Vec<Cause>) {
    mode(source, "defaultMode", path, causes);
    let mut files = HashSet::new();
    for (index, each) in items(source, &["sources"]).iter().enumerate() {
        let at = format!("{path}.sources[{index}]");
        let kinds: Vec<&str> = PROJECTED
            .iter()
            .copied()
            .filter(|kind| each[*kind].is_object())
            .collect();
        if kinds.len() > 1 {
            causes.push(Cause::forbidden(
                at,
                "may not specify more than 1 volume type per source",
            ));
            continue;
        }
        let Some(kind) = kinds.first() else { continue };
        let (source, below) = (&each[*kind], format!("{at}.{kind}"));
        match *kind {
            "secret" | "configMap" => {
                named(source, "name", &below, causes);
                keys(source, &below, causes);
            }
            "downwardAPI" => {
                for item in items(source, &["items"]) {
                    downward(item, &below, causes);
                }
            }
            "serviceAccountToken" => token(source, path, &below, causes),
            "clusterTrustBundle" => file(text(source, &["path"]), &format!("{below}.path"), causes),
            _ => {}
        }
        // Kubernetes compares the paths of items only, not those of tokens.
        for item in items(source, &["items"]) {
            let file = text(item, &["path"]);
            if !file.is_empty() && !files.insert(file) {
                causes.push(Cause::invalid(
                    path,
                    &text(source, &["name"]).into(),
                    "conflicting duplicate paths",
                ));
            }
        }
    }
}

fn token(source: &Value, projected: &str, path: &str, causes: &mut Vec<Cause>) {
    let wrong = match number(source, &["expirationSeconds"]) {
        Some(..TOKEN_SECONDS_MIN) => Some("may not specify a duration less than 10 minutes"),
        Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
            Some("may not specify a duration larger than 2^32 seconds")
        }
        _ => None,
    };
    if let Some(wrong) = wrong {
        causes.push(Cause::invalid(
            format!("{path}.expirationSeconds"),
            &source["expirationSeconds"],
            wrong,
        ));
    }
    let file = text(source, &["path"]);
    if file.is_empty() {
        causes.push(Cause::required(format!("{projected}.path"), ""));
    } else {
        local_path(file, &format!("{projected}.path"), causes);
    }
}

/// A file of a volume: below it, and not among the names that its updates use.
fn file(path_in_volume: &str, path: &str, causes: &mut Vec<Cause>) {
    if path_in_volume.is_empty() {
        causes.push(Cause::required(path, ""));
        return;
    }
    local_path(path_in_volume, path, causes);
    if path_in_volume.starts_with("..") {
        causes.push(Cause::invalid(
            path,
            &path_in_volume.into(),
            "must not start with '..'",
        ));
    }
}

/// A path that stays below where it begins.
pub(super) fn local_path(local: &str, path: &str, causes: &mut Vec<Cause>) {
    if local.starts_with('/') {
        causes.push(Cause::invalid(
            path,
            &local.into(),
            "must be a relative path",
        ));
    }
    if local.split('/').any(|part| part == "..") {
        causes.push(Cause::invalid(path, &local.into(), "must not contain '..'"));
    }
}
