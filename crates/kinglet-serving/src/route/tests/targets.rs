//! Targets: from the first one that waits to those that cannot be had.

use serde_json::json;

use super::*;

#[test]
fn from_waiting_to_ready() {
    let mut world = World::latest();
    waits_for_a_revision(&mut world);
    asks_the_ingress(&mut world);
    becomes_ready(&mut world);
    moves_to_a_new_domain(&mut world);
}

fn waits_for_a_revision(world: &mut World) {
    world.configuration("", "Unknown", "");
    let first = world.step();
    assert_eq!(
        first
            .events()
            .map(|event| event.message.as_str())
            .collect::<Vec<_>>(),
        ["Updated \"hello\" finalizers"]
    );
    let waiting = "Unknown RevisionMissing Configuration \"hello\" is waiting for a Revision to become ready.";
    assert_eq!(
        world.says(),
        [
            format!("AllTrafficAssigned={waiting}"),
            "CertificateProvisioned=Unknown".to_owned(),
            "IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled."
                .to_owned(),
            format!("Ready={waiting}"),
        ]
    );
    assert_eq!(
        world.0.route.status.url.as_deref(),
        Some("http://hello.a.example.com")
    );
    assert_eq!(world.0.route.status.address, None);
}

fn asks_the_ingress(world: &mut World) {
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    let second = world.step();
    assert_eq!(
        second
            .events()
            .map(|event| event.message.as_str())
            .collect::<Vec<_>>(),
        [
            "Created Ingress \"hello\"",
            "Created placeholder service \"hello\""
        ]
    );
    assert_eq!(
        world.says(),
        [
            "AllTrafficAssigned=True",
            "CertificateProvisioned=True TLSNotEnabled external-domain-tls is not enabled",
            "IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.",
            "Ready=Unknown IngressNotConfigured Ingress has not yet been reconciled.",
        ]
    );
    assert_eq!(world.leads_to("hello"), "hello.a.example.com");
    assert_eq!(
        world.ingress(),
        json!({
            "apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "Ingress",
            "metadata": {
                "name": "hello", "namespace": "a", "generation": 1,
                "labels": {keys::ROUTE: "hello", keys::ROUTE_NAMESPACE: "a", keys::SERVICE: "hello"},
                "annotations": {
                    keys::CREATOR: "admin", "networking.knative.dev/ingress.class": "x.ingress",
                    keys::ROLLOUT: r#"{"configurations":[{"configurationName":"hello","percent":100,"revisions":[{"revisionName":"hello-1","percent":100}],"stepParams":{}}]}"#,
                },
                "ownerReferences": [{"apiVersion": "serving.knative.dev/v1", "kind": "Route", "name": "hello", "uid": "r", "controller": true, "blockOwnerDeletion": true}],
            },
            "spec": {"httpOption": "Enabled", "rules": [
                rule(json!(["hello.a", "hello.a.svc", "hello.a.svc.cluster.local"]), "ClusterLocal", "hello-1"),
                rule(json!(["hello.a.example.com"]), "ExternalIP", "hello-1"),
            ]},
        })
    );
    assert_eq!(
        world.traffic(),
        json!([{"latestRevision": true, "percent": 100, "revisionName": "hello-1"}])
    );
    assert_eq!(
        world
            .0
            .route
            .status
            .address
            .as_ref()
            .unwrap()
            .url
            .as_deref(),
        Some("http://hello.a.svc.cluster.local")
    );
}

fn becomes_ready(world: &mut World) {
    world.acknowledge();
    world.step();
    assert_eq!(world.ready(), "True");
    assert_eq!(
        world.leads_to("hello"),
        "gateway-internal.x.svc.cluster.local"
    );
    let service = serde_json::to_value(&*world.0.services["hello"]).unwrap();
    assert_eq!(
        service["spec"],
        json!({
            "externalName": "gateway-internal.x.svc.cluster.local", "sessionAffinity": "None", "type": "ExternalName",
            "ports": [{"appProtocol": "kubernetes.io/h2c", "name": "http2", "port": 80, "protocol": "TCP", "targetPort": 80}],
        })
    );
    let again = world.step();
    assert!(
        again
            .writes()
            .all(kinglet_reconcile::Write::changes_nothing),
        "{again:?}"
    );
}

fn moves_to_a_new_domain(world: &mut World) {
    world.0.configs = configs(&[(
        "config-domain",
        "other.org",
        "selector: {\"serving.knative.dev/service\": hello}",
    )]);
    world.step();
    assert_eq!(
        world.0.route.status.url.as_deref(),
        Some("http://hello.a.other.org")
    );
    assert!(world.ready().starts_with("Unknown IngressNotConfigured"));
}

