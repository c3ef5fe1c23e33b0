//! The first things anyone does, over our own API server.

use crate::checks::{self, System};
use crate::{run, start};

#[test]
fn a_service_answers_goes_to_zero_and_wakes_up() {
    run(async {
        let (instance, api) = start().await?;
        checks::story(System {
            api: &api,
            instance: &instance,
        })
        .await?;
        instance.stop().await
    });
}

#[test]
fn private_names_and_deletion() {
    run(async {
        let (instance, api) = start().await?;
        let system = System {
            api: &api,
            instance: &instance,
        };
        checks::private_names(system).await?;
        checks::deletion(system).await
    });
}
