//! The user's containers as they run: image by digest, Knative's environment, drain hook, no readiness probe of their own.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::config::Flag;
use kinglet_api::keys;

use super::{PodInputs, queue};
use crate::autoscale::pods::USER_PORT_NAME;

pub(super) fn user(inputs: PodInputs<'_>) -> Vec<Container> {
    let serving = inputs
        .revision
        .spec
        .serving_container()
        .map(std::ptr::from_ref);
    let all = inputs.revision.spec.pod.containers.iter();
    all.map(|container| {
        one(
            inputs,
            container,
            Some(std::ptr::from_ref(container)) == serving,
        )
    })
    .collect()
}

fn one(inputs: PodInputs<'_>, container: &Container, serves: bool) -> Container {
    let revision = inputs.revision;
    let mut out = container.clone();
    let resolved = inputs
        .digests
        .iter()
        .find(|known| known.name == container.name);
    if let Some(known) = resolved.filter(|known| !known.image_digest.is_empty()) {
        out.image = Some(known.image_digest.clone());
    }
    let drain = HTTPGetAction {
        path: Some("/wait-for-drain".to_owned()),
        port: IntOrString::Int(queue::ADMIN_PORT),
        ..HTTPGetAction::default()
    };
    out.lifecycle = Some(Lifecycle {
        pre_stop: Some(LifecycleHandler {
            http_get: Some(drain),
            ..LifecycleHandler::default()
        }),
        ..out.lifecycle.unwrap_or_default()
    });
    let env = out.env.get_or_insert_default();
    let user_port = i32::from(revision.spec.user_port());
    if serves {
        env.push(variable("PORT", &user_port.to_string()));
    }
    env.push(variable("K_REVISION", revision.name()));
    env.push(variable(
        "K_CONFIGURATION",
        revision.label(keys::CONFIGURATION).unwrap_or_default(),
    ));
    env.push(variable(
        "K_SERVICE",
        revision.label(keys::SERVICE).unwrap_or_default(),
    ));
    out.stdin = None;
    out.tty = None;
    if out
        .termination_message_policy
        .as_deref()
        .unwrap_or("")
        .is_empty()
    {
        out.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    // queue-proxy asks for them; only a command must be run in the container itself.
    out.readiness_probe = out.readiness_probe.filter(|probe| probe.exec.is_some());
    if serves {
        let protocol = out
            .ports
            .as_ref()
            .and_then(|ports| ports.first())
            .and_then(|port| port.protocol.clone());
        out.ports = Some(vec![ContainerPort {
            name: Some(USER_PORT_NAME.to_owned()),
            container_port: user_port,
            protocol,
            ..ContainerPort::default()
        }]);
        let keep = inputs.configs.features.multi_container_probing == Flag::Enabled;
        if let Some(probe) = &mut out.liveness_probe {
            aim(probe, user_port, keep);
        }
    }
    out
}

/// Points an HTTP or TCP probe at the user port.
fn aim(probe: &mut Probe, user_port: i32, keep_numeric: bool) {
    let ports = [
        probe.http_get.as_mut().map(|get| &mut get.port),
        probe.tcp_socket.as_mut().map(|socket| &mut socket.port),
    ];
    for port in ports.into_iter().flatten() {
        let explicit = matches!(port, IntOrString::Int(number) if *number != 0);
        if !(keep_numeric && explicit) {
            *port = IntOrString::Int(user_port);
        }
    }
}

/// An environment variable; an empty value is left out, as Kubernetes does.
pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()).filter(|value| !value.is_empty()),
        ..EnvVar::default()
    }
}
