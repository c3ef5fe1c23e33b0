//! Container logs, as `kubectl logs` shows them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use super::NodeHandle;
use crate::logs::read::{LogError, LogOptions, stream};
use crate::pod::worker::{ContainerLogs, PodLogs};

type LogBytes = BoxStream<'static, std::io::Result<Bytes>>;

impl NodeHandle {
    /// Logs and programs of a pod that is here.
    pub(super) fn logs_of(&self, namespace: &str, pod: &str) -> Option<Arc<Mutex<PodLogs>>> {
        let workers = self.0.workers.lock();
        workers
            .get(&(namespace.to_owned(), pod.to_owned()))
            .map(|entry| Arc::clone(&entry.logs))
    }

    /// Appends lines to the log of a pod's queue-proxy, for the data plane, which does its work. Lines for a pod that is
    /// gone are lost with its log.
    pub fn append_proxy_log(&self, namespace: &str, pod: &str, lines: &str) {
        let Some(logs) = self.logs_of(namespace, pod) else {
            return;
        };
        let proxy = logs
            .lock()
            .containers
            .iter()
            .find_map(|(_, logs)| logs.proxy.clone());
        if let Some(proxy) = proxy
            && let Err(error) = proxy.append(lines, self.0.shared.context().now())
        {
            tracing::warn!(%namespace, %pod, %error, "lines of a queue-proxy's log are lost");
        }
    }

    /// The log of a container, as `kubectl logs` shows it.
    pub fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> Result<LogBytes, LogError> {
        let object = self.0.shared.context().cache::<Pod>().get(namespace, pod);
        let logs = self
            .logs_of(namespace, pod)
            .ok_or_else(|| LogError::NoPod(pod.to_owned()))?;
        let (name, found) = {
            let logs = logs.lock();
            let name = match options.container.as_deref().filter(|name| !name.is_empty()) {
                Some(name) => name.to_owned(),
                None => default_container(object.as_deref(), &logs, pod)?,
            };
            let found = logs.containers.iter().find(|(known, _)| *known == name);
            (name.clone(), found.map(|(_, logs)| logs.clone()))
        };
        match found {
            Some(found) => self.open_log(pod, name, found, options),
            None => Err(LogError::NoContainer {
                pod: pod.to_owned(),
                container: name,
            }),
        }
    }

    fn open_log(
        &self,
        pod: &str,
        container: String,
        found: ContainerLogs,
        options: LogOptions,
    ) -> Result<LogBytes, LogError> {
        let pod = pod.to_owned();
        let opened = match (found.proxy, options.previous) {
            (Some(proxy), _) => proxy.open(self.0.shared.context().now()),
            (None, true) => match found.previous {
                Some(previous) => Ok(previous),
                None => return Err(LogError::NoPrevious { pod, container }),
            },
            (None, false) => match found.current {
                Some(current) => Ok(current),
                None => {
                    let reason = found.waiting;
                    return Err(LogError::NotStarted {
                        pod,
                        container,
                        reason,
                    });
                }
            },
        };
        match opened.and_then(|log| stream(log, options)) {
            Ok(stream) => Ok(stream.boxed()),
            Err(error) => Err(LogError::Unreadable {
                container,
                why: error.to_string(),
            }),
        }
    }
}

/// The container that is meant where none is named: the annotated one, else the only one.
fn default_container(object: Option<&Pod>, logs: &PodLogs, pod: &str) -> Result<String, LogError> {
    let annotations = object.and_then(|object| object.metadata.annotations.as_ref());
    let annotated = annotations
        .and_then(|annotations| annotations.get("kubectl.kubernetes.io/default-container"));
    let own: Vec<&str> = logs
        .containers
        .iter()
        .filter(|(_, logs)| !logs.init)
        .map(|(name, _)| name.as_str())
        .collect();
    match (annotated, own.as_slice()) {
        (Some(name), _) => Ok(name.clone()),
        (None, [only]) => Ok((*only).to_owned()),
        (None, all) => Err(LogError::Ambiguous {
            pod: pod.to_owned(),
            choices: all.join(" "),
        }),
    }
}
