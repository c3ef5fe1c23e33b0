//! The image of a container: present, or pulled with the credentials of its pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Secret, ServiceAccount};
use kinglet_image::{Credentials, ImageError, PullPolicy, ReadyImage};
use kinglet_quantity::pod::pull_policy;
use kinglet_reconcile::{Context, Severity};

use super::{ContainerStartError, Shared, namespace, start_error};

/// Finds the image, or pulls it as the container's policy says.
pub(super) async fn image(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    container: &Container,
) -> Result<Arc<ReadyImage>, ContainerStartError> {
    let name = Some(container.name.as_str());
    let reference = container.image.as_deref().unwrap_or("");
    let policy = container.image_pull_policy.as_deref();
    let policy = match policy.unwrap_or_else(|| pull_policy(reference)) {
        "Always" => PullPolicy::Always,
        "Never" => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    };
    let images = &shared.options.images;
    let credentials = credentials(shared.context(), pod);
    if let Ok(ready) = images
        .ensure(reference, PullPolicy::Never, &credentials)
        .await
        && policy != PullPolicy::Always
    {
        shared.event(
            pod,
            name,
            Severity::Normal,
            "Pulled",
            format!("Container image {reference:?} already present on machine"),
        );
        return Ok(ready);
    }
    if policy != PullPolicy::Never {
        shared.event(
            pod,
            name,
            Severity::Normal,
            "Pulling",
            format!("Pulling image {reference:?}"),
        );
    }
    let began = tokio::time::Instant::now();
    match images.ensure(reference, policy, &credentials).await {
        Ok(ready) => {
            let took = began.elapsed();
            shared.event(
                pod,
                name,
                Severity::Normal,
                "Pulled",
                format!(
                    "Successfully pulled image {reference:?} in {}ms",
                    took.as_millis()
                ),
            );
            Ok(ready)
        }
        Err(error) => {
            let reason = error.reason();
            let message = message_of(&error, reference);
            shared.event(pod, name, Severity::Warning, "Failed", message);
            shared.event(
                pod,
                name,
                Severity::Warning,
                "Failed",
                format!("Error: {reason}"),
            );
            Err(start_error(reason, error.to_string()))
        }
    }
}

/// What a kubelet's Event says.
fn message_of(error: &ImageError, reference: &str) -> String {
    match error {
        ImageError::InvalidName { message, .. } => format!(
            "Failed to apply default image tag {reference:?}: couldn't parse image name {reference:?}: {message}"
        ),
        _ => format!("Failed to pull image {reference:?}: {error}"),
    }
}

/// Pull secrets of the pod, then of its service account.
pub(super) fn credentials(context: &Context, pod: &Pod) -> Credentials {
    let mut all = Credentials::default();
    let spec = pod.spec.as_ref();
    let account = spec
        .and_then(|spec| spec.service_account_name.as_deref())
        .unwrap_or("default");
    let of_account = context
        .cache::<ServiceAccount>()
        .get(namespace(pod), account);
    let own = spec
        .into_iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let theirs = of_account
        .iter()
        .flat_map(|account| account.image_pull_secrets.iter().flatten());
    for reference in theirs.chain(own) {
        let Some(secret) = context
            .cache::<Secret>()
            .get(namespace(pod), &reference.name)
        else {
            continue;
        };
        for key in [".dockerconfigjson", ".dockercfg"] {
            if let Some(document) = secret.data.as_ref().and_then(|data| data.get(key))
                && let Err(why) = all.add_docker_config(&document.0)
            {
                tracing::warn!(
                    secret = reference.name,
                    why,
                    "an image pull secret cannot be read"
                );
            }
        }
    }
    all
}
