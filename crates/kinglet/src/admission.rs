//! Joins the API server's admission hook with `api`'s defaults and rules.

use std::sync::Arc;

use kinglet_api::admission::{self, Rejection, Review, eventing};
use kinglet_api::config::eventing::EventingConfigs;
use kinglet_apiserver::{
    AccessQuestion, Admission, AdmissionRequest, Denied, Operation, Origin, field_support,
};
use kinglet_process::Clock;
use kinglet_serving::configs::LiveConfigs;
use parking_lot::RwLock;
use serde_json::Value;

/// Reviews objects against the ConfigMaps in force.
pub(crate) struct Rules {
    /// Set once the caches run; until then Knative's defaults hold.
    pub(crate) configs: RwLock<LiveConfigs>,
    /// The same of Eventing: as shipped until its ConfigMaps are read.
    pub(crate) eventing: RwLock<Arc<EventingConfigs>>,
    pub(crate) clock: Clock,
}

impl Rules {
    fn review<'a>(&self, request: &'a AdmissionRequest<'_>) -> Review<'a> {
        Review {
            group: request.group,
            version: request.version,
            kind: request.kind,
            operation: match request.operation {
                Operation::Create => admission::Operation::Create,
                Operation::Update => admission::Operation::Update,
                Operation::Delete => admission::Operation::Delete,
            },
            subresource: None,
            namespace: request.namespace,
            name: request.name,
            user: &request.user.name,
            user_is_controller: request.user.origin == kinglet_apiserver::Origin::InProcess,
            dry_run: request.dry_run.then_some(refusals),
            now: self.clock.now(),
            old: request.old,
        }
    }
}

impl Admission for Rules {
    fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        if is_of_eventing(request) {
            return self.admit_of_eventing(request);
        }
        let configs = self.configs.read().get();
        let mut object = std::mem::take(request.object);
        let outcome = admission::mutate(&self.review(request), &mut object, &configs);
        *request.object = object;
        outcome.map(|()| Vec::new()).map_err(denied)
    }

    fn check(&self, request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        if is_of_eventing(request) {
            return self.check_of_eventing(request);
        }
        let configs = self.configs.read().get();
        let mut warnings =
            admission::validate(&self.review(request), request.object, &configs).map_err(denied)?;
        warnings.extend(fields_of_template(request)?);
        Ok(warnings)
    }
}

impl Rules {
    fn admit_of_eventing(&self, request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        let configs = Arc::clone(&self.eventing.read());
        let mut object = std::mem::take(request.object);
        let outcome = eventing::mutate(&self.review(request), &mut object, &configs);
        *request.object = object;
        outcome.map(|()| Vec::new()).map_err(denied)
    }

    fn check_of_eventing(&self, request: &AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        let configs = Arc::clone(&self.eventing.read());
        let may_link = |link: &eventing::Link<'_>| {
            request.rights.may(&AccessQuestion {
                verb: eventing::Link::VERB,
                group: link.group,
                resource: link.resource,
                namespace: link.namespace,
                name: link.name,
            })
        };
        let ask = eventing::Ask {
            may_link: &may_link,
            try_job: &try_job,
        };
        eventing::validate(&self.review(request), request.object, &configs, ask).map_err(denied)
    }
}

/// Eventing's kinds exist once they are installed; its ConfigMaps have a namespace of their own.
fn is_of_eventing(request: &AdmissionRequest<'_>) -> bool {
    eventing::judges(request.group, request.kind)
        || (request.group.is_empty()
            && request.kind == "ConfigMap"
            && request.namespace == kinglet_api::config::eventing::SYSTEM_NAMESPACE)
}

/// What the API server would say to the Pods of a JobSink's Job.
fn try_job(job: &Value) -> Result<(), String> {
    let pod = job.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    let problems: Vec<String> = refusals(pod)
        .into_iter()
        .map(|problem| format!("spec.template.{problem}"))
        .collect();
    let text = match problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    };
    Err(format!("Job.batch is invalid: {text}"))
}

/// Where a Knative object has a pod specification.
fn template(request: &AdmissionRequest<'_>) -> Option<(&'static str, &'static str)> {
    match (request.group, request.kind) {
        ("serving.knative.dev", "Service" | "Configuration") => {
            Some(("/spec/template/spec", "spec.template.spec"))
        }
        ("serving.knative.dev", "Revision") => Some(("/spec", "spec")),
        _ => None,
    }
}

