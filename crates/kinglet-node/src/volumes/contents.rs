//! Which files a volume from the API consists of.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kinglet_quantity::pod::{FILE_MODE, TOKEN_SECONDS};

use crate::spec::downward::{self, DownwardValues};
use crate::spec::environment::Sources;

/// The ConfigMap with the cluster's CA that every namespace has.
const CA_MAP: &str = "kube-root-ca.crt";

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Files from the API.
    Files(Vec<File>),
    /// An empty directory on disk.
    Empty,
    /// An empty directory in memory.
    Memory(Option<u64>),
    /// A path of this machine.
    Host { path: PathBuf, kind: String },
}

/// A token that a volume needs; it has to be asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenWanted {
    pub(crate) audience: Option<String>,
    pub(crate) seconds: i64,
}

/// All tokens that the volumes of a pod need.
pub(crate) fn tokens(pod: &Pod) -> Vec<TokenWanted> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let projections = volumes
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten());
    let mut wanted: Vec<TokenWanted> = projections
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| wanted(token.audience.as_deref(), token.expiration_seconds))
        .collect();
    wanted.sort();
    wanted.dedup();
    wanted
}

fn wanted(audience: Option<&str>, seconds: Option<i64>) -> TokenWanted {
    TokenWanted {
        audience: audience.filter(|text| !text.is_empty()).map(str::to_owned),
        seconds: seconds.unwrap_or(TOKEN_SECONDS),
    }
}

/// Everything that contents depend on.
pub(crate) struct Inputs<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) downward: &'a DownwardValues,
    pub(crate) sources: &'a dyn Sources,
    pub(crate) tokens: &'a BTreeMap<TokenWanted, String>,
    /// Used where the namespace has no CA ConfigMap yet.
    pub(crate) ca_pem: &'a str,
}

/// What a volume consists of; the error is for the user.
pub(crate) fn of(volume: &Volume, inputs: &Inputs<'_>) -> Result<Content, String> {
    if let Some(empty) = &volume.empty_dir {
        let size_limit = empty.size_limit.as_ref().and_then(bytes);
        return Ok(match empty.medium.as_deref() {
            Some("Memory") => Content::Memory(memory_bytes_max(inputs.pod, size_limit)),
            _ => Content::Empty,
        });
    }
    if let Some(host) = &volume.host_path {
        return Ok(Content::Host {
            path: PathBuf::from(&host.path),
            kind: host.type_.clone().unwrap_or_default(),
        });
    }
    if let Some(map) = &volume.config_map {
        let found = config_map(
            inputs,
            &map.name,
            map.items.as_deref(),
            map.default_mode,
            map.optional == Some(true),
        )?;
        return Ok(Content::Files(found));
    }
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or("");
        let found = self::secret(
            inputs,
            name,
            secret.items.as_deref(),
            secret.default_mode,
            secret.optional == Some(true),
        )?;
        return Ok(Content::Files(found));
    }
    if let Some(downward) = &volume.downward_api {
        return downward_files(inputs, downward.items.as_deref(), downward.default_mode)
            .map(Content::Files);
    }
    if let Some(projected) = &volume.projected {
        return projected_files(inputs, projected).map(Content::Files);
    }
    Err(format!(
        "volume {:?} is of a kind that this node does not have (it has configMap, secret, projected, downwardAPI, emptyDir, hostPath)",
        volume.name
    ))
}

/// The files of all sources together; a later one wins.
fn projected_files(
    inputs: &Inputs<'_>,
    projected: &ProjectedVolumeSource,
) -> Result<Vec<File>, String> {
    let mut all: Vec<File> = Vec::new();
    for source in projected.sources.iter().flatten() {
        for one in projection_files(inputs, source, projected.default_mode)? {
            all.retain(|other| other.path != one.path);
            all.push(one);
        }
    }
    Ok(all)
}