#[test]
fn targets_that_cannot_be_had() {
    let fixed = |name: &str| json!([{"revisionName": name, "percent": 50, "latestRevision": false}, {"configurationName": "hello", "latestRevision": true, "percent": 50}]);
    type Prepare = fn(&mut World);
    let rows: [(Value, Prepare, &str); 9] = [
        (
            fixed("hello-9"),
            |world| {
                world.configuration("hello-1", "True", "");
                world.revision("hello-1", "True", "");
            },
            "False RevisionMissing Revision \"hello-9\" referenced in traffic not found.",
        ),
        (
            fixed("hello-9"),
            |_| {},
            "False ConfigurationMissing Configuration \"hello\" referenced in traffic not found.",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration("", "Unknown", "");
                world.revision("hello-1", "True", "");
            },
            "Unknown RevisionMissing Configuration \"hello\" is waiting for a Revision to become ready.",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration(
                    "",
                    "False",
                    "Revision \"hello-1\" failed with message: boom.",
                );
                world.revision("hello-1", "False", "boom");
            },
            "False RevisionMissing Configuration \"hello\" does not have any ready Revision: Revision \"hello-1\" failed with message: boom.",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration("hello-2", "True", "");
                world.revision("hello-2", "True", "");
                world.revision("hello-1", "False", "boom");
            },
            "False RevisionMissing Revision \"hello-1\" failed to become ready: boom",
        ),
        (
            fixed("hello-1"),
            |world| {
                world.configuration("hello-2", "True", "");
                world.revision("hello-2", "True", "");
                world.revision("hello-1", "Unknown", "");
            },
            "Unknown RevisionMissing Revision \"hello-1\" is not yet ready.",
        ),
        (
            fixed("other-1"),
            |world| {
                world.configuration("hello-1", "True", "");
                world.revision("hello-1", "True", "");
                world.revision_of("other-1", Some("other"), "True", "");
            },
            "False RevisionNotOwned Revision \"other-1\" belongs to Service \"other\", not Service \"hello\".",
        ),
        (
            fixed("free-1"),
            |world| {
                world.configuration("hello-1", "True", "");
                world.revision("hello-1", "True", "");
                world.revision_of("free-1", None, "True", "");
            },
            "False RevisionNotOwned Revision \"free-1\" does not belong to Service \"hello\".",
        ),
        (
            json!([{"configurationName": "hello", "tag": "Not.A.Name!", "percent": 100}]),
            |_| {},
            "False ErrorConfig invalid domain name \"Not.A.Name!-hello.a.example.com\": url: Invalid value: \"Not.A.Name!-hello.a.example.com\": a lowercase RFC 1123 subdomain",
        ),
    ];
    for (traffic, prepare, want) in rows {
        let mut world = World::new(traffic);
        prepare(&mut world);
        world.step();
        assert!(
            world.ready().starts_with(want),
            "want {want}\n got {}",
            world.ready()
        );
        assert!(world.0.ingress.is_none(), "{want}");
    }
}

#[test]
fn a_bad_target_leaves_what_serves_alone() {
    let mut world = World::latest();
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world.step();
    world.acknowledge();
    world.step();
    let before = world.ingress();
    world.route(|route| {
        route.metadata.generation = Some(2);
        route.spec.traffic =
            serde_json::from_value(json!([{"revisionName": "hello-9", "percent": 100}])).unwrap();
    });
    world.step();
    assert_eq!(world.ingress(), before);
    assert_eq!(
        world.says(),
        [
            "AllTrafficAssigned=False RevisionMissing Revision \"hello-9\" referenced in traffic not found.",
            "CertificateProvisioned=True TLSNotEnabled external-domain-tls is not enabled",
            "IngressReady=Unknown IngressNotConfigured Ingress has not yet been reconciled.",
            "Ready=False RevisionMissing Revision \"hello-9\" referenced in traffic not found.",
        ]
    );
    assert_eq!(
        world.traffic(),
        json!([{"latestRevision": true, "percent": 100, "revisionName": "hello-1"}])
    );
}

#[test]
fn a_failure_of_a_young_generation_waits_and_reads_as_not_reconciled() {
    let mut world = World::new(json!([{"revisionName": "nope", "percent": 100}]));
    world.0.hold = std::time::Duration::from_millis(700);
    let plan = world.step();
    assert_eq!(
        world.ready(),
        "Unknown IngressNotConfigured Ingress has not yet been reconciled."
    );
    assert_eq!(
        plan.next,
        Next::After(std::time::Duration::from_millis(700))
    );
    assert_eq!(world.0.route.status.common.observed_generation, 1);
    world.0.hold = std::time::Duration::ZERO;
    world.step();
    assert_eq!(
        world.ready(),
        "False RevisionMissing Revision \"nope\" referenced in traffic not found."
    );
}
