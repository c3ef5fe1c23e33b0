//! What one container sees of its pod's volumes, of the node's own files and of its image's volumes.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use kinglet_quantity::pod::TERMINATION_MESSAGE_PATH;

use crate::spec::environment::expand;
use crate::volumes::{PodDirectories, PreparedVolume};
use crate::wire::Mount;

/// Volumes that one image may declare; every one is a mount.
const IMAGE_VOLUMES_MAX: usize = 64;

/// The container's mounts in the order they are made: parents before children.
pub(crate) fn of(
    container: &Container,
    directories: &PodDirectories,
    attempt: u32,
    volumes: &BTreeMap<String, PreparedVolume>,
    image_volumes: &[String],
    environment: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for one in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .get(&one.name)
            .ok_or_else(|| format!("volume {:?} not found", one.name))?;
        mounts.push(Mount::Bind {
            source: volume.path.clone(),
            sub_path: sub_path(one, environment)?,
            target: Path::new("/").join(&one.mount_path),
            read_only: volume.read_only || one.read_only == Some(true),
            allow_devices: volume.of_host,
        });
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
            mounts.push(own_file(directories.etc(file), target));
        }
    }
    mounts.push(own_file(
        directories.termination_log(&container.name, attempt),
        termination_path(container),
    ));
    if image_volumes.len() > IMAGE_VOLUMES_MAX {
        return Err(format!(
            "the image declares {} volumes, more than {IMAGE_VOLUMES_MAX}",
            image_volumes.len()
        ));
    }
    for path in image_volumes {
        let target = Path::new("/").join(path);
        // The Pod's own volume at the same place wins.
        if target != Path::new("/") && !mounts.iter().any(|mount| *mount.target() == target) {
            mounts.push(Mount::ImageVolume { target });
        }
    }
    mounts.sort_by_key(|mount| mount.target().components().count());
    Ok(mounts)
}

/// The part of a volume that is mounted, if it is not all of it.
fn sub_path(
    mount: &VolumeMount,
    environment: &[(String, String)],
) -> Result<Option<PathBuf>, String> {
    let path = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
        (_, Some(expression)) if !expression.is_empty() => {
            let known: BTreeMap<String, String> = environment.iter().cloned().collect();
            expand(expression, &known)
        }
        (Some(path), _) if !path.is_empty() => path.to_owned(),
        _ => return Ok(None),
    };
    let path = PathBuf::from(path);
    let is_below = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_below {
        return Err(format!(
            "subPath {path:?} of volume {:?} must be a path below the volume",
            mount.name
        ));
    }
    Ok(Some(path))
}

/// Where the program leaves its last words.
pub(crate) fn termination_path(container: &Container) -> &str {
    container
        .termination_message_path
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(TERMINATION_MESSAGE_PATH)
}

/// A file that Kinglet makes for the container, which may write it.
fn own_file(source: PathBuf, target: &str) -> Mount {
    Mount::Bind {
        source,
        sub_path: None,
        target: Path::new("/").join(target),
        read_only: false,
        allow_devices: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mounts(container: serde_json::Value) -> Result<Vec<Mount>, String> {
        with_image_volumes(container, &[])
    }

    fn with_image_volumes(
        container: serde_json::Value,
        image_volumes: &[String],
    ) -> Result<Vec<Mount>, String> {
        let container: Container = serde_json::from_value(container).expect("container");
        let volume = |path: &str, read_only| PreparedVolume {
            path: PathBuf::from(path),
            read_only,
            of_host: false,
        };
        let volumes = BTreeMap::from([
            ("data".to_owned(), volume("/v/data", false)),
            ("api".to_owned(), volume("/v/api", true)),
        ]);
        let environment = [("NAME".to_owned(), "x".to_owned())];
        of(
            &container,
            &PodDirectories::new(Path::new("/node"), "uid"),
            2,
            &volumes,
            image_volumes,
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
        assert!(all.contains(&Mount::Bind {
            source: "/v/data".into(),
            sub_path: Some("x/y".into()),
            target: "/a/b/c".into(),
            read_only: true,
            allow_devices: false,
        }));
        assert!(all.contains(&own_file(
            "/node/memory/uid/termination/c-2/message".into(),
            "/dev/termination-log",
        )));
    }

    #[test]
    fn files_from_the_api_are_read_only_whatever_the_pod_says() {
        let all = mounts(json!({"name": "c", "volumeMounts": [
            {"name": "api", "mountPath": "/a", "readOnly": false},
        ]}))
        .expect("mounts");
        assert!(
            matches!(&all[0], Mount::Bind { read_only: true, target, .. } if target == Path::new("/a"))
        );
    }

    #[test]
    fn the_volumes_of_an_image_yield_to_those_of_the_pod() {
        let declared = ["/a".to_owned(), "data/".to_owned(), "/".to_owned()];
        let all = with_image_volumes(
            json!({"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/a"}]}),
            &declared,
        )
        .expect("mounts");
        let of_image: Vec<_> = all
            .iter()
            .filter(|mount| matches!(mount, Mount::ImageVolume { .. }))
            .map(Mount::target)
            .collect();
        assert_eq!(of_image, [Path::new("/data")]);
        let many: Vec<String> = (0..65).map(|number| format!("/v{number}")).collect();
        assert!(with_image_volumes(json!({"name": "c"}), &many).is_err());
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
