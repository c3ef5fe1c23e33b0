//! Labeler: notes on Revisions and Configurations which Routes lead to them.
//!
//! Flow: a Route changed -> [`decide`] -> labels and annotations of Revisions and Configurations; a Revision that no
//! Route leads to any more is in reserve, may be scaled to zero and collected one day.
//! Always: nothing is let go while the Route is still being worked on; a deleted Route leaves no note behind.

mod decide;
mod index;

#[cfg(test)]
mod tests;

use kinglet_api::keys;
use kinglet_api::serving::{Configuration, Revision, Route};
use kinglet_reconcile::{Context, Controller, Next, Plan, is_deleting};

use decide::LabelerObserved;
use index::RouteIndex;

/// Starts the controller.
pub fn start(context: &Context) {
    let revisions = RouteIndex::<Revision>::follow(context);
    let configurations = RouteIndex::<Configuration>::follow(context);
    Controller::<Route>::new("labeler-controller")
        .reads::<Revision>()
        .reads::<Configuration>()
        .reports_errors()
        .run(context, move |context, key| {
            let (revisions, configurations) = (revisions.clone(), configurations.clone());
            async move {
                let Some(route) = context.cache::<Route>().find(&key) else {
                    return Ok(Next::Done);
                };
                // The Route's own controller adds the finalizer; before that there is nothing that must be undone.
                let ours = route
                    .metadata
                    .finalizers
                    .iter()
                    .flatten()
                    .any(|name| name == keys::ROUTE_FINALIZER);
                if !ours {
                    return Ok(Next::Done);
                }
                let noted = decide::Noted {
                    revisions: revisions.of(&key),
                    configurations: configurations.of(&key),
                };
                let deleting = is_deleting(&*route);
                let observed = LabelerObserved::new(&context, route, &noted);
                let mut plan = decide::decide(&observed);
                if deleting {
                    let mut last = Plan::new();
                    last.remove_finalizer(&*observed.route, keys::ROUTE_FINALIZER);
                    plan.append(last);
                }
                context.apply(plan).await
            }
        });
}
