//! What happens before a container is asked to end, and after it began.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::probe::check::{Answer, Target, ask};
use crate::probe::plan::{Question, http_question};

/// Port and path of the hook that Knative gives every user container: the queue-proxy answers when requests have drained.
const DRAIN_PORT: u16 = 8022;
const DRAIN_PATH: &str = "/wait-for-drain";

/// What a hook asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Wait until no request is in flight; answered by the data plane.
    Drain,
    /// A request or a program.
    Ask(Question),
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
        let question = http_question(http, ports)?;
        if proxied
            && matches!(&question, Question::Http { port: DRAIN_PORT, path, .. } if path == DRAIN_PATH)
        {
            return Ok(Some(Hook::Drain));
        }
        return Ok(Some(Hook::Ask(question)));
    }
    if let Some(exec) = &handler.exec {
        return Ok(Some(Hook::Ask(Question::Exec(
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
pub(crate) async fn run(hook: Hook, target: &Target, longest: Duration) -> Result<(), String> {
    match hook {
        Hook::Drain => Ok(()),
        Hook::Sleep(time) => {
            tokio::time::sleep(time.min(longest)).await;
            Ok(())
        }
        Hook::Ask(question) => match ask(target, &question, false, longest).await {
            Answer::Good { .. } => Ok(()),
            Answer::Bad(message) => Err(message),
        },
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
            Some(Hook::Ask(Question::Http { port: 8022, .. }))
        ));
        assert_eq!(
            pre_stop(&pod, "s", true),
            Some(Hook::Sleep(Duration::from_secs(2)))
        );
        assert_eq!(
            pre_stop(&pod, "e", true),
            Some(Hook::Ask(Question::Exec(vec!["true".to_owned()])))
        );
        assert_eq!(pre_stop(&pod, "none", true), None);
    }
}
