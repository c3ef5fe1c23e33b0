//! Rules about volumes and where they are mounted (spec/serving.md 1.6.3, 2.5).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::{Features, Flag};
use crate::field::Findings;
use crate::formats;
use crate::go;
use kinglet_quantity::Quantity;

use super::defaults::lets;
use super::look;

const RESERVED_PATHS: [&str; 3] = ["/", "/dev", "/dev/log"];

/// Sources behind a flag: field, its flag, its name in sentences.
fn optional_sources(features: &Features) -> [(&'static str, Flag, &'static str); 6] {
    [
        ("emptyDir", features.podspec_volumes_empty_dir, "EmptyDir"),
        (
            "persistentVolumeClaim",
            features.podspec_persistent_volume_claim,
            "",
        ),
        ("hostPath", features.podspec_volumes_host_path, "HostPath"),
        ("csi", features.podspec_volumes_csi, "CSI"),
        ("ephemeral", features.podspec_volumes_ephemeral, "Ephemeral"),
        ("image", features.podspec_volumes_image, "Image"),
    ]
}

/// The volumes of a pod.
pub(super) fn validate(spec: &Value, features: &Features) -> Findings {
    let mounted: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| look::list(spec, list))
        .flat_map(|container| look::list(container, "volumeMounts"))
        .map(|mount| look::text(mount, "name"))
        .collect();
    let mut seen = BTreeSet::new();
    let mut found = Findings::none();
    for (i, volume) in look::list(spec, "volumes").iter().enumerate() {
        let name = look::text(volume, "name");
        let mut inner = validate_volume(volume, features);
        if !seen.insert(name) {
            inner.add(Findings::error(
                format!("duplicate volume name {}", go::quote(name)),
                "name",
            ));
        }
        if !mounted.contains(name) {
            inner.add(Findings::error(
                format!("volume with name {} not mounted", go::quote(name)),
                "name",
            ));
        }
        found.add(inner.under_at("volumes", i));
        if look::has(volume, "persistentVolumeClaim") {
            found.add(claim(look::at(volume, "persistentVolumeClaim"), features));
        }
    }
    found
}

fn claim(claim: &Value, features: &Features) -> Findings {
    let name = look::text(claim, "claimName");
    let mut found = Findings::none();
    if features.podspec_persistent_volume_claim != Flag::Enabled {
        let message = format!(
            "Persistent volume claim support is disabled, but found persistent volume claim {name}"
        );
        found.add(Findings::general(message));
    }
    let read_only = look::at(claim, "readOnly").as_bool() == Some(true);
    if features.podspec_persistent_volume_write != Flag::Enabled && !read_only {
        let message = format!(
            "Persistent volume write support is disabled, but found persistent volume claim {name} that is not read-only"
        );
        found.add(Findings::general(message));
    }
    found
}

fn validate_volume(volume: &Value, features: &Features) -> Findings {
    let name = look::text(volume, "name");
    // Upstream forgets everything else about a volume without a proper name.
    if name.is_empty() {
        return Findings::missing("name");
    }
    if !formats::dns_1123_label(name).is_empty() {
        return Findings::invalid(name, "name");
    }
    let optional = optional_sources(features);
    let mut found = Findings::none();
    let mut sources = Vec::new();
    for field in look::fields(volume).filter(|field| *field != "name") {
        let source = look::at(volume, field);
        match field {
            "secret" | "configMap" => {
                sources.push(field);
                found.add(items(source));
            }
            "projected" => {
                sources.push(field);
                for (i, projection) in look::list(source, "sources").iter().enumerate() {
                    found.add(projected(projection).under_at("projected", i));
                }
            }
            _ => match optional.iter().find(|(name, ..)| *name == field) {
                Some((_, flag, title)) => {
                    sources.push(field);
                    if !lets(*flag) {
                        found.add(Findings::disallowed(field));
                    }
                    if *flag != Flag::Enabled && !title.is_empty() {
                        found.add(Findings::general(format!(
                            "{title} volume support is disabled, but found {title} volume {name}"
                        )));
                    }
                    found.add(optional_source(field, source).under(field));
                }
                None => found.add(Findings::disallowed(field)),
            },
        }
    }
    let all: Vec<&str> = ["secret", "configMap", "projected"]
        .into_iter()
        .chain(
            optional
                .iter()
                .filter(|(_, flag, _)| *flag == Flag::Enabled)
                .map(|(field, ..)| *field),
        )
        .collect();
    found.add(match sources.as_slice() {
        [] => Findings::missing_one_of(&all),
        [_] => Findings::none(),
        several => Findings::several_of(several),
    });
    found
}

fn optional_source(field: &str, source: &Value) -> Findings {
    match field {
        "emptyDir" => {
            let mut found = match look::text(source, "medium") {
                "" | "Memory" => Findings::none(),
                other => Findings::invalid(other, "medium"),
            };
            let limit = look::text(source, "sizeLimit");
            if Quantity::parse(limit).is_ok_and(Quantity::is_negative) {
                found.add(Findings::invalid(limit, "sizeLimit"));
            }
            found
        }
        "image" => {
            let mut found = match look::text(source, "reference") {
                "" => Findings::missing("reference"),
                _ => Findings::none(),
            };
            match look::text(source, "pullPolicy") {
                "" | "Always" | "IfNotPresent" | "Never" => {}
                other => found.add(Findings::invalid(other, "pullPolicy")),
            }
            found
        }
        "hostPath" if look::text(source, "path").is_empty() => Findings::missing("path"),
        _ => Findings::none(),
    }
}

