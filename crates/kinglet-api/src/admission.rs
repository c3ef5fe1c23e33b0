//! What Knative's webhooks do to an object on its way in: defaults, then rules.
//!
//! Flow: the API server calls [`mutate`], checks the CRD's schema, calls [`validate`]; on a cluster the webhook
//! serves the same two functions. [`review`] is both, for callers without a schema check of their own.
//! Always: pure; the sentences are Knative's, prefix of the webhook included, because people and scripts know them.

mod autoscaling;
mod config_maps;
mod containers;
mod defaults;
mod differences;
pub mod eventing;
mod look;
mod metadata;
mod networking;
mod pod;
mod probes;
mod revision;
mod security;
mod traffic;
mod user_pod;
mod volumes;

use jiff::Timestamp;
use serde_json::Value;

use crate::config::Configs;
use crate::field::Findings;
use crate::{autoscaling as autoscaling_api, networking as networking_api, serving, shape};

const MUTATING: &str = "webhook.serving.knative.dev";
const VALIDATING: &str = "validation.webhook.serving.knative.dev";
const CONFIG: &str = "config.webhook.serving.knative.dev";

/// What is being done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object, also by patch.
    Update,
    /// A removal: always allowed.
    Delete,
}

/// The request around an object.
#[derive(Clone, Copy, Debug)]
pub struct Review<'a> {
    /// API group, empty for the core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Kind of the object.
    pub kind: &'a str,
    /// What is being done.
    pub operation: Operation,
    /// `status` or another subresource.
    pub subresource: Option<&'a str>,
    /// Namespace of the object.
    pub namespace: &'a str,
    /// Its name; empty while it is to be generated.
    pub name: &'a str,
    /// Who asks.
    pub user: &'a str,
    /// One of our own controllers asks: it needs no warnings and no dry run.
    pub user_is_controller: bool,
    /// Nothing will be stored: Services and Configurations are also tried as Pods, by these rules. They answer `field: why`
    /// for each thing that is wrong with a specification.
    pub dry_run: Option<fn(&Value) -> Vec<String>>,
    /// Now.
    pub now: Timestamp,
    /// What is stored, on an update.
    pub old: Option<&'a Value>,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// HTTP status.
    pub code: u16,
    /// The whole sentence.
    pub message: String,
    /// Warnings that go with it.
    pub warnings: Vec<String>,
}

/// The kinds that are judged here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    Service,
    Configuration,
    Revision,
    Route,
    PodAutoscaler,
    Metric,
    Ingress,
    ServerlessService,
    Certificate,
}

impl Judged {
    fn of(review: &Review<'_>) -> Option<Self> {
        if review.operation == Operation::Delete || review.subresource.is_some() {
            return None;
        }
        match (review.group, review.kind) {
            (serving::GROUP, "Service") => Some(Self::Service),
            (serving::GROUP, "Configuration") => Some(Self::Configuration),
            (serving::GROUP, "Revision") => Some(Self::Revision),
            (serving::GROUP, "Route") => Some(Self::Route),
            (autoscaling_api::GROUP, "PodAutoscaler") => Some(Self::PodAutoscaler),
            (autoscaling_api::GROUP, "Metric") => Some(Self::Metric),
            (networking_api::GROUP, "Ingress") => Some(Self::Ingress),
            (networking_api::GROUP, "ServerlessService") => Some(Self::ServerlessService),
            (networking_api::GROUP, "Certificate") => Some(Self::Certificate),
            _ => None,
        }
    }

    /// The struct that its spec is.
    fn shape(self) -> &'static str {
        match self {
            Self::Service => "ServiceSpec",
            Self::Configuration => "ConfigurationSpec",
            Self::Revision => "RevisionSpec",
            Self::Route => "RouteSpec",
            Self::PodAutoscaler => "PodAutoscalerSpec",
            Self::Metric => "MetricSpec",
            Self::Ingress => "IngressSpec",
            Self::ServerlessService => "ServerlessServiceSpec",
            Self::Certificate => "CertificateSpec",
        }
    }
}

/// Defaults and rules in one: changes `object`, answers warnings.
pub fn review(
    review: &Review<'_>,
    object: &mut Value,
    configs: &Configs,
) -> Result<Vec<String>, Rejection> {
    mutate(review, object, configs)?;
    refuse_null_containers(review, object)?;
    validate(review, object, configs)
}

/// Brings `object` into its stored form: what Go's types would write, with defaults and who did it.
pub fn mutate(review: &Review<'_>, object: &mut Value, configs: &Configs) -> Result<(), Rejection> {
    let Some(kind) = Judged::of(review) else {
        return Ok(());
    };
    let spec = shape::normalize(object.get("spec").unwrap_or(&Value::Null), kind.shape()).map_err(
        |error| Rejection {
            code: 400,
            message: denied(
                MUTATING,
                &format!("mutation failed: cannot decode incoming new object: {error}"),
            ),
            warnings: Vec::new(),
        },
    )?;
    let old = baseline(kind, review, configs);
    defaults::apply(kind, review, object, spec, old.as_ref(), configs);
    Ok(())
}