/// What Knative's features let through and Kinglet would have to act on is refused as on a Pod; what is stored already stays.
fn fields_of_template(request: &AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
    let Some((pointer, path)) = template(request) else {
        return Ok(Vec::new());
    };
    // Revisions come from templates that were looked at.
    if request.user.origin == Origin::InProcess {
        return Ok(Vec::new());
    }
    let check = |object: &Value| {
        object
            .pointer(pointer)
            .map_or_else(Default::default, |spec| {
                field_support::check_pod_spec(spec, path)
            })
    };
    let (mut refused, mut warnings) = check(request.object);
    if let Some(old) = request.old {
        let (known, said) = check(old);
        refused.retain(|cause| !known.contains(cause));
        warnings.retain(|warning| !said.contains(warning));
    }
    if refused.is_empty() {
        return Ok(warnings);
    }
    let each: Vec<String> = refused
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect();
    Err(Denied {
        code: 400,
        message: format!(
            "admission webhook \"validation.webhook.serving.knative.dev\" denied the request: validation failed: {}",
            each.join(", ")
        ),
        warnings,
    })
}

/// What the API server itself would say to a Pod.
fn refusals(spec: &Value) -> Vec<String> {
    let causes = kinglet_apiserver::pod_spec_refusals(spec);
    causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .collect()
}

fn denied(rejection: Rejection) -> Denied {
    Denied {
        code: rejection.code,
        message: rejection.message,
        warnings: rejection.warnings,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kinglet_apiserver::field_support;
    use serde_json::Value;

    /// The published OpenAPI definitions of what users write most: each property of each definition has a row.
    #[test]
    fn every_property_of_the_openapi_schemas_is_in_the_table_of_fields() {
        let (mut seen, mut missing) = (0, BTreeSet::new());
        for (group, kind) in [
            ("", "Pod"),
            ("", "Service"),
            ("", "ConfigMap"),
            ("", "Secret"),
            ("", "ServiceAccount"),
            ("", "Namespace"),
            ("", "ResourceQuota"),
            ("", "LimitRange"),
            ("apps", "Deployment"),
            ("apps", "ReplicaSet"),
            ("discovery.k8s.io", "EndpointSlice"),
            ("rbac.authorization.k8s.io", "ClusterRole"),
        ] {
            let Some((_, definitions)) = kinglet_api::builtin_schemas::schema(group, "v1", kind)
            else {
                continue;
            };
            for (definition, schema) in &definitions {
                for property in schema["properties"].as_object().into_iter().flatten() {
                    match field_support::knows(definition, property.0) {
                        Some(true) => seen += 1,
                        Some(false) => {
                            missing.insert(format!("{definition}.{}", property.0));
                        }
                        // Below a field that is refused or written by the server.
                        None => {}
                    }
                }
            }
        }
        assert!(missing.is_empty(), "{missing:?}");
        assert!(seen > 250, "only {seen} properties were looked at");
    }

    #[test]
    fn a_pod_template_is_looked_at_where_it_lies() {
        let spec: Value = serde_json::json!({"hostNetwork": true, "containers": []});
        let (refused, _) = field_support::check_pod_spec(&spec, "spec.template.spec");
        assert_eq!(refused[0].field, "spec.template.spec.hostNetwork");
    }

    /// The Pod of a Service that is tried is judged by the rules for Pods, once its defaults are filled in.
    #[test]
    fn a_dry_run_says_what_a_pod_would_hear() {
        let said = |spec: Value| super::refusals(&spec);
        let container = |name: &str| serde_json::json!({"name": name, "image": "i"});
        assert!(said(serde_json::json!({"containers": [container("c")]})).is_empty());
        assert_eq!(
            said(serde_json::json!({"containers": []})),
            ["spec.containers: Required value"]
        );
        let bad = said(serde_json::json!({"containers": [container("Bad")]}));
        assert!(
            bad[0].starts_with("spec.containers[0].name: Invalid value: \"Bad\": "),
            "{bad:?}"
        );
    }
}
