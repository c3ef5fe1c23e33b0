//! Rules about one container (spec/serving.md 1.6.2, 2.5).

use serde_json::Value;

use crate::config::{Features, Flag};
use crate::field::Findings;
use crate::go;
use crate::image_reference;

use super::defaults::lets;
use super::{look, probes, security, volumes};

const FIELDS: [&str; 17] = [
    "name",
    "args",
    "command",
    "env",
    "workingDir",
    "envFrom",
    "image",
    "imagePullPolicy",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "ports",
    "resources",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
];
const RESERVED_NAME: &str = "queue-proxy";
const RESERVED_PORTS: [i64; 6] = [8012, 8013, 8022, 9090, 9091, 8008];
const RESERVED_ENV: [&str; 3] = ["K_SERVICE", "K_CONFIGURATION", "K_REVISION"];

/// More ports than requests can be sent to.
pub(super) fn too_many_ports(path: &str) -> Findings {
    Findings::error("more than one container port is set", path)
        .details("Only a single port is allowed across all containers")
}

/// The container that requests go to.
pub(super) fn serving(container: &Value, mounted: &[Value], features: &Features) -> Findings {
    let mut found = common(container, mounted, features, true);
    let ports = look::list(container, "ports");
    let port_name = match ports.first().map(|port| look::text(port, "name")) {
        None | Some("") => "http",
        Some(name) => name,
    };
    found.add(
        probes::readiness(look::at(container, "readinessProbe"), port_name).under("readinessProbe"),
    );
    for probe in ["livenessProbe", "startupProbe"] {
        found.add(probes::handler(look::at(container, probe), port_name).under(probe));
    }
    found
}

/// A container beside the one that serves.
pub(super) fn sidecar(container: &Value, mounted: &[Value], features: &Features) -> Findings {
    let mut found = common(container, mounted, features, false);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let value = look::at(container, probe);
        if value.is_null() {
            continue;
        }
        if features.multi_container_probing != Flag::Enabled {
            found.add(probes::none_of(value).under(probe));
        } else if probe == "readinessProbe" {
            found.add(probes::sidecar_readiness(value).under(probe));
        } else {
            found.add(probes::sidecar(value).under(probe));
        }
    }
    found
}

/// A container that runs before the others.
pub(super) fn init(container: &Value, mounted: &[Value], features: &Features) -> Findings {
    let mut found = common(container, mounted, features, false);
    for field in [
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ] {
        if look::has(container, field) {
            found.add(Findings::error(
                "field not allowed in an init container",
                field,
            ));
        }
    }
    found
}

fn common(container: &Value, mounted: &[Value], features: &Features, serves: bool) -> Findings {
    let only_empty = look::fields(container).all(|field| match field {
        "name" => look::text(container, "name").is_empty(),
        "resources" => look::is_empty(look::at(container, "resources")),
        _ => false,
    });
    if only_empty {
        return Findings::missing("");
    }
    let mut found: Findings = look::fields(container)
        .filter(|field| !FIELDS.contains(field))
        .map(Findings::disallowed)
        .collect();
    let name = look::text(container, "name");
    if name == RESERVED_NAME {
        found.add(Findings::error(
            format!("{} is a reserved container name", go::quote(name)),
            "name",
        ));
    }
    found.add(image(look::text(container, "image")));
    found.add(environment(container, features, serves));
    found.add(ports(look::list(container, "ports"), serves));
    if look::has(look::at(container, "resources"), "claims") {
        found.add(Findings::disallowed("claims").under("resources"));
    }
    found.add(
        security::container(look::at(container, "securityContext"), features)
            .under("securityContext"),
    );
    match look::text(container, "terminationMessagePolicy") {
        "" | "File" | "FallbackToLogsOnError" => {}
        other => found.add(Findings::invalid(other, "terminationMessagePolicy")),
    }
    found.add(volumes::mounts(
        look::list(container, "volumeMounts"),
        mounted,
        features,
    ));
    found
}

fn image(image: &str) -> Findings {
    if image.is_empty() {
        return Findings::missing("image");
    }
    if image_reference::is_reference(image) {
        return Findings::none();
    }
    let details = format!(
        "image: {}, error: could not parse reference: {image}",
        go::quote(image)
    );
    Findings::error("Failed to parse image reference", "image").details(details)
}

fn environment(container: &Value, features: &Features, serves: bool) -> Findings {
    let mut found = Findings::none();
    for (i, env) in look::list(container, "env").iter().enumerate() {
        let mut inner = Findings::none();
        let name = look::text(env, "name");
        if name.is_empty() {
            inner.add(Findings::missing("name"));
        } else if RESERVED_ENV.contains(&name) || (serves && name == "PORT") {
            inner.add(Findings::error(
                format!("{} is a reserved environment variable", go::quote(name)),
                "name",
            ));
        }
        let from = look::at(env, "valueFrom");
        for field in look::fields(from) {
            let wrong = match field {
                "configMapKeyRef" | "secretKeyRef" => {
                    let reference = look::at(from, field);
                    let empty = ["name", "key"]
                        .into_iter()
                        .filter(|part| look::text(reference, part).is_empty());
                    empty
                        .map(Findings::missing)
                        .collect::<Findings>()
                        .under(field)
                }
                "fieldRef" | "resourceFieldRef" if lets(features.podspec_field_ref) => {
                    Findings::none()
                }
                other => Findings::disallowed(other),
            };
            inner.add(wrong.under("valueFrom"));
        }
        found.add(inner.under_at("env", i));
    }
    for source in look::list(container, "envFrom") {
        let given: Vec<&str> = ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|reference| look::has(source, reference))
            .collect();
        let inner = match given.as_slice() {
            [] => Findings::missing_one_of(&["configMapRef", "secretRef"]),
            [one] if look::text(look::at(source, one), "name").is_empty() => {
                Findings::missing("name").under(one)
            }
            [_] => Findings::none(),
            several => Findings::several_of(several),
        };
        found.add(inner.under("envFrom"));
    }
    found
}

/// The first port of a serving container; every port of another.
fn ports(ports: &[Value], serves: bool) -> Findings {
    let judged = if serves {
        &ports[..ports.len().min(1)]
    } else {
        ports
    };
    judged.iter().map(port).collect::<Findings>().under("ports")
}

fn port(port: &Value) -> Findings {
    let mut found: Findings = ["hostPort", "hostIP"]
        .into_iter()
        .filter(|field| look::has(port, field))
        .map(Findings::disallowed)
        .collect();
    let number = look::number(port, "containerPort").unwrap_or_default();
    if RESERVED_PORTS.contains(&number) {
        found.add(
            Findings::invalid(format!("{number} is a reserved port"), "containerPort").details(
                format!("{number} is a reserved port, please use a different value"),
            ),
        );
    } else if !(0..=65535).contains(&number) {
        found.add(Findings::out_of_bounds(number, 0, 65535, "containerPort"));
    }
    match look::text(port, "protocol") {
        "" | "TCP" => {}
        other => found.add(Findings::invalid(other, "protocol")),
    }
    match look::text(port, "name") {
        "" | "h2c" | "http1" => {}
        other => found.add(
            Findings::error(format!("Port name {other} is not allowed"), "")
                .details("Name must be empty, or one of: 'h2c', 'http1'"),
        ),
    }
    found
}
