//! Service: one Configuration and one Route, and what both of them say.
//!
//! Flow: Service, its Configuration or its Route changed -> [`observe`] -> [`decide`] -> Configuration, Route, status.
//! Always: a Route is not touched before a Configuration with a Revision name of the user's has been looked at; the
//! deepest cause known below is what the Service says.

mod children;
mod decide;
mod observe;

#[cfg(test)]
mod tests;

use kinglet_api::serving::{Configuration, Revision, Route, Service};
use kinglet_reconcile::{Context, Controller, Next, is_deleting};

use crate::configs::LiveConfigs;
use crate::generation_age::GenerationAges;

/// Keys worked on at a time: twenty Services at once must not queue behind two.
const WORKERS: usize = 4;

/// Starts the controller.
pub fn start(context: &Context, live: LiveConfigs) {
    let ages = GenerationAges::default();
    Controller::<Service>::new("service-controller")
        .owns::<Configuration>()
        .owns::<Route>()
        .reads::<Revision>()
        .workers(WORKERS)
        .reports_errors()
        .run(context, move |context, key| {
            let (live, ages) = (live.clone(), ages.clone());
            async move {
                let found = context.cache::<Service>().find(&key);
                let Some(service) = found.filter(|found| !is_deleting(&**found)) else {
                    ages.forget(&key);
                    return Ok(Next::Done);
                };
                let observed = observe::observe(
                    &context,
                    &ages,
                    crate::unadmitted::service(service, &live.get(), context.now()),
                );
                crate::outcome::apply(&context, &*observed.service, decide::decide(&observed)).await
            }
        });
}
