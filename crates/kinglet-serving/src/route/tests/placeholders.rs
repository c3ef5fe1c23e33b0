//! Placeholder Services, and what belongs to others.

use serde_json::json;

use super::*;

#[test]
fn what_belongs_to_others_is_left_alone() {
    let mut world = World::latest();
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    let foreign: Service =
        serde_json::from_value(json!({"metadata": {"name": "hello", "namespace": "a"}})).unwrap();
    world
        .0
        .services
        .insert("hello".to_owned(), Arc::new(foreign));
    let plan = world.step();
    assert!(world.0.ingress.is_none());
    assert_eq!(
        world.ready(),
        "False NotOwned There is an existing placeholder Service \"hello\" that we do not own."
    );
    assert!(plan.error.is_some());
}

#[test]
fn placeholders_gain_what_the_route_gains_and_keep_what_it_loses() {
    let mut world = World::latest();
    world.route(|route| {
        let labels = route.metadata.labels.get_or_insert_default();
        labels.insert("team".to_owned(), "red".to_owned());
    });
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.acknowledge();
    world.step();
    world.route(|route| {
        let labels = route.metadata.labels.get_or_insert_default();
        labels.remove("team");
        labels.insert("tier".to_owned(), "front".to_owned());
        let annotations = route.metadata.annotations.get_or_insert_default();
        annotations.insert("note".to_owned(), "new".to_owned());
    });
    world.step();
    let metadata = world.0.services["hello"].metadata.clone();
    let labels = metadata.labels.unwrap();
    assert_eq!(
        (labels.get("team"), labels.get("tier")),
        (Some(&"red".to_owned()), Some(&"front".to_owned()))
    );
    assert_eq!(metadata.annotations.unwrap()["note"], "new");
    let again = world.step();
    assert_eq!(
        again
            .writes()
            .filter(|write| !write.changes_nothing())
            .count(),
        0
    );
}
