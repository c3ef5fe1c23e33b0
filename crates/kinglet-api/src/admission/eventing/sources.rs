//! Rules of sources other than PingSources.

use serde_json::Value;

use super::{Judge, filters};
use crate::admission::look;
use crate::config::Flag;
use crate::field::Findings;
use crate::formats;

impl Judge<'_> {
    /// What every source has.
    pub(super) fn source(&self) -> Findings {
        let sink = look::at(self.spec, "sink");
        let mut found = self.references().destination(sink).under("sink");
        let extensions = look::at(look::at(self.spec, "ceOverrides"), "extensions");
        for (name, _) in extensions.as_object().into_iter().flatten() {
            let details = if name.is_empty() {
                "keys MUST NOT be empty"
            } else if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                continue;
            } else {
                "keys are expected to be alphanumeric"
            };
            found.add(
                Findings::invalid_key(name, "extensions")
                    .details(details)
                    .under("ceOverrides"),
            );
        }
        found
    }

    pub(super) fn api_server_source(&self) -> Findings {
        let mut found = self.source();
        let resources = look::list(self.spec, "resources");
        if resources.is_empty() {
            found.add(Findings::missing("resources"));
        }
        for (index, resource) in resources.iter().enumerate() {
            let mut inner = kind(resource);
            inner.add(selector(resource, "selector"));
            found.add(inner.under_at("resources", index));
        }
        let mode = look::text(self.spec, "mode");
        if !["Reference", "Resource"].contains(&mode) {
            found.add(Findings::invalid(mode, "mode"));
        }
        if look::has(self.spec, "owner") {
            found.add(kind(look::at(self.spec, "owner")).under("owner"));
        }
        found.add(selector(self.spec, "namespaceSelector"));
        let filtered = !look::list(self.spec, "filters").is_empty();
        if filtered && self.configs.features.new_apiserversource_filters != Flag::Enabled {
            found.add(Findings::general(
                "Filters is not empty but the NewAPIServerFilters feature is disabled.",
            ));
        } else {
            found.add(filters::validate(self.spec));
        }
        found.under("spec")
    }

    pub(super) fn container_source(&self) -> Findings {
        let mut found = self.source();
        let pod = look::at(look::at(self.spec, "template"), "spec");
        let containers = look::list(pod, "containers");
        if containers.is_empty() {
            found.add(Findings::missing("containers"));
        }
        for (index, container) in containers.iter().enumerate() {
            for field in ["name", "image"] {
                if look::text(container, field).is_empty() {
                    found.add(Findings::missing(field).under_at("containers", index));
                }
            }
        }
        found.under("spec")
    }

    pub(super) fn sink_binding(&self) -> Findings {
        let mut found = self.source();
        let subject = look::at(self.spec, "subject");
        found.add(workload(subject).under("subject"));
        let namespace = look::text(subject, "namespace");
        if !namespace.is_empty() && namespace != self.review.namespace {
            found.add(Findings::invalid(namespace, "subject.namespace"));
        }
        found.under("spec")
    }

    pub(super) fn integration_source(&self) -> Findings {
        let mut found = self.source();
        let aws = look::at(self.spec, "aws");
        let set = integrations(aws, &["s3", "sqs", "ddbStreams"])
            + usize::from(look::has(self.spec, "timer"));
        match set {
            0 => found.add(Findings::error(
                "at least one source type must be specified",
                "spec",
            )),
            1 => found.add(not_aws(aws, "the source type timer")),
            _ => found.add(Findings::error("only one source type can be set", "spec")),
        }
        let timer = look::at(self.spec, "timer");
        for (field, min) in [("period", 1), ("repeatCount", 0)] {
            if let Some(value) = look::number(timer, field).filter(|value| *value < min) {
                found.add(Findings::out_of_bounds(value, min, i64::MAX, field).under("timer"));
            }
        }
        found.under("spec")
    }
}

/// How many services of AWS are named.
pub(super) fn integrations(aws: &Value, known: &[&str]) -> usize {
    known.iter().filter(|field| look::has(aws, field)).count()
}

/// Refuses a service of AWS: nothing here would act on it.
pub(super) fn not_aws(aws: &Value, known: &str) -> Findings {
    if aws.is_null() {
        return Findings::none();
    }
    Findings::error(
        format!(
            "integrations with AWS are not supported by Kinglet; use {known}, or a ContainerSource or SinkBinding with a program that speaks to AWS"
        ),
        "aws",
    )
}

/// A kind by `apiVersion` and `kind`.
fn kind(resource: &Value) -> Findings {
    let mut found = Findings::none();
    let api_version = look::text(resource, "apiVersion");
    if api_version.matches('/').count() > 1 {
        found.add(Findings::invalid(api_version, "apiVersion"));
    }
    if look::text(resource, "kind").trim().is_empty() {
        found.add(Findings::missing("kind"));
    }
    found
}

fn selector(parent: &Value, field: &str) -> Findings {
    crate::label_selector::problem(look::at(parent, field))
        .map_or_else(Findings::none, |problem| Findings::error(problem, field))
}

/// The workload of a SinkBinding.
fn workload(subject: &Value) -> Findings {
    let text = |field: &str| look::text(subject, field);
    let mut found = Findings::none();
    let mut shaped = |field: &str, judge: &dyn Fn(&str) -> Vec<String>| {
        if text(field).is_empty() {
            found.add(Findings::missing(field));
            return;
        }
        let problems = judge(text(field));
        if !problems.is_empty() {
            found.add(Findings::invalid(problems.join(", "), field));
        }
    };
    shaped("apiVersion", &formats::qualified_name);
    shaped("kind", &identifier);
    shaped("namespace", &formats::dns_1123_label);
    let (named, selected) = (!text("name").is_empty(), look::has(subject, "selector"));
    match (named, selected) {
        (true, true) => found.add(Findings::several_of(&["selector", "name"])),
        (false, false) => found.add(Findings::missing_one_of(&["selector", "name"])),
        (false, true) => found.add(selector(subject, "selector")),
        (true, false) => {
            let problems = formats::dns_1123_subdomain(text("name"));
            if !problems.is_empty() {
                found.add(Findings::invalid(problems.join(", "), "name"));
            }
        }
    }
    found
}

fn identifier(text: &str) -> Vec<String> {
    let good = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if good {
        Vec::new()
    } else {
        vec!["a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')".to_owned()]
    }
}
