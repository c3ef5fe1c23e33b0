//! Configuration: a Revision for every change of its template, and which Revision is the latest that works.
//!
//! Flow: the Configuration or one of its Revisions changed -> [`observe`] -> [`decide`] -> Revision, status.
//! Always: the latest ready Revision never moves back, save to one the user names.

mod build;
mod decide;
mod observe;

#[cfg(test)]
mod tests;

use kinglet_api::serving::{Configuration, Revision};
use kinglet_reconcile::{Context, Controller, Next, ReconcileError, is_deleting};

use crate::configs::LiveConfigs;
use crate::generation_age::GenerationAges;

const WORKERS: usize = 4;

/// Starts the controller.
pub fn start(context: &Context, live: LiveConfigs) {
    let ages = GenerationAges::default();
    Controller::<Configuration>::new("configuration-controller")
        .owns::<Revision>()
        .workers(WORKERS)
        .reports_errors()
        .run(context, move |context, key| {
            let (live, ages) = (live.clone(), ages.clone());
            async move {
                let found = context.cache::<Configuration>().find(&key);
                let Some(configuration) = found.filter(|found| !is_deleting(&**found)) else {
                    ages.forget(&key);
                    return Ok(Next::Done);
                };
                let configuration =
                    crate::unadmitted::configuration(configuration, &live.get(), context.now());
                let observed = observe::observe(&context, &ages, configuration);
                let outcome = crate::outcome::apply(
                    &context,
                    &*observed.configuration,
                    decide::decide(&observed),
                )
                .await;
                // A refused Revision is what the user must hear about, so it is in the status, too.
                if let Err(error @ (ReconcileError::Refused { .. } | ReconcileError::Busy { .. })) =
                    &outcome
                    && observed.is_to_create()
                {
                    context
                        .apply(decide::refused(&observed, &error.message()))
                        .await?;
                }
                outcome
            }
        });
}
