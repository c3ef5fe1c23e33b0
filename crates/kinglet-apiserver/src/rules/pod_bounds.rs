//! Users, modes and paths of a pod that lie outside of what a node can act on.
//!
//! A user id of 4294967295 means "as before" to the kernel, so a container would go on as root.

use serde_json::Value;

use crate::object::{items, text};
use crate::status::Cause;

/// Linux itself knows larger ones; runtimes and Kubernetes do not.
const ID_MAX: i64 = i32::MAX as i64;
const MODE_MAX: i64 = 0o777;

pub(super) fn check(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let context = &spec["securityContext"];
    let at = format!("{path}.securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(&context[field], || format!("{at}.{field}"), causes);
    }
    for (index, group) in items(context, &["supplementalGroups"]).iter().enumerate() {
        id(
            group,
            || format!("{at}.supplementalGroups[{index}]"),
            causes,
        );
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in items(spec, &[list]).iter().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            for field in ["runAsUser", "runAsGroup"] {
                let place = || format!("{at}.securityContext.{field}");
                id(&container["securityContext"][field], place, causes);
            }
            for (index, mount) in items(container, &["volumeMounts"]).iter().enumerate() {
                volume_mount(mount, &format!("{at}.volumeMounts[{index}]"), causes);
            }
        }
    }
    for (index, volume) in items(spec, &["volumes"]).iter().enumerate() {
        let at = format!("{path}.volumes[{index}]");
        for kind in ["configMap", "secret", "downwardAPI"] {
            source(&volume[kind], &format!("{at}.{kind}"), causes);
        }
        mode(
            &volume["projected"],
            "defaultMode",
            &format!("{at}.projected"),
            causes,
        );
        for (index, each) in items(volume, &["projected", "sources"]).iter().enumerate() {
            let at = format!("{at}.projected.sources[{index}]");
            for kind in ["configMap", "secret", "downwardAPI"] {
                source(&each[kind], &format!("{at}.{kind}"), causes);
            }
            for kind in ["serviceAccountToken", "clusterTrustBundle"] {
                inside(&each[kind]["path"], || format!("{at}.{kind}.path"), causes);
            }
        }
    }
}

fn id(value: &Value, path: impl Fn() -> String, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|id| !(0..=ID_MAX).contains(&id)) {
        let words = format!("must be between 0 and {ID_MAX}, inclusive");
        causes.push(Cause::invalid(path(), value, &words));
    }
}

/// Files of a volume whose content is from the API.
fn source(source: &Value, path: &str, causes: &mut Vec<Cause>) {
    mode(source, "defaultMode", path, causes);
    for (index, item) in items(source, &["items"]).iter().enumerate() {
        let at = format!("{path}.items[{index}]");
        mode(item, "mode", &at, causes);
        inside(&item["path"], || format!("{at}.path"), causes);
    }
}

fn mode(of: &Value, field: &str, path: &str, causes: &mut Vec<Cause>) {
    let value = &of[field];
    if value
        .as_i64()
        .is_some_and(|mode| !(0..=MODE_MAX).contains(&mode))
    {
        let words = "must be a number between 0 and 0777 (octal), both inclusive";
        causes.push(Cause::invalid(format!("{path}.{field}"), value, words));
    }
}

/// A path of a file that is made in a volume.
fn inside(value: &Value, path: impl Fn() -> String, causes: &mut Vec<Cause>) {
    let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
        return;
    };
    below(text, &path, causes);
    if text.starts_with("..") && text.split('/').next() != Some("..") {
        causes.push(Cause::invalid(path(), value, "must not start with '..'"));
    }
}

fn below(text: &str, path: &impl Fn() -> String, causes: &mut Vec<Cause>) {
    if text.starts_with('/') {
        causes.push(Cause::invalid(
            path(),
            &text.into(),
            "must be a relative path",
        ));
    }
    if text.split('/').any(|part| part == "..") {
        causes.push(Cause::invalid(
            path(),
            &text.into(),
            "must not contain '..'",
        ));
    }
}

fn volume_mount(mount: &Value, path: &str, causes: &mut Vec<Cause>) {
    if text(mount, &["mountPath"]).contains(':') {
        let place = &mount["mountPath"];
        causes.push(Cause::invalid(
            format!("{path}.mountPath"),
            place,
            "must not contain ':'",
        ));
    }
    for field in ["subPath", "subPathExpr"] {
        below(text(mount, &[field]), &|| format!("{path}.{field}"), causes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(spec: &Value) -> Vec<String> {
        let mut causes = Vec::new();
        check(spec, "spec", &mut causes);
        causes.iter().map(|cause| format!("{cause:?}")).collect()
    }

    #[test]
    fn ids_that_the_kernel_takes_for_no_change_are_refused() {
        for id in [-1_i64, 1 << 31, 4_294_967_295, 4_294_967_296] {
            for spec in [
                json!({"securityContext": {"runAsUser": id}}),
                json!({"securityContext": {"runAsGroup": id}}),
                json!({"securityContext": {"fsGroup": id}}),
                json!({"securityContext": {"supplementalGroups": [1, id]}}),
                json!({"containers": [{"securityContext": {"runAsUser": id}}]}),
                json!({"initContainers": [{"securityContext": {"runAsGroup": id}}]}),
            ] {
                let said = said(&spec);
                assert_eq!(said.len(), 1, "{spec}: {said:?}");
                assert!(said[0].contains("must be between 0 and 2147483647, inclusive"));
            }
        }
        assert!(
            said(&json!({"securityContext": {"runAsUser": 0, "fsGroup": 2_147_483_647}}))
                .is_empty()
        );
    }

    #[test]
    fn paths_and_modes_stay_inside() {
        let item = |path: &str| json!({"volumes": [{"name": "v", "configMap": {"items": [{"key": "a", "path": path}]}}]});
        let token = |path: &str| json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": path}}]}}]});
        let mount = |field: &str, path: &str| json!({"containers": [{"volumeMounts": [{"name": "v", "mountPath": "/x", field: path}]}]});
        for (spec, words) in [
            (item("../x"), "must not contain '..'"),
            (item("a/../../x"), "must not contain '..'"),
            (item("..data/x"), "must not start with '..'"),
            (item("/etc/x"), "must be a relative path"),
            (token("../x"), "must not contain '..'"),
            (mount("subPath", "../x"), "must not contain '..'"),
            (mount("subPath", "/x"), "must be a relative path"),
            (mount("subPathExpr", "$(A)/.."), "must not contain '..'"),
            (mount("mountPath", "/a:b"), "must not contain ':'"),
            (
                json!({"volumes": [{"name": "v", "secret": {"defaultMode": 0o4755}}]}),
                "between 0 and 0777",
            ),
            (
                json!({"volumes": [{"name": "v", "projected": {"defaultMode": -1}}]}),
                "between 0 and 0777",
            ),
        ] {
            let said = said(&spec);
            assert_eq!(said.len(), 1, "{spec}: {said:?}");
            assert!(said[0].contains(words), "{spec}: {said:?}");
        }
        for fine in [
            item("a/b..c"),
            item("x..y"),
            mount("subPath", "a/b"),
            mount("subPath", ""),
        ] {
            assert!(said(&fine).is_empty(), "{fine}: {:?}", said(&fine));
        }
    }
}