/// Keys that become files.
fn items(source: &Value) -> Findings {
    let row = |(i, item): (usize, &Value)| {
        let empty = ["key", "path"]
            .into_iter()
            .filter(|field| look::text(item, field).is_empty());
        empty
            .map(Findings::missing)
            .collect::<Findings>()
            .under_at("items", i)
    };
    look::list(source, "items")
        .iter()
        .enumerate()
        .map(row)
        .collect()
}

fn projected(projection: &Value) -> Findings {
    const SOURCES: [&str; 4] = ["secret", "configMap", "serviceAccountToken", "downwardAPI"];
    let mut found: Findings = look::fields(projection)
        .filter(|field| !SOURCES.contains(field))
        .map(Findings::disallowed)
        .collect();
    let given: Vec<&str> = SOURCES
        .into_iter()
        .filter(|field| look::has(projection, field))
        .collect();
    for field in &given {
        let source = look::at(projection, field);
        found.add(match *field {
            "secret" | "configMap" => {
                let mut inner = items(source);
                if look::text(source, "name").is_empty() {
                    inner.add(Findings::missing("name"));
                }
                inner.under(field)
            }
            "serviceAccountToken" if look::text(source, "path").is_empty() => {
                Findings::missing("path").under(field)
            }
            "downwardAPI" => downward(source).under(field),
            _ => Findings::none(),
        });
    }
    found.add(match given.as_slice() {
        [] => Findings::missing_one_of(&SOURCES),
        [_] => Findings::none(),
        several => Findings::several_of(several),
    });
    found
}

fn downward(source: &Value) -> Findings {
    let row = |(i, item): (usize, &Value)| {
        let mut found = Findings::none();
        if look::text(item, "path").is_empty() {
            found.add(Findings::missing("path"));
        }
        found.add(
            match (
                look::has(item, "fieldRef"),
                look::has(item, "resourceFieldRef"),
            ) {
                (false, false) => Findings::missing_one_of(&["fieldRef", "resourceFieldRef"]),
                (true, true) => Findings::several_of(&["fieldRef", "resourceFieldRef"]),
                _ => Findings::none(),
            },
        );
        found.under_at("items", i)
    };
    look::list(source, "items")
        .iter()
        .enumerate()
        .map(row)
        .collect()
}

/// Where a container mounts them.
pub(super) fn mounts(mounts: &[Value], volumes: &[Value], features: &Features) -> Findings {
    let mut found = Findings::none();
    let mut paths = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        found.add(validate_mount(mount, volumes, features, &mut paths).under_at("volumeMounts", i));
        if look::has(mount, "mountPropagation")
            && features.podspec_volumes_mount_propagation != Flag::Enabled
        {
            found.add(Findings::general(format!(
                "Volume Mount Propagation support is disabled, but found volume mount {} with mount propagation",
                look::text(mount, "name")
            )));
        }
    }
    found
}

fn validate_mount(
    mount: &Value,
    volumes: &[Value],
    features: &Features,
    paths: &mut BTreeSet<String>,
) -> Findings {
    let mut found = Findings::none();
    for field in look::fields(mount) {
        let allowed = match field {
            "name" | "readOnly" | "mountPath" | "subPath" => true,
            "mountPropagation" => lets(features.podspec_volumes_mount_propagation),
            _ => false,
        };
        if !allowed {
            found.add(Findings::disallowed(field));
        }
    }
    let volume = volumes
        .iter()
        .find(|volume| look::text(volume, "name") == look::text(mount, "name"));
    let read_only = look::at(mount, "readOnly").as_bool() == Some(true);
    match volume {
        None => found.add(Findings::error(
            "volumeMount has no matching volume",
            "name",
        )),
        Some(volume) => {
            let writable = ["emptyDir", "persistentVolumeClaim", "ephemeral"]
                .iter()
                .any(|source| look::has(volume, source));
            if !writable && !read_only {
                found.add(Findings::error(
                    "volume mount should be readOnly for this type of volume",
                    "readOnly",
                ));
            }
            let claim_read_only = look::at(look::at(volume, "persistentVolumeClaim"), "readOnly")
                .as_bool()
                == Some(true);
            if claim_read_only && !read_only {
                found.add(Findings::error(
                    "volume is readOnly but volume mount is not",
                    "readOnly",
                ));
            }
        }
    }
    match look::text(mount, "mountPropagation") {
        "" | "None" | "HostToContainer" => {}
        other => found.add(Findings::invalid(other, "mountPropagation")),
    }
    let path = look::text(mount, "mountPath");
    let clean = clean_path(path);
    if path.is_empty() {
        found.add(Findings::missing("mountPath"));
    } else if RESERVED_PATHS.contains(&clean.as_str()) {
        found.add(Findings::error(
            format!("mountPath {} is a reserved path", go::quote(&clean)),
            "mountPath",
        ));
    } else if !path.starts_with('/') {
        found.add(Findings::invalid(path, "mountPath"));
    } else if !paths.insert(clean) {
        found.add(Findings::invalid(
            format!("{} must be unique", go::quote(path)),
            "mountPath",
        ));
    }
    found
}

/// Without doubled slashes, `.` and `..`, as Go's `filepath.Clean`.
fn clean_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if path.starts_with('/') {
        format!("/{joined}")
    } else {
        joined
    }
}
