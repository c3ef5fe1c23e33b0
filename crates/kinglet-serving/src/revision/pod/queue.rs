//! The queue-proxy container. Standalone nothing is started for it, but the template is the same in both shapes.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, HTTPHeader,
    ObjectFieldSelector, Probe, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::config::{Flag, SYSTEM_NAMESPACE};
use kinglet_api::keys;
use kinglet_api::networking::Protocol;
use kinglet_reconcile::controller_of;

use super::containers::variable;
use super::{PodInputs, observability, probe, resources, volumes};

pub(super) const NAME: &str = "queue-proxy";
/// Port of the drain hook.
pub(super) const ADMIN_PORT: i32 = 8022;
const HTTP1_PORT: i32 = 8012;
const H2C_PORT: i32 = 8013;
const TLS_PORT: i32 = 8112;
const AUTOMETRIC_PORT: i32 = 9090;
const USERMETRIC_PORT: i32 = 9091;
const PROFILING_PORT: i32 = 8008;

pub(super) fn container(inputs: PodInputs<'_>) -> Container {
    let deployment = &inputs.configs.deployment;
    Container {
        name: NAME.to_owned(),
        image: Some(deployment.queue_sidecar_image.clone()),
        // The image belongs to the installation and is not pulled for each pod, whatever its tag.
        image_pull_policy: Some("IfNotPresent".to_owned()),
        ports: Some(ports(inputs)),
        env: Some(environment(inputs)),
        readiness_probe: Some(readiness(inputs)),
        resources: Some(resources::queue(inputs)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: volumes::of_queue(inputs),
        ..Container::default()
    }
}

fn serving_port(inputs: PodInputs<'_>) -> i32 {
    match inputs.revision.spec.protocol() {
        Protocol::Http1 => HTTP1_PORT,
        Protocol::H2c => H2C_PORT,
    }
}

fn ports(inputs: PodInputs<'_>) -> Vec<ContainerPort> {
    let profiling = inputs
        .configs
        .observability
        .runtime_profiling
        .then_some(("profiling-port", PROFILING_PORT));
    let all = [
        ("http-autometric", AUTOMETRIC_PORT),
        ("http-usermetric", USERMETRIC_PORT),
    ]
    .into_iter()
    .chain(profiling)
    .chain([
        ("queue-port", serving_port(inputs)),
        ("https-port", TLS_PORT),
    ]);
    all.map(|(name, port)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        ..ContainerPort::default()
    })
    .collect()
}

/// Returns the user's readiness probe with its action sent to queue-proxy.
fn readiness(inputs: PodInputs<'_>) -> Probe {
    let timing = inputs
        .revision
        .spec
        .serving_container()
        .and_then(|container| container.readiness_probe.as_ref());
    let get = HTTPGetAction {
        port: IntOrString::Int(serving_port(inputs)),
        http_headers: Some(vec![HTTPHeader {
            name: "K-Network-Probe".to_owned(),
            value: "queue".to_owned(),
        }]),
        ..HTTPGetAction::default()
    };
    Probe {
        exec: None,
        grpc: None,
        tcp_socket: None,
        http_get: Some(get),
        termination_grace_period_seconds: None,
        ..timing.cloned().unwrap_or_default()
    }
}

fn environment(inputs: PodInputs<'_>) -> Vec<EnvVar> {
    let configs = inputs.configs;
    let mut all = Vec::from(of_revision(inputs));
    all.extend(of_pod(inputs));
    all.extend(of_tls(inputs));
    all.extend([
        variable(
            "ENABLE_MULTI_CONTAINER_PROBES",
            enabled(configs.features.multi_container_probing),
        ),
        variable(
            "OBSERVABILITY_CONFIG",
            &observability::json(&configs.observability),
        ),
    ]);
    all
}

fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn enabled(flag: Flag) -> &'static str {
    truth(flag == Flag::Enabled)
}

/// Returns names, ports and limits of the Revision.
fn of_revision(inputs: PodInputs<'_>) -> [EnvVar; 10] {
    let revision = inputs.revision;
    let spec = &revision.spec;
    let number = |value: Option<i64>| value.unwrap_or(0).to_string();
    [
        variable("SERVING_NAMESPACE", revision.namespace()),
        variable(
            "SERVING_SERVICE",
            revision.label(keys::SERVICE).unwrap_or_default(),
        ),
        variable(
            "SERVING_CONFIGURATION",
            controller_of(revision).map_or("", |owner| &owner.name),
        ),
        variable("SERVING_REVISION", revision.name()),
        variable("QUEUE_SERVING_PORT", &serving_port(inputs).to_string()),
        variable("QUEUE_SERVING_TLS_PORT", &TLS_PORT.to_string()),
        variable("CONTAINER_CONCURRENCY", &number(spec.container_concurrency)),
        variable("REVISION_TIMEOUT_SECONDS", &number(spec.timeout_seconds)),
        variable(
            "REVISION_RESPONSE_START_TIMEOUT_SECONDS",
            &number(spec.response_start_timeout_seconds),
        ),
        variable(
            "REVISION_IDLE_TIMEOUT_SECONDS",
            &number(spec.idle_timeout_seconds),
        ),
    ]
}

/// Returns address, logging, port and protocols of the pod.
fn of_pod(inputs: PodInputs<'_>) -> [EnvVar; 10] {
    let PodInputs {
        revision, configs, ..
    } = inputs;
    let duplex = revision
        .annotation(keys::HTTP_FULL_DUPLEX)
        .is_some_and(|value| value.eq_ignore_ascii_case("enabled"));
    [
        field("SERVING_POD", "metadata.name"),
        field("SERVING_POD_IP", "status.podIP"),
        variable("SERVING_LOGGING_CONFIG", &configs.logging.zap_logger_config),
        variable(
            "SERVING_LOGGING_LEVEL",
            configs.logging.level("queueproxy").unwrap_or_default(),
        ),
        variable("USER_PORT", &revision.spec.user_port().to_string()),
        variable("SYSTEM_NAMESPACE", SYSTEM_NAMESPACE),
        variable("SERVING_READINESS_PROBE", &probe::encoded(inputs)),
        field("HOST_IP", "status.hostIP"),
        variable(
            "ENABLE_HTTP2_AUTO_DETECTION",
            enabled(configs.features.autodetect_http2),
        ),
        variable("ENABLE_HTTP_FULL_DUPLEX", truth(duplex)),
    ]
}

/// Returns certificates and bounds of TLS.
fn of_tls(inputs: PodInputs<'_>) -> [EnvVar; 5] {
    let deployment = &inputs.configs.deployment;
    [
        variable("ROOT_CA", &deployment.queue_sidecar_rootca),
        variable(
            "QUEUE_PROXY_TLS_MIN_VERSION",
            &deployment.queue_sidecar_tls_min_version,
        ),
        variable(
            "QUEUE_PROXY_TLS_MAX_VERSION",
            &deployment.queue_sidecar_tls_max_version,
        ),
        variable(
            "QUEUE_PROXY_TLS_CIPHER_SUITES",
            &deployment.queue_sidecar_tls_cipher_suites,
        ),
        variable(
            "QUEUE_PROXY_TLS_CURVE_PREFERENCES",
            &deployment.queue_sidecar_tls_curve_preferences,
        ),
    ]
}

pub(super) fn field(name: &str, path: &str) -> EnvVar {
    let field_ref = ObjectFieldSelector {
        api_version: Some("v1".to_owned()),
        field_path: path.to_owned(),
    };
    let source = EnvVarSource {
        field_ref: Some(field_ref),
        ..EnvVarSource::default()
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}
