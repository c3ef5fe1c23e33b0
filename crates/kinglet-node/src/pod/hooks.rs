//! Lifecycle hooks: what happens after a container began (postStart) and before it is asked to end (preStop).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::probe::http;
use crate::probe::prober::{ProbeResult, ProbeTarget, probe_once};
use crate::probe::spec::{HttpGet, ProbeAction, http_get};

/// Port and path of the hook that Knative gives every user container: the queue-proxy answers when requests have drained.
const DRAIN_PORT: u16 = 8022;
const DRAIN_PATH: &str = "/wait-for-drain";

/// The user agent of a kubelet's hooks.
const USER_AGENT: &str = "kube-lifecycle/1.34";

/// A kubelet's hook comes tens of milliseconds after the start of the program, ours within one: so a refused connection is
/// tried again for this long before it counts.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(1);
const LISTEN_PAUSE: Duration = Duration::from_millis(10);

/// What a hook asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Wait until no request is in flight; answered by the data plane.
    Drain,
    /// A request or a program.
    Run(ProbeAction),
    /// A pause.
    Sleep(Duration),
}

/// The hook of a handler. `proxied` says that this node answers for the pod's queue-proxy.
pub(crate) fn of(
    handler: &LifecycleHandler,
    container: &Container,
    proxied: bool,
) -> Result<Option<Hook>, String> {
    let ports = container.ports.as_deref().unwrap_or_default();
    if let Some(http) = &handler.http_get {
        let get = http_get(http, ports)?;
        if proxied && get.port == DRAIN_PORT && get.path == DRAIN_PATH {
            return Ok(Some(Hook::Drain));
        }
        return Ok(Some(Hook::Run(ProbeAction::Http(get))));
    }
    if let Some(exec) = &handler.exec {
        return Ok(Some(Hook::Run(ProbeAction::Exec(
            exec.command.clone().unwrap_or_default(),
        ))));
    }
    if let Some(sleep) = &handler.sleep {
        return Ok(Some(Hook::Sleep(Duration::from_secs(
            u64::try_from(sleep.seconds).unwrap_or(0),
        ))));
    }
    Ok(None)
}

/// The hook that a container has before it ends.
pub(crate) fn pre_stop(pod: &Pod, name: &str, proxied: bool) -> Option<Hook> {
    let container = crate::pod::container_state::container(pod, name)?;
    let handler = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
    of(handler, container, proxied).ok().flatten()
}

/// Runs a hook (not [`Hook::Drain`], which is the whole pod's). Bounded by the caller.
pub(crate) async fn run(hook: Hook, target: &ProbeTarget, longest: Duration) -> Result<(), String> {
    match hook {
        Hook::Drain => Ok(()),
        Hook::Sleep(time) => {
            tokio::time::sleep(time.min(longest)).await;
            Ok(())
        }
        // A hook tells the program something; what it answers does not matter, as with a kubelet.
        Hook::Run(ProbeAction::Http(get)) => {
            let answer = tokio::time::timeout(longest, tell(target, &get)).await;
            match answer {
                Ok(answer) => answer,
                Err(_) => Err(format!(
                    "Get \"{}\": no answer within {} s",
                    get.url(&target.sandbox.address().to_string()),
                    longest.as_secs()
                )),
            }
        }
        Hook::Run(action) => match probe_once(target, &action, false, longest).await {
            ProbeResult::Success(_) => Ok(()),
            ProbeResult::Failure(message) | ProbeResult::Refused(message) => Err(message),
        },
    }
}

/// Sends the request of a hook; a program that has only just been started is given a moment to listen.
async fn tell(target: &ProbeTarget, get: &HttpGet) -> Result<(), String> {
    let give_up = tokio::time::Instant::now() + LISTEN_TIMEOUT;
    loop {
        match http::get(target, get, USER_AGENT).await {
            Ok(_) => return Ok(()),
            Err(error)
                if error.is_connection_refused() && tokio::time::Instant::now() < give_up =>
            {
                tokio::time::sleep(LISTEN_PAUSE).await;
            }
            Err(error) => {
                let url = get.url(&target.sandbox.address().to_string());
                return Err(format!("Get \"{url}\": {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn knatives_hook_is_known_only_with_a_queue_proxy() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "lifecycle": {"preStop": {"httpGet": {"path": "/wait-for-drain", "port": 8022, "scheme": "HTTP"}}}},
            {"name": "s", "lifecycle": {"preStop": {"sleep": {"seconds": 2}}}},
            {"name": "e", "lifecycle": {"preStop": {"exec": {"command": ["true"]}}}},
        ]}}))
        .expect("pod");
        assert_eq!(pre_stop(&pod, "c", true), Some(Hook::Drain));
        assert!(matches!(
            pre_stop(&pod, "c", false),
            Some(Hook::Run(ProbeAction::Http(get))) if get.port == 8022
        ));
        assert_eq!(
            pre_stop(&pod, "s", true),
            Some(Hook::Sleep(Duration::from_secs(2)))
        );
        assert_eq!(
            pre_stop(&pod, "e", true),
            Some(Hook::Run(ProbeAction::Exec(vec!["true".to_owned()])))
        );
        assert_eq!(pre_stop(&pod, "none", true), None);
    }
}
