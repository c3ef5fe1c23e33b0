//! What one container sees of its pod's volumes.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::Container;

use crate::spec::environment::expand;
use crate::volumes::PodDirectories;
use crate::wire::Mount;

/// Where a program leaves its last words, unless told otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The container's mounts in the order they are made: parents before children.
pub(crate) fn of(
    container: &Container,
    directories: &PodDirectories,
    attempt: u32,
    volumes: &BTreeMap<String, PathBuf>,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for one in container.volume_mounts.iter().flatten() {
        let source = volumes
            .get(&one.name)
            .ok_or_else(|| format!("volume {:?} not found", one.name))?;
        let sub_path = match (one.sub_path.as_deref(), one.sub_path_expr.as_deref()) {
            (_, Some(expression)) if !expression.is_empty() => {
                let known: BTreeMap<String, String> = environment.iter().cloned().collect();
                Some(expand(expression, &known))
            }
            (Some(path), _) if !path.is_empty() => Some(path.to_owned()),
            _ => None,
        };
        if let Some(path) = &sub_path
            && Path::new(path)
                .components()
                .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(format!(
                "subPath {path:?} of volume {:?} must be a path below the volume",
                one.name
            ));
        }
        mounts.push(bind(
            source.clone(),
            sub_path.map(PathBuf::from),
            &one.mount_path,
            one.read_only == Some(true),
        ));
    }
    for (file, target) in [
        ("hosts", "/etc/hosts"),
        ("hostname", "/etc/hostname"),
        ("resolv.conf", "/etc/resolv.conf"),
    ] {
        if !mounts
            .iter()
            .any(|mount| mount.target() == Path::new(target))
        {
            mounts.push(bind(directories.etc(file), None, target, false));
        }
    }
    let log = termination_path(container);
    mounts.push(bind(
        directories.termination_log(&container.name, attempt),
        None,
        log,
        false,
    ));
    mounts.sort_by_key(|mount| mount.target().components().count());
    Ok(mounts)
}

/// Where the program leaves its last words.
pub(crate) fn termination_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_LOG)
}

fn bind(source: PathBuf, sub_path: Option<PathBuf>, target: &str, read_only: bool) -> Mount {
    Mount::Bind {
        source,
        sub_path,
        target: Path::new("/").join(target),
        read_only,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mounts(container: serde_json::Value) -> Result<Vec<Mount>, String> {
        let container: Container = serde_json::from_value(container).expect("container");
        let volumes = BTreeMap::from([("data".to_owned(), PathBuf::from("/v/data"))]);
        let environment = [("NAME".to_owned(), "x".to_owned())];
        of(
            &container,
            &PodDirectories::new(Path::new("/node"), "uid"),
            2,
            &volumes,
            &environment,
        )
    }

    #[test]
    fn parents_come_first_and_own_files_win() {
        let all = mounts(json!({"name": "c", "volumeMounts": [
            {"name": "data", "mountPath": "/a/b/c", "subPathExpr": "$(NAME)/y", "readOnly": true},
            {"name": "data", "mountPath": "/a"},
            {"name": "data", "mountPath": "/etc/hosts", "subPath": "hosts"},
        ]}))
        .expect("mounts");
        let targets: Vec<_> = all
            .iter()
            .map(|mount| mount.target().display().to_string())
            .collect();
        assert_eq!(
            targets,
            [
                "/a",
                "/etc/hosts",
                "/etc/hostname",
                "/etc/resolv.conf",
                "/dev/termination-log",
                "/a/b/c"
            ]
        );
        assert!(all.contains(&bind("/v/data".into(), Some("x/y".into()), "/a/b/c", true)));
        assert!(all.contains(&bind(
            "/node/memory/uid/termination/c-2".into(),
            None,
            "/dev/termination-log",
            false
        )));
    }

    #[test]
    fn what_is_refused() {
        assert!(
            mounts(json!({"name": "c", "volumeMounts": [{"name": "none", "mountPath": "/a"}]}))
                .is_err()
        );
        assert!(mounts(json!({"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/a", "subPath": "../.."}]})).is_err());
    }
}
