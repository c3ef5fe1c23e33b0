//! No failed request while revisions change.

use crate::checks::{self, System};
use crate::{run, start};

#[test]
fn no_request_fails_during_a_rollout() {
    run(async {
        let (instance, api) = start().await?;
        checks::rollout(System {
            api: &api,
            instance: &instance,
        })
        .await
    });
}