fn projection_files(
    inputs: &Inputs<'_>,
    source: &VolumeProjection,
    mode: Option<i32>,
) -> Result<Vec<File>, String> {
    let mut found = Vec::new();
    if let Some(map) = &source.config_map {
        found.extend(config_map(
            inputs,
            &map.name,
            map.items.as_deref(),
            mode,
            map.optional == Some(true),
        )?);
    }
    if let Some(secret) = &source.secret {
        found.extend(self::secret(
            inputs,
            &secret.name,
            secret.items.as_deref(),
            mode,
            secret.optional == Some(true),
        )?);
    }
    if let Some(downward) = &source.downward_api {
        found.extend(downward_files(inputs, downward.items.as_deref(), mode)?);
    }
    if let Some(token) = &source.service_account_token {
        let wanted = wanted(token.audience.as_deref(), token.expiration_seconds);
        let text = inputs
            .tokens
            .get(&wanted)
            .ok_or("the service account token is not there yet")?;
        found.push(file(&token.path, text.as_bytes().to_vec(), mode)?);
    }
    Ok(found)
}

/// A positive number of bytes.
fn bytes(quantity: &Quantity) -> Option<u64> {
    let bytes = kinglet_quantity::Quantity::parse(&quantity.0).ok()?;
    Some(bytes.units().max(0).unsigned_abs()).filter(|bytes| *bytes > 0)
}

/// The size of an `emptyDir` in memory: its limit, and never more than the containers of the pod may use together (a
/// kubelet's `SizeMemoryBackedVolumes`). `None` when neither says anything.
fn memory_bytes_max(pod: &Pod, size_limit: Option<u64>) -> Option<u64> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice());
    let of_pod = containers
        .unwrap_or_default()
        .iter()
        .map(|container| {
            let limits = container.resources.as_ref()?.limits.as_ref()?;
            limits.get("memory").and_then(bytes)
        })
        .sum::<Option<u64>>()
        .filter(|bytes| *bytes > 0);
    match (size_limit, of_pod) {
        (Some(limit), Some(of_pod)) => Some(limit.min(of_pod)),
        (limit, of_pod) => limit.or(of_pod),
    }
}

fn config_map(
    inputs: &Inputs<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
) -> Result<Vec<File>, String> {
    let mut data: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    match inputs.sources.config_map(name) {
        Some(map) => {
            data.extend(
                map.data
                    .iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.clone().into_bytes())),
            );
            data.extend(
                map.binary_data
                    .iter()
                    .flatten()
                    .map(|(key, value)| (key.clone(), value.0.clone())),
            );
        }
        None if name == CA_MAP && !inputs.ca_pem.is_empty() => {
            data.insert("ca.crt".to_owned(), inputs.ca_pem.as_bytes().to_vec());
        }
        None if optional => return Ok(Vec::new()),
        None => return Err(format!("configmap {name:?} not found")),
    }
    pick(data, items, mode, optional, "config")
}

fn secret(
    inputs: &Inputs<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
) -> Result<Vec<File>, String> {
    let data = match inputs.sources.secret(name) {
        Some(secret) => secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.0.clone()))
            .collect(),
        None if optional => return Ok(Vec::new()),
        None => return Err(format!("secret {name:?} not found")),
    };
    pick(data, items, mode, optional, "secret")
}

fn pick(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
    kind: &str,
) -> Result<Vec<File>, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return data
            .into_iter()
            .map(|(key, bytes)| file(&key, bytes, mode))
            .collect();
    };
    let mut files = Vec::new();
    for item in items {
        match data.get_mut(&item.key) {
            Some(bytes) => files.push(file(&item.path, bytes.clone(), item.mode.or(mode))?),
            None if optional => {}
            None => return Err(format!("references non-existent {kind} key: {}", item.key)),
        }
    }
    Ok(files)
}

fn downward_files(
    inputs: &Inputs<'_>,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
) -> Result<Vec<File>, String> {
    items
        .into_iter()
        .flatten()
        .map(|item| {
            let text = if let Some(selector) = &item.field_ref {
                downward::field(inputs.pod, inputs.downward, selector)?
            } else if let Some(selector) = &item.resource_field_ref {
                downward::resource(inputs.pod, inputs.downward, None, selector)?
            } else {
                return Err(format!("downward API file {:?} has no source", item.path));
            };
            file(&item.path, text.into_bytes(), item.mode.or(mode))
        })
        .collect()
}

