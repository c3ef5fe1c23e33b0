//! ServerlessService: the two Kubernetes Services of a Revision.
//!
//! The private one selects the Revision's pods; the public one (named as the Revision) has no selector, and its
//! Endpoints are written here: the pods, or while there are none or a burst must be absorbed, the activators.

mod build;
mod decide;
mod observe;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kinglet_api::keys;
use kinglet_api::networking::ServerlessService;
use kinglet_reconcile::{Context, Controller, Key, Next, is_deleting, key_of, label};

/// Where requests wait for pods: the ready addresses of this Service's Endpoints.
const ACTIVATOR_SERVICE: (&str, &str) = ("knative-serving", "activator-service");

/// Starts the controller. Public Services point at activators where the mode asks for it; when activators come or go,
/// all of them are looked at again.
pub fn start(context: &Context) {
    let all = context.cache::<ServerlessService>();
    Controller::<ServerlessService>::new("serverlessservice-controller")
        .owns::<Service>()
        .owns::<Endpoints>()
        .watches_heads::<Endpoints, _>(move |endpoints| {
            let (namespace, name) = ACTIVATOR_SERVICE;
            if *endpoints.key.namespace == *namespace && *endpoints.key.name == *name {
                all.keys()
            } else {
                Vec::new()
            }
        })
        .watches::<EndpointSlice, _>(|slice| {
            Some(Key::new(
                key_of(slice).namespace,
                label(slice, keys::SERVERLESS_SERVICE)?,
            ))
        })
        .reads::<Deployment>()
        .reports_errors()
        .run(context, |context, key| async move {
            let service = context.cache::<ServerlessService>().find(&key);
            let Some(service) = service.filter(|found| !is_deleting(&**found)) else {
                return Ok(Next::Done);
            };
            let observed = observe::observe(&context, service);
            crate::outcome::apply(&context, &*observed.owner, decide::decide(&observed)).await
        });
}
