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
use kinglet_reconcile::{Controller, Fault, Kit, Next, is_deleting};

use crate::configs::LiveConfigs;

const WORKERS: usize = 4;

/// Starts the controller.
pub fn start(kit: &Kit, live: LiveConfigs) {
    Controller::<Configuration>::new("configuration-controller")
        .owns::<Revision>()
        .workers(WORKERS)
        .reports_errors()
        .run(kit, move |kit, key| {
            let live = live.clone();
            async move {
                let found = kit.cache::<Configuration>().find(&key);
                let Some(configuration) = found.filter(|found| !is_deleting(&**found)) else {
                    return Ok(Next::Done);
                };
                let configuration =
                    crate::unadmitted::configuration(configuration, &live.get(), kit.now());
                let seen = observe::observe(&kit, configuration);
                let outcome =
                    crate::outcome::apply(&kit, &*seen.configuration, decide::decide(&seen)).await;
                // A refused Revision is what the user must hear about, so it is in the status, too.
                if let Err(fault @ (Fault::Refused { .. } | Fault::Busy { .. })) = &outcome
                    && seen.is_to_create()
                {
                    kit.apply(decide::refused(&seen, &fault.message())).await?;
                }
                outcome
            }
        });
}
