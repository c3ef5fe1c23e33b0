//! `GET …/pods/NAME/log`: parameters here, lines from whoever runs the containers.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::object::{items, text};
use crate::path::Query;
use crate::status::Status;

/// What part of which log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The container; always named.
    pub container: String,
    /// Go on as lines come.
    pub follow: bool,
    /// The run before this one.
    pub previous: bool,
    /// Lines not older than this many seconds.
    pub since_seconds: Option<i64>,
    /// Lines not older than this RFC 3339 time.
    pub since_time: Option<String>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<i64>,
    /// Stop after this many bytes.
    pub limit_bytes: Option<i64>,
}

/// Log bytes as they come; dropping it stops the reading.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, std::io::Error>> + Send>>;

/// Reads container logs. Injected by the root, since this crate knows no node.
pub trait PodLogs: Send + Sync + 'static {
    /// Opens a log of a pod that exists. `pod` is the stored object.
    fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Status>>;
}

/// The container that a request means, as kubectl expects it: the one it names, the only one, or the annotated one.
pub(crate) fn chosen_container(pod: &Value, query: &Query) -> Result<String, Status> {
    let name = text(pod, &["metadata", "name"]);
    let names: Vec<&str> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| items(pod, &["spec", list]))
        .map(|container| text(container, &["name"]))
        .collect();
    let main: Vec<&str> = items(pod, &["spec", "containers"])
        .iter()
        .map(|c| text(c, &["name"]))
        .collect();
    match query.get("container") {
        "" if main.len() == 1 => Ok(main[0].to_owned()),
        "" => {
            let chosen = text(
                pod,
                &[
                    "metadata",
                    "annotations",
                    "kubectl.kubernetes.io/default-container",
                ],
            );
            if !main.contains(&chosen) {
                return Err(Status::bad_request(format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    names.join(" ")
                )));
            }
            Ok(chosen.to_owned())
        }
        asked if names.contains(&asked) => Ok(asked.to_owned()),
        asked => Err(Status::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        ))),
    }
}

/// Reads the parameters.
pub(crate) fn options(pod: &Value, query: &Query) -> Result<LogOptions, Status> {
    let container = chosen_container(pod, query)?;
    let number = |key: &str, least: i64| match query.get(key) {
        "" => Ok(None),
        value => match value.parse::<i64>() {
            Ok(number) if number >= least => Ok(Some(number)),
            _ => Err(Status::bad_request(format!(
                "{key}: Invalid value: \"{value}\": must be greater than or equal to {least}"
            ))),
        },
    };
    let since_time = Some(query.get("sinceTime").to_owned()).filter(|time| !time.is_empty());
    if let Some(time) = &since_time
        && time.parse::<jiff::Timestamp>().is_err()
    {
        return Err(Status::bad_request(format!(
            "sinceTime: Invalid value: \"{time}\": must be an RFC 3339 time"
        )));
    }
    Ok(LogOptions {
        container,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        since_seconds: number("sinceSeconds", 1)?,
        since_time,
        timestamps: query.flag("timestamps"),
        tail_lines: number("tailLines", 0)?,
        limit_bytes: number("limitBytes", 1)?,
    })
}
