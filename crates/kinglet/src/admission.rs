//! Joins the API server's admission hook with `api`'s defaults and rules.

use kinglet_api::admission::{self, Rejection, Review};
use kinglet_apiserver::{Admission, AdmissionRequest, Denied, Operation};
use kinglet_process::Clock;
use kinglet_serving::configs::LiveConfigs;
use parking_lot::RwLock;

/// Reviews objects against the ConfigMaps in force.
pub(crate) struct Rules {
    /// Set once the caches run; until then Knative's defaults hold.
    pub(crate) configs: RwLock<LiveConfigs>,
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
            dry_run: request.dry_run,
            now: self.clock.now(),
            old: request.old,
        }
    }
}

impl Admission for Rules {
    fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        let configs = self.configs.read().get();
        let mut object = std::mem::take(request.object);
        let outcome = admission::mutate(&self.review(request), &mut object, &configs);
        *request.object = object;
        outcome.map(|()| Vec::new()).map_err(denied)
    }

    fn check(&self, request: &mut AdmissionRequest<'_>) -> Result<Vec<String>, Denied> {
        let configs = self.configs.read().get();
        admission::validate(&self.review(request), request.object, &configs).map_err(denied)
    }
}

fn denied(rejection: Rejection) -> Denied {
    Denied {
        code: rejection.code,
        message: rejection.message,
        warnings: rejection.warnings,
    }
}
