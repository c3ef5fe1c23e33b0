//! Volumes that Knative adds: container logs, pod info, tokens for queue-proxy.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ObjectFieldSelector,
    PodSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use kinglet_api::config::Flag;
use kinglet_api::keys;

use super::{PodInputs, queue};

const VAR_LOG: &str = "knative-var-log";
const POD_INFO: &str = "pod-info";
const TOKENS: &str = "knative-token-volume";
const TOKEN_SECONDS: i64 = 3600;

/// Adds the volumes, and the logs' mounts to the user's containers.
pub(super) fn extend(pod: &mut PodSpec, inputs: PodInputs<'_>) {
    let mut added = Vec::new();
    if inputs.configs.observability.enable_var_log_collection {
        added.push(collected_logs(pod));
    }
    if has_pod_info(inputs) {
        added.push(pod_info());
    }
    let audiences = &inputs.configs.deployment.queue_sidecar_token_audiences;
    if !audiences.is_empty() {
        added.push(tokens(audiences));
    }
    if !added.is_empty() {
        pod.volumes.get_or_insert_default().extend(added);
    }
}

/// Mounts a volume over the log directory of each user container, where a collector finds it.
fn collected_logs(pod: &mut PodSpec) -> Volume {
    for container in pod
        .containers
        .iter_mut()
        .filter(|container| container.name != queue::NAME)
    {
        let path = format!(
            "$(K_INTERNAL_POD_NAMESPACE)_$(K_INTERNAL_POD_NAME)_{}",
            container.name
        );
        container
            .volume_mounts
            .get_or_insert_default()
            .push(VolumeMount {
                name: VAR_LOG.to_owned(),
                mount_path: "/var/log".to_owned(),
                sub_path_expr: Some(path),
                ..VolumeMount::default()
            });
        let env = container.env.get_or_insert_default();
        env.push(queue::field("K_INTERNAL_POD_NAME", "metadata.name"));
        env.push(queue::field(
            "K_INTERNAL_POD_NAMESPACE",
            "metadata.namespace",
        ));
    }
    Volume {
        name: VAR_LOG.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

fn pod_info() -> Volume {
    let annotations = DownwardAPIVolumeFile {
        path: "annotations".to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: "metadata.annotations".to_owned(),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let source = DownwardAPIVolumeSource {
        items: Some(vec![annotations]),
        ..DownwardAPIVolumeSource::default()
    };
    Volume {
        name: POD_INFO.to_owned(),
        downward_api: Some(source),
        ..Volume::default()
    }
}

/// A token for each audience that queue-proxy talks to.
fn tokens<'a>(audiences: impl IntoIterator<Item = &'a String>) -> Volume {
    let sources = audiences.into_iter().map(|audience| VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(audience.clone()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: audience.clone(),
        }),
        ..VolumeProjection::default()
    });
    let projected = ProjectedVolumeSource {
        sources: Some(sources.collect()),
        ..ProjectedVolumeSource::default()
    };
    Volume {
        name: TOKENS.to_owned(),
        projected: Some(projected),
        ..Volume::default()
    }
}

/// What queue-proxy mounts.
pub(super) fn of_queue(inputs: PodInputs<'_>) -> Option<Vec<VolumeMount>> {
    let mut mounts = Vec::new();
    let mut mount = |name: &str, path: &str| {
        mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    };
    if has_pod_info(inputs) {
        mount(POD_INFO, "/etc/podinfo");
    }
    if !inputs
        .configs
        .deployment
        .queue_sidecar_token_audiences
        .is_empty()
    {
        mount(TOKENS, "/var/run/secrets/tokens");
    }
    (!mounts.is_empty()).then_some(mounts)
}

fn has_pod_info(inputs: PodInputs<'_>) -> bool {
    let asked = || {
        inputs
            .revision
            .annotation(keys::QUEUE_PROXY_PODINFO)
            .is_some_and(|value| value.eq_ignore_ascii_case("enabled"))
    };
    match inputs.configs.features.queueproxy_mount_podinfo {
        Flag::Enabled => true,
        Flag::Allowed => asked(),
        Flag::Disabled => false,
    }
}
