//! `config-defaults`: what a Revision gets where its spec is silent.

use serde_json::json;

use crate::field::Findings;
use crate::template::Template;
use kinglet_quantity::Quantity;

use super::{Data, read};

/// `config-defaults`.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Longest duration of a request.
    pub revision_timeout_seconds: i64,
    /// Longest that a Revision may ask for.
    pub max_revision_timeout_seconds: i64,
    /// Longest wait for the first byte.
    pub revision_response_start_timeout_seconds: i64,
    /// Longest silence; 0 means none is set.
    pub revision_idle_timeout_seconds: i64,
    /// Requests at once per container; 0 means no limit.
    pub container_concurrency: i64,
    /// Most that a Revision may ask for.
    pub container_concurrency_max_limit: i64,
    /// Whether a Revision may ask for no limit.
    pub allow_container_concurrency_zero: bool,
    /// Name of a container without one.
    pub container_name_template: Template,
    /// Name of an init container without one.
    pub init_container_name_template: Template,
    /// `enableServiceLinks` where it is not set; `None` leaves it to Kubernetes.
    pub enable_service_links: Option<bool>,
    /// CPU request.
    pub revision_cpu_request: Option<Quantity>,
    /// CPU limit.
    pub revision_cpu_limit: Option<Quantity>,
    /// Memory request.
    pub revision_memory_request: Option<Quantity>,
    /// Memory limit.
    pub revision_memory_limit: Option<Quantity>,
    /// Ephemeral storage request.
    pub revision_ephemeral_storage_request: Option<Quantity>,
    /// Ephemeral storage limit.
    pub revision_ephemeral_storage_limit: Option<Quantity>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self::parse(&Data::new()).expect("the defaults are valid")
    }
}

impl Defaults {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let int = |key: &str, or: i64| read::int(data, &[key], 64, or);
        let allow_zero = read::boolean(data, &["allow-container-concurrency-zero"], true)?;
        let timeout = int("revision-timeout-seconds", 300)?;
        let max_timeout = int("max-revision-timeout-seconds", 600)?;
        let response_start = int("revision-response-start-timeout-seconds", timeout)?;
        let idle = int("revision-idle-timeout-seconds", 0)?;
        let concurrency = int("container-concurrency", 0)?;
        let concurrency_max = int("container-concurrency-max-limit", 1000)?;
        let container_name_template = template(data, "container-name-template", "user-container")?;
        let init_container_name_template =
            template(data, "init-container-name-template", "init-container")?;
        let quantity = |key: &str| read::quantity(data, &[key]);
        let parsed = Self {
            revision_timeout_seconds: timeout,
            max_revision_timeout_seconds: max_timeout,
            revision_response_start_timeout_seconds: response_start,
            revision_idle_timeout_seconds: idle,
            container_concurrency: concurrency,
            container_concurrency_max_limit: concurrency_max,
            allow_container_concurrency_zero: allow_zero,
            container_name_template,
            init_container_name_template,
            enable_service_links: match read::text(data, &["enable-service-links"])
                .map(str::to_ascii_lowercase)
                .as_deref()
            {
                None | Some("false") => Some(false),
                Some("true") => Some(true),
                Some(_) => None,
            },
            revision_cpu_request: quantity("revision-cpu-request")?,
            revision_cpu_limit: quantity("revision-cpu-limit")?,
            revision_memory_request: quantity("revision-memory-request")?,
            revision_memory_limit: quantity("revision-memory-limit")?,
            revision_ephemeral_storage_request: quantity("revision-ephemeral-storage-request")?,
            revision_ephemeral_storage_limit: quantity("revision-ephemeral-storage-limit")?,
        };
        parsed.validate()?;
        Ok(parsed)
    }

    fn validate(&self) -> Result<(), String> {
        let timeout = self.revision_timeout_seconds;
        let greater = |name: &str, value: i64, than: &str, limit: i64| {
            Err(format!(
                "{name} ({value}) cannot be greater than {than} ({limit})"
            ))
        };
        if timeout > self.max_revision_timeout_seconds {
            return greater(
                "revision-timeout-seconds",
                timeout,
                "max-revision-timeout-seconds",
                self.max_revision_timeout_seconds,
            );
        }
        for (name, value) in [
            (
                "revision-response-start-timeout-seconds",
                self.revision_response_start_timeout_seconds,
            ),
            (
                "revision-idle-timeout-seconds",
                self.revision_idle_timeout_seconds,
            ),
        ] {
            if value > 0 && value > timeout {
                return greater(name, value, "revision-timeout-seconds", timeout);
            }
        }
        let limit = self.container_concurrency_max_limit;
        let found = if limit < 1 {
            Findings::out_of_bounds(limit, 1, i32::MAX, "container-concurrency-max-limit")
        } else if !(0..=limit).contains(&self.container_concurrency) {
            Findings::out_of_bounds(
                self.container_concurrency,
                0,
                limit,
                "container-concurrency",
            )
        } else {
            return Ok(());
        };
        found.errors().map_or(Ok(()), Err)
    }
}

/// A name template, tried once on an object without anything.
fn template(data: &Data, key: &str, or: &str) -> Result<Template, String> {
    let text = data.get(key).map_or(or, String::as_str);
    let template = Template::parse("container-template", text)?;
    template.render(
        &json!({"Name": "", "Namespace": "", "Labels": {}, "Annotations": {}, "GenerateName": ""}),
    )?;
    Ok(template)
}