/// Judges an object in its stored form; answers warnings.
pub fn validate(
    review: &Review<'_>,
    object: &Value,
    configs: &Configs,
) -> Result<Vec<String>, Rejection> {
    if config_maps::applies(review) {
        return config_maps::validate(review, object)
            .map(|()| Vec::new())
            .map_err(|error| Rejection {
                code: 400,
                message: denied(CONFIG, &format!("validation failed: {error}")),
                warnings: Vec::new(),
            });
    }
    let Some(kind) = Judged::of(review) else {
        return Ok(Vec::new());
    };
    let input = AdmissionInput {
        review,
        kind,
        object,
        old: baseline(kind, review, configs),
        configs,
    };
    let found = input.findings();
    let warnings = found.warnings();
    if let Some(errors) = found.errors() {
        let message = denied(VALIDATING, &format!("validation failed: {errors}"));
        return Err(Rejection {
            code: 400,
            message,
            warnings,
        });
    }
    if let Some(error) = input.dry_run() {
        let message = denied(
            VALIDATING,
            &format!("validation callback failed: dry run failed with {error}: spec.template"),
        );
        return Err(Rejection {
            code: 400,
            message,
            warnings,
        });
    }
    Ok(warnings)
}

fn denied(webhook: &str, error: &str) -> String {
    format!("admission webhook \"{webhook}\" denied the request: {error}")
}

/// What the CRD's schema says about a template without containers, for callers without a schema check.
fn refuse_null_containers(review: &Review<'_>, object: &Value) -> Result<(), Rejection> {
    let (pointer, path) = match Judged::of(review) {
        Some(Judged::Service | Judged::Configuration) => (
            "/spec/template/spec/containers",
            "spec.template.spec.containers",
        ),
        Some(Judged::Revision) => ("/spec/containers", "spec.containers"),
        _ => return Ok(()),
    };
    if object
        .pointer(pointer)
        .is_some_and(|containers| !containers.is_null())
    {
        return Ok(());
    }
    let Review {
        kind, group, name, ..
    } = review;
    let message = format!(
        "{kind}.{group} \"{name}\" is invalid: {path}: Invalid value: \"null\": {path} in body must be of type array: \"null\""
    );
    Err(Rejection {
        code: 422,
        message,
        warnings: Vec::new(),
    })
}

/// The stored object as the current defaults would have it, for comparison.
fn baseline(kind: Judged, review: &Review<'_>, configs: &Configs) -> Option<Value> {
    let old = review
        .old
        .filter(|_| review.operation == Operation::Update)?;
    let mut old = old.clone();
    let spec = shape::normalize(old.get("spec").unwrap_or(&Value::Null), kind.shape()).ok()?;
    defaults::spec_in(kind, &mut old, spec, configs);
    Some(old)
}

/// Everything that rules look at.
struct AdmissionInput<'a> {
    review: &'a Review<'a>,
    kind: Judged,
    object: &'a Value,
    old: Option<Value>,
    configs: &'a Configs,
}

impl AdmissionInput<'_> {
    fn findings(&self) -> Findings {
        let spec = look::at(self.object, "spec");
        let rules = pod::Rules {
            configs: self.configs,
            warn: !self.review.user_is_controller,
        };
        let mut found = metadata::validate(self);
        found.add(match self.kind {
            Judged::Service => {
                let mut inner = revision::template(
                    look::at(spec, "template"),
                    Some(look::at(self.object, "metadata")),
                    &rules,
                );
                inner.add(revision::name_change(spec, self.old_spec()));
                let mut inner = inner.under("template");
                inner.add(traffic::validate(
                    look::list(spec, "traffic"),
                    traffic::TrafficParent::Service,
                ));
                inner.under("spec")
            }
            Judged::Configuration => {
                let mut inner = revision::template(
                    look::at(spec, "template"),
                    Some(look::at(self.object, "metadata")),
                    &rules,
                );
                inner.add(revision::name_change(spec, self.old_spec()));
                inner.under("template").under("spec")
            }
            Judged::Revision => {
                let mut inner = revision::spec(spec, &rules).under("spec");
                inner.add(revision::immutable(spec, self.old_spec()));
                inner
            }
            Judged::Route => {
                traffic::validate(look::list(spec, "traffic"), traffic::TrafficParent::Route)
                    .under("spec")
            }
            Judged::PodAutoscaler => networking::pod_autoscaler(spec, &self.configs.defaults),
            Judged::Metric => networking::metric(spec),
            Judged::Ingress => networking::ingress(spec, self.review.namespace),
            Judged::ServerlessService => networking::serverless_service(self.object),
            Judged::Certificate => networking::certificate(spec),
        });
        found
    }

    fn old_spec(&self) -> Option<&Value> {
        self.old.as_ref()?.get("spec")
    }

    /// What Kubernetes would say to the Pod, if this request asks to know.
    fn dry_run(&self) -> Option<String> {
        let owned_by_service = look::map(look::at(self.object, "metadata"), "labels")
            .contains_key(crate::keys::SERVICE);
        let tried = match self.kind {
            Judged::Service => true,
            Judged::Configuration => !owned_by_service,
            _ => false,
        };
        if !tried || self.review.user_is_controller {
            return None;
        }
        let refusals = self.review.dry_run?;
        let problems = refusals(&user_pod::of(self.object.pointer("/spec/template/spec")?));
        let text = match problems.as_slice() {
            [] => return None,
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        Some(format!(
            "Pod \"dry-run-validation*****\" is invalid: {text}"
        ))
    }
}

#[cfg(test)]
mod tests;
