//! Pod Security Admission: which level a namespace demands, and what a pod does against it, in Kubernetes' words.
//!
//! Flow: labels of the namespace -> [`Policies`]; a pod or template -> `checks` -> refusal (enforce), warning (warn), a line in the log (audit).
//! Always: a namespace without labels enforces `baseline`, because whoever may create pods there would otherwise be root on the host.

mod checks;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::context::RequestContext;
use crate::kinds::Builtin;
use crate::object::{self, at, text};
use crate::status::{Cause, Status};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// The minor version that `latest` means.
const LATEST: u32 = 34;
/// Pods named in the warning about a stricter label; Kubernetes names no more either.
const NAMED_MAX: usize = 3;

/// What a namespace may demand of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// A level in the form that a version of Kubernetes gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    level: Level,
    /// The minor version; none is the latest.
    version: Option<u32>,
    /// A label asks for it, not only our default.
    labelled: bool,
}

impl Policy {
    fn minor(self) -> u32 {
        self.version.unwrap_or(LATEST)
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.version {
            None => write!(f, "{}:latest", self.level.name()),
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
        }
    }
}

/// What a namespace demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policies {
    enforce: Policy,
    audit: Option<Policy>,
    warn: Policy,
}

impl Policies {
    /// Reads the labels of a namespace; what cannot be read demands the most.
    pub(crate) fn of(namespace: &Value) -> Self {
        let label = |name: &str| {
            at(
                namespace,
                &["metadata", "labels", &format!("{PREFIX}{name}")],
            )
            .and_then(Value::as_str)
        };
        let policy = |mode: &str| {
            let level = label(mode)?;
            Some(Policy {
                level: Level::parse(level).unwrap_or(Level::Restricted),
                version: label(&format!("{mode}-version")).and_then(|text| version(text).ok()?),
                labelled: true,
            })
        };
        let enforce = policy("enforce").unwrap_or(Policy {
            level: Level::Baseline,
            version: None,
            labelled: false,
        });
        Self {
            enforce,
            audit: policy("audit"),
            // Who writes a Deployment whose pods will be refused is told at once.
            warn: policy("warn").unwrap_or(enforce),
        }
    }
}

/// `latest` or `v1.N`.
fn version(text: &str) -> Result<Option<u32>, ()> {
    match text {
        "latest" => Ok(None),
        _ => text
            .strip_prefix("v1.")
            .and_then(|minor| minor.parse().ok())
            .map(|minor: u32| (minor < LATEST).then_some(minor))
            .ok_or(()),
    }
}

/// What is wrong with the labels of a namespace.
pub(crate) fn validate_labels(namespace: &Value, causes: &mut Vec<Cause>) {
    for mode in ["enforce", "audit", "warn"] {
        for (key, hint) in [
            (
                format!("{PREFIX}{mode}"),
                "must be one of privileged, baseline, restricted",
            ),
            (
                format!("{PREFIX}{mode}-version"),
                "must be \"latest\" or \"v1.x\"",
            ),
        ] {
            let Some(value) = at(namespace, &["metadata", "labels", &key]) else {
                continue;
            };
            let given = value.as_str().unwrap_or("");
            let good = if key.ends_with("-version") {
                version(given).is_ok()
            } else {
                Level::parse(given).is_some()
            };
            if !good {
                causes.push(Cause::invalid(
                    format!("metadata.labels[{key}]"),
                    value,
                    hint,
                ));
            }
        }
    }
}

fn policies(context: &RequestContext<'_>) -> Policies {
    let namespace = context
        .server
        .store
        .get(&format!("core/namespaces/{}", context.info.namespace))
        .and_then(|entry| serde_json::from_slice::<Value>(&entry.value).ok())
        .unwrap_or_default();
    Policies::of(&namespace)
}

/// Refuses a pod that its namespace does not allow; warns of pods and templates that it would warn of.
pub(crate) fn review(context: &mut RequestContext<'_>, object: &Value) -> Result<(), Status> {
    let is_pod = context.kind.is(Builtin::Pod);
    let (metadata, spec) = match context.kind.builtin {
        Some(Builtin::Pod) => (&object["metadata"], &object["spec"]),
        Some(Builtin::Deployment | Builtin::ReplicaSet | Builtin::Job) if !context.in_process() => {
            let template = &object["spec"]["template"];
            (&template["metadata"], &template["spec"])
        }
        _ => return Ok(()),
    };
    let policies = policies(context);
    if is_pod && let Some(violation) = checks::violation(metadata, spec, policies.enforce) {
        let namespace = &context.info.namespace;
        let name = match object::name(object) {
            "" => text(object, &["metadata", "generateName"]),
            name => name,
        };
        let detail = format!(
            "violates PodSecurity \"{}\": {violation} (an administrator allows more with the label {PREFIX}enforce on namespace \"{namespace}\")",
            policies.enforce
        );
        return Err(Status::forbidden("", "pods", name, &detail));
    }
    if let Some(audit) = policies.audit
        && let Some(violation) = checks::violation(metadata, spec, audit)
    {
        tracing::info!(
            namespace = %context.info.namespace,
            name = object::name(object),
            user = context.user.name,
            "would violate PodSecurity \"{audit}\": {violation}"
        );
    }
    if !(context.in_process() || is_pod && policies.warn == policies.enforce)
        && let Some(violation) = checks::violation(metadata, spec, policies.warn)
    {
        context.warnings.push(format!(
            "would violate PodSecurity \"{}\": {violation}",
            policies.warn
        ));
    }
    Ok(())
}

/// Warns of pods that a namespace would not let in any more after its labels changed.
pub(crate) fn review_namespace(context: &mut RequestContext<'_>, new: &Value, old: &Value) {
    let (after, before) = (Policies::of(new).enforce, Policies::of(old).enforce);
    if context.in_process() || after == before || after.level <= before.level {
        return;
    }
    let name = object::name(new);
    let page = context
        .server
        .store
        .list(&format!("core/pods/{name}/"), None, 0, None);
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (_, entry) in page.map(|page| page.entries).unwrap_or_default() {
        let Ok(pod) = serde_json::from_slice::<Value>(&entry.value) else {
            continue;
        };
        let Some(violation) = checks::violation(&pod["metadata"], &pod["spec"], after) else {
            continue;
        };
        let pod = object::name(&pod).to_owned();
        match found.iter_mut().find(|(known, _)| *known == violation) {
            Some((_, pods)) => pods.push(pod),
            None => found.push((violation, vec![pod])),
        }
    }
    if found.is_empty() {
        return;
    }
    context.warnings.push(format!(
        "existing pods in namespace \"{name}\" violate the new PodSecurity enforce level \"{after}\""
    ));
    for (violation, pods) in found.into_iter().take(NAMED_MAX) {
        let others = match pods.len() {
            1 => String::new(),
            2 => " (and 1 other pod)".to_owned(),
            many => format!(" (and {} other pods)", many - 1),
        };
        context
            .warnings
            .push(format!("{}{others}: {violation}", pods[0]));
    }
}
