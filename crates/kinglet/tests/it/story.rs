//! The first things anyone does, over our own API server.

use crate::checks::{self, Place};
use crate::{run, start};

#[test]
fn a_service_answers_goes_to_zero_and_wakes_up() {
    run(async {
        let (instance, api) = start().await?;
        checks::story(Place {
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
        let place = Place {
            api: &api,
            instance: &instance,
        };
        checks::private_names(place).await?;
        checks::deletion(place).await
    });
}
