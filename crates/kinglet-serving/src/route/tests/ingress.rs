//! What the Ingress is told: headers of tags, gradual rollouts, its class.

use serde_json::json;

use super::*;

#[test]
fn routing_by_tag_header() {
    let mut world = World::new(json!([
        {"configurationName": "hello", "latestRevision": true, "percent": 100},
        {"revisionName": "hello-1", "latestRevision": false, "tag": "v1"},
    ]));
    world.0.configs = configs(&[("config-features", "tag-header-based-routing", "Enabled")]);
    world.configuration("hello-2", "True", "");
    world.revision("hello-1", "True", "");
    world.revision("hello-2", "True", "");
    world.step();
    let ingress = world.ingress();
    let paths = &ingress["spec"]["rules"][0]["http"]["paths"];
    assert_eq!(
        paths[0]["headers"],
        json!({"Knative-Serving-Tag": {"exact": "v1"}})
    );
    assert_eq!(paths[0]["splits"][0]["serviceName"], "hello-1");
    assert_eq!(
        paths[1]["appendHeaders"],
        json!({"Knative-Serving-Default-Route": "true"})
    );
    assert_eq!(
        ingress["spec"]["rules"][2]["http"]["paths"][0]["appendHeaders"],
        json!({"Knative-Serving-Tag": "v1"})
    );
}

#[test]
fn a_new_revision_comes_in_gradually() {
    let mut world = World::latest();
    world.route(|route| {
        drop(route.metadata.annotations.get_or_insert_default().insert(
            "serving.knative.dev/rollout-duration".to_owned(),
            "60s".to_owned(),
        ))
    });
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.acknowledge();
    world.step();
    assert_eq!(world.ready(), "True");

    world.configuration("hello-2", "True", "");
    world.revision("hello-2", "True", "");
    world.step();
    let share = |old: i64, new: i64| vec![("hello-1".to_owned(), old), ("hello-2".to_owned(), new)];
    assert_eq!(world.shares(), share(99, 1));
    assert_eq!(
        world.ready(),
        "Unknown RolloutInProgress A gradual rollout of the latest revision(s) is in progress."
    );
    assert_eq!(
        world.traffic(),
        json!([{"latestRevision": true, "percent": 99, "revisionName": "hello-1"}, {"latestRevision": true, "percent": 1, "revisionName": "hello-2"}])
    );
    world.0.now = Timestamp::from_millisecond(1_000_200).unwrap();
    world.acknowledge();
    let plan = world.step();
    assert_eq!(plan.next, Next::After(std::time::Duration::from_secs(1)));
    assert_eq!(world.shares(), share(99, 1));
    let mut steps = 0;
    while world.shares().len() > 1 {
        world.0.now = world
            .0
            .now
            .checked_add(jiff::SignedDuration::from_secs(1))
            .unwrap();
        world.step();
        world.acknowledge();
        steps += 1;
        if steps == 1 {
            assert_eq!(
                world.shares(),
                share(97, 3),
                "two percent a second, as recorded"
            );
        }
        assert!(steps < 100);
    }
    assert_eq!(steps, 50);
    world.step();
    assert_eq!(world.ready(), "True");
}

#[test]
fn an_ingress_class_that_nobody_serves_is_named() {
    let mut world = World::latest();
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.step();
    assert_eq!(
        world.ready(),
        "Unknown IngressNotConfigured Ingress has not yet been reconciled. Nobody serves the ingress class \
         \"x.ingress\"; the class served here is \"kinglet.ingress.networking.knative.dev\"."
    );
    world.acknowledge();
    world.step();
    assert_eq!(world.ready(), "True");
}
