//! Hosts of tags, private Routes, labels that are too long.

use serde_json::json;

use super::*;

#[test]
fn tags_have_names_of_their_own() {
    let mut world = World::new(json!([
        {"revisionName": "hello-1", "latestRevision": false, "percent": 50},
        {"configurationName": "hello", "latestRevision": true, "percent": 50, "tag": "now"},
        {"revisionName": "old-h2c", "latestRevision": false, "percent": 0, "tag": "old"},
    ]));
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.revision("old-h2c", "True", "");
    world.step();
    assert_eq!(
        world.traffic(),
        json!([
            {"latestRevision": false, "percent": 50, "revisionName": "hello-1"},
            {"latestRevision": true, "percent": 50, "revisionName": "hello-1", "tag": "now", "url": "http://now-hello.a.example.com"},
            {"latestRevision": false, "percent": 0, "revisionName": "old-h2c", "tag": "old", "url": "http://old-hello.a.example.com"},
        ])
    );
    let ingress = world.ingress();
    let annotations = &ingress["metadata"]["annotations"];
    assert_eq!(
        annotations[keys::TAG_TO_HOST],
        r#"{"now":["now-hello.a.svc.cluster.local","now-hello.a.example.com"],"old":["old-hello.a.svc.cluster.local","old-hello.a.example.com"]}"#
    );
    assert_eq!(
        annotations[keys::ROLLOUT],
        r#"{"configurations":[{"configurationName":"hello","tag":"now","percent":100,"revisions":[{"revisionName":"hello-1","percent":100}],"stepParams":{}}]}"#
    );
    let rules = ingress["spec"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 6);
    assert_eq!(
        rules[2],
        rule(
            json!([
                "now-hello.a",
                "now-hello.a.svc",
                "now-hello.a.svc.cluster.local"
            ]),
            "ClusterLocal",
            "hello-1"
        )
    );
    let split = &rules[5]["http"]["paths"][0]["splits"][0];
    assert_eq!(
        (&split["percent"], &split["servicePort"]),
        (&json!(100), &json!(81))
    );
    assert_eq!(
        world.0.services.keys().collect::<Vec<_>>(),
        ["hello", "now-hello", "old-hello"]
    );

    // One tag for callers inside only; another is dropped.
    let mut service = Service::clone(&world.0.services["now-hello"]);
    service
        .metadata
        .labels
        .get_or_insert_default()
        .insert(keys::VISIBILITY.to_owned(), "cluster-local".to_owned());
    world
        .0
        .services
        .insert("now-hello".to_owned(), Arc::new(service));
    world.route(|route| drop(route.spec.traffic.pop()));
    world.step();
    assert_eq!(
        world.0.services.keys().collect::<Vec<_>>(),
        ["hello", "now-hello"]
    );
    assert_eq!(world.0.ingress.as_ref().unwrap().spec.rules.len(), 3);
    assert_eq!(
        world.traffic()[1]["url"],
        "http://now-hello.a.svc.cluster.local"
    );
}

#[test]
fn a_private_route() {
    let mut world = World::latest();
    world.route(|route| {
        drop(
            route
                .metadata
                .labels
                .get_or_insert_default()
                .insert(keys::VISIBILITY.to_owned(), "cluster-local".to_owned()),
        )
    });
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    assert_eq!(
        world.0.route.status.url.as_deref(),
        Some("http://hello.a.svc.cluster.local")
    );
    assert_eq!(world.0.ingress.as_ref().unwrap().spec.rules.len(), 1);
    let labels = world.0.services["hello"].metadata.labels.clone().unwrap();
    assert_eq!(
        labels.keys().collect::<Vec<_>>(),
        [keys::ROUTE, keys::SERVICE]
    );
}

#[test]
fn a_host_label_that_is_too_long_is_the_routes_fault() {
    let name = "a23456789-b23456789-c23456789-d23456789-e23456789-f2345678";
    let mut world = World::new(json!([
        {"configurationName": "hello", "latestRevision": true, "percent": 100, "tag": "candidate"},
    ]));
    world.route(|route| route.metadata.name = Some(name.to_owned()));
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    let label = format!("candidate-{name}");
    let expected = format!(
        "AllTrafficAssigned=False ErrorConfig invalid domain name \"{label}.a.example.com\": url: \
         Invalid value: \"{label}\": must be no more than 63 characters"
    );
    assert!(world.says().contains(&expected), "{:?}", world.says());
    assert!(world.0.ingress.is_none());
}
