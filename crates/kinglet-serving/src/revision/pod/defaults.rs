//! What Kubernetes fills into a pod spec, so that what is written is what is stored.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, PodSpec, Probe, Volume};

const MESSAGE_PATH: &str = "/dev/termination-log";
const FILE_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

pub(super) fn fill(pod: &mut PodSpec) {
    let text = |value: &str| Some(value.to_owned());
    or(&mut pod.restart_policy, "Always");
    or(&mut pod.dns_policy, "ClusterFirst");
    or(&mut pod.scheduler_name, "default-scheduler");
    pod.security_context
        .get_or_insert_with(PodSecurityContext::default);
    if let Some(account) = pod
        .service_account_name
        .as_deref()
        .filter(|account| !account.is_empty())
    {
        pod.service_account = text(account);
    }
    for container in pod
        .containers
        .iter_mut()
        .chain(pod.init_containers.iter_mut().flatten())
    {
        fill_container(container);
    }
    for volume in pod.volumes.iter_mut().flatten() {
        fill_volume(volume);
    }
}

fn or(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or("").is_empty() {
        *field = Some(default.to_owned());
    }
}

fn fill_container(container: &mut Container) {
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    or(&mut container.image_pull_policy, policy);
    or(&mut container.termination_message_path, MESSAGE_PATH);
    or(&mut container.termination_message_policy, "File");
    container.resources.get_or_insert_default();
    for port in container.ports.iter_mut().flatten() {
        or(&mut port.protocol, "TCP");
    }
    for variable in container.env.iter_mut().flatten() {
        if let Some(field) = variable
            .value_from
            .as_mut()
            .and_then(|source| source.field_ref.as_mut())
        {
            or(&mut field.api_version, "v1");
        }
    }
    let probes = [
        &mut container.readiness_probe,
        &mut container.liveness_probe,
        &mut container.startup_probe,
    ];
    for probe in probes.into_iter().flatten() {
        fill_probe(probe);
    }
    let hooks = container
        .lifecycle
        .iter_mut()
        .flat_map(|hooks| [hooks.pre_stop.as_mut(), hooks.post_start.as_mut()]);
    for get in hooks.flatten().filter_map(|hook| hook.http_get.as_mut()) {
        or(&mut get.scheme, "HTTP");
    }
}

/// A tag that moves is asked for each time.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let fixed = image.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if fixed { "IfNotPresent" } else { "Always" }
}

fn fill_probe(probe: &mut Probe) {
    let number = |field: &mut Option<i32>, default: i32| {
        if field.unwrap_or(0) == 0 {
            *field = Some(default);
        }
    };
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    probe.initial_delay_seconds = probe.initial_delay_seconds.filter(|seconds| *seconds != 0);
    if let Some(get) = &mut probe.http_get {
        or(&mut get.path, "/");
        or(&mut get.scheme, "HTTP");
    }
}

fn fill_volume(volume: &mut Volume) {
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(projected) = &mut volume.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
            }
        }
    }
}