fn file(path: &str, bytes: Vec<u8>, mode: Option<i32>) -> Result<File, String> {
    let path = Path::new(path);
    let plain = path.components().all(
        |part| matches!(part, Component::Normal(name) if !name.to_string_lossy().starts_with("..")),
    );
    if !plain || path.as_os_str().is_empty() {
        return Err(format!(
            "{:?} is not a path below a volume",
            path.display().to_string()
        ));
    }
    let mode = u32::try_from(mode.unwrap_or(FILE_MODE) & 0o777).unwrap_or(0o644);
    Ok(File {
        path: path.to_owned(),
        bytes,
        mode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::downward::tests::downward;
    use crate::spec::environment::tests::Fixed;
    use serde_json::json;

    fn content(volume: serde_json::Value) -> Result<Content, String> {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [], "volumes": [volume]}})).expect("pod");
        let tokens = tokens(&pod)
            .into_iter()
            .map(|wanted| (wanted, "jwt".to_owned()))
            .collect();
        let inputs = Inputs {
            pod: &pod,
            downward: &downward(),
            sources: &Fixed,
            tokens: &tokens,
            ca_pem: "PEM",
        };
        of(
            &pod.spec
                .as_ref()
                .expect("spec")
                .volumes
                .as_ref()
                .expect("volumes")[0],
            &inputs,
        )
    }

    fn files(volume: serde_json::Value) -> Result<Vec<(String, String, u32)>, String> {
        match content(volume)? {
            Content::Files(files) => Ok(files
                .into_iter()
                .map(|file| {
                    (
                        file.path.display().to_string(),
                        String::from_utf8_lossy(&file.bytes).into_owned(),
                        file.mode,
                    )
                })
                .collect()),
            other => panic!("{other:?}"),
        }
    }

    fn one(path: &str, text: &str, mode: u32) -> (String, String, u32) {
        (path.to_owned(), text.to_owned(), mode)
    }

    #[test]
    fn every_source() {
        assert_eq!(
            files(json!({"name": "v", "configMap": {"name": "settings"}})),
            Ok(vec![one("colour", "red", 0o644), one("size", "9", 0o644)])
        );
        assert_eq!(
            files(
                json!({"name": "v", "secret": {"secretName": "keys", "defaultMode": 0o400, "items": [{"key": "password", "path": "a/b"}]}})
            ),
            Ok(vec![one("a/b", "hunter", 0o400)])
        );
        let api_access = json!({"name": "v", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]}});
        assert_eq!(
            files(api_access),
            Ok(vec![
                one("token", "jwt", 0o644),
                one("ca.crt", "PEM", 0o644),
                one("namespace", "ns", 0o644)
            ])
        );
        assert_eq!(
            content(json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Ki"}})),
            Ok(Content::Memory(Some(1024)))
        );
        assert_eq!(
            content(json!({"name": "v", "emptyDir": {}})),
            Ok(Content::Empty)
        );
    }

    #[test]
    fn memory_never_exceeds_what_the_pod_may_use() {
        let pod = |limits: &[Option<&str>]| -> Pod {
            let containers: Vec<_> = limits
                .iter()
                .map(|limit| match limit {
                    Some(limit) => json!({"name": "c", "resources": {"limits": {"memory": limit}}}),
                    None => json!({"name": "c"}),
                })
                .collect();
            serde_json::from_value(json!({"spec": {"containers": containers}})).expect("pod")
        };
        assert_eq!(memory_bytes_max(&pod(&[None]), None), None);
        assert_eq!(memory_bytes_max(&pod(&[Some("1Ki"), None]), None), None);
        let limited = pod(&[Some("1Ki"), Some("1Ki")]);
        assert_eq!(memory_bytes_max(&limited, None), Some(2048));
        assert_eq!(memory_bytes_max(&limited, Some(4096)), Some(2048));
        assert_eq!(memory_bytes_max(&limited, Some(512)), Some(512));
    }

    #[test]
    fn what_is_missing_or_wrong() {
        assert_eq!(
            files(json!({"name": "v", "configMap": {"name": "none", "optional": true}})),
            Ok(Vec::new())
        );
        assert_eq!(
            files(json!({"name": "v", "secret": {"secretName": "none"}})),
            Err("secret \"none\" not found".to_owned())
        );
        let key = json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "none", "path": "x"}]}});
        assert_eq!(
            files(key),
            Err("references non-existent config key: none".to_owned())
        );
        for path in ["../x", "/etc/passwd", "..data", ""] {
            assert!(files(json!({"name": "v", "configMap": {"name": "settings", "items": [{"key": "size", "path": path}]}})).is_err(), "{path}");
        }
        assert!(
            content(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})).is_err()
        );
    }
}
