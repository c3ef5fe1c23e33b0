//! Certificates of public hosts: when they are asked for, and what each state of theirs means (spec/serving.md 7.1).

use kinglet_api::networking::Certificate;
use serde_json::json;

use super::*;

const ENABLED: (&str, &str, &str) = ("config-network", "external-domain-tls", "Enabled");
const REDIRECTED: (&str, &str, &str) = ("config-network", "http-protocol", "Redirected");

/// A ready Route with a tag, under this configuration.
fn world(maps: &[(&str, &str, &str)]) -> World {
    let mut world = World::new(json!([
        {"configurationName": "hello", "latestRevision": true, "percent": 100},
        {"revisionName": "hello-1", "latestRevision": false, "tag": "current"},
    ]));
    world.0.configs = configs(maps);
    world.configuration("hello-1", "True", "");
    world.revision("hello-1", "True", "");
    world
}

impl World {
    fn certificate(&mut self, name: &str, status: serde_json::Value) {
        let mut next = Certificate::clone(&self.0.certificates[name]);
        next.status = serde_json::from_value(status).unwrap();
        self.0.certificates.insert(name.to_owned(), Arc::new(next));
    }

    fn provisioned(&self) -> String {
        let all = self.says();
        all.iter()
            .find_map(|one| one.strip_prefix("CertificateProvisioned="))
            .unwrap()
            .to_owned()
    }

    fn url(&self) -> &str {
        self.0.route.status.url.as_deref().unwrap()
    }
}

fn status(ready: &str, message: &str) -> serde_json::Value {
    json!({"observedGeneration": 1, "conditions": [{"type": "Ready", "status": ready, "message": message}]})
}

#[test]
fn disabled_by_default_and_by_annotation_and_for_private_routes() {
    let mut plain = world(&[]);
    plain.step();
    assert_eq!(
        plain.provisioned(),
        "True TLSNotEnabled external-domain-tls is not enabled"
    );
    for key in [
        "disable-external-domain-tls",
        "disable-auto-tls",
        "disableAutoTLS",
    ] {
        let mut out = world(&[ENABLED]);
        out.route(|route| {
            let annotations = route.metadata.annotations.get_or_insert_default();
            annotations.insert(format!("networking.knative.dev/{key}"), "true".to_owned());
        });
        out.step();
        assert_eq!(
            out.provisioned(),
            "True TLSNotEnabled external-domain-tls is not enabled"
        );
        assert!(
            out.0.certificates.is_empty() && out.url().starts_with("http://"),
            "{key}"
        );
    }
    let mut private = world(&[ENABLED]);
    private.route(|route| {
        let labels = route.metadata.labels.get_or_insert_default();
        labels.insert(keys::VISIBILITY.to_owned(), "cluster-local".to_owned());
    });
    private.step();
    assert_eq!(
        private.provisioned(),
        "True TLSNotEnabled TLS is not enabled for cluster-local"
    );
    assert!(private.0.certificates.is_empty());
}

#[test]
fn each_public_host_has_one_and_becomes_https_with_it() {
    let mut world = world(&[ENABLED]);
    let plan = world.step();
    let events: Vec<&str> = plan.events().map(|event| event.message.as_str()).collect();
    assert!(
        events.contains(&"Created Certificate a/route-r"),
        "{events:?}"
    );
    let names: Vec<&str> = world.0.certificates.keys().map(String::as_str).collect();
    assert_eq!(names, ["route-r", "route-r-200999684"]);
    let made = serde_json::to_value(&*world.0.certificates["route-r-200999684"]).unwrap();
    assert_eq!(
        made["spec"],
        json!({"dnsNames": ["current-hello.a.example.com"], "domain": "example.com", "secretName": "route-r-200999684"})
    );
    assert_eq!(
        made["metadata"]["labels"],
        json!({"serving.knative.dev/route": "hello", "networking.knative.dev/certificate-type": "external-domain"})
    );
    assert_eq!(
        made["metadata"]["annotations"],
        json!({"networking.knative.dev/certificate.class": "cert-manager.certificate.networking.knative.dev"})
    );
    assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "Route");
    // Until they are there, http goes on.
    assert_eq!(
        world.provisioned(),
        "True HTTPDowngrade Certificate route-r is not ready downgrade HTTP."
    );
    assert_eq!(world.url(), "http://hello.a.example.com");
    world.certificate("route-r", status("True", ""));
    world.step();
    assert_eq!(world.url(), "https://hello.a.example.com");
    assert!(
        world
            .provisioned()
            .starts_with("True HTTPDowngrade Certificate route-r-200999684")
    );
    let of_route =
        json!({"hosts": ["hello.a.example.com"], "secretName": "route-r", "secretNamespace": "a"});
    assert_eq!(world.ingress()["spec"]["tls"], json!([of_route]));
    world.certificate("route-r-200999684", status("True", ""));
    world.step();
    assert_eq!(world.provisioned(), "True");
    assert_eq!(world.ingress()["spec"]["tls"].as_array().unwrap().len(), 2);
    assert_eq!(
        world.traffic()[1]["url"],
        "https://current-hello.a.example.com"
    );
    world.acknowledge();
    world.step();
    assert_eq!(world.ready(), "True");
    let address = serde_json::to_value(&world.0.route.status.address).unwrap();
    assert_eq!(address["url"], "http://hello.a.svc.cluster.local");
    // A second look changes nothing.
    let plan = world.step();
    assert!(plan.writes().all(kinglet_reconcile::Write::changes_nothing));
}

#[test]
fn without_plain_http_a_route_waits_for_its_certificates() {
    let mut world = world(&[ENABLED, REDIRECTED]);
    world.step();
    assert_eq!(world.url(), "https://hello.a.example.com");
    assert!(
        world
            .provisioned()
            .starts_with("Unknown CertificateNotReady Certificate route-r is not ready:"),
        "{}",
        world.provisioned()
    );
    world.certificate("route-r", status("True", ""));
    world.certificate("route-r-200999684", status("False", "no more to be had"));
    world.step();
    assert_eq!(
        world.provisioned(),
        "False CertificateProvisionFailed Certificate route-r-200999684 fails to be provisioned: no more to be had"
    );
    // What it says about an older spec does not count.
    let mut old = status("True", "");
    old["observedGeneration"] = json!(0);
    world.certificate("route-r-200999684", old);
    world.step();
    assert!(
        world
            .provisioned()
            .starts_with("Unknown CertificateNotReady")
    );
}

#[test]
fn what_is_not_wanted_any_more_is_deleted_and_what_is_foreign_is_not_touched() {
    let mut world = world(&[ENABLED]);
    world.step();
    world.route(|route| drop(route.spec.traffic.remove(1)));
    let plan = world.step();
    let events: Vec<&str> = plan.events().map(|event| event.message.as_str()).collect();
    assert!(
        events.contains(&"Deleted orphaned Knative Certificate a/route-r-200999684"),
        "{events:?}"
    );
    assert_eq!(world.0.certificates.len(), 1);
    world.0.configs = configs(&[]);
    world.step();
    assert!(world.0.certificates.is_empty(), "nor when it is disabled");

    world.0.configs = configs(&[ENABLED]);
    let foreign: Certificate =
        serde_json::from_value(json!({"metadata": {"name": "route-r", "namespace": "a"}})).unwrap();
    world
        .0
        .certificates
        .insert("route-r".to_owned(), Arc::new(foreign));
    let plan = world.step();
    assert_eq!(
        world.provisioned(),
        "False CertificateNotOwned There is an existing certificate route-r that we don't own."
    );
    assert!(plan.error.is_some());
    assert!(world.0.certificates["route-r"].spec.dns_names.is_empty());
}

#[test]
fn requests_of_an_acme_server_are_answered_while_it_waits() {
    let mut world = world(&[ENABLED]);
    world.step();
    let challenge = |host: &str| json!({"url": format!("http://{host}/.well-known/acme-challenge/t"), "serviceName": "solver", "serviceNamespace": "a", "servicePort": 8089});
    let mut waits = status("Unknown", "");
    waits["http01Challenges"] = json!([
        challenge("hello.a.example.com"),
        challenge("other.example.com")
    ]);
    world.certificate("route-r", waits);
    world.step();
    let rules = world.ingress()["spec"]["rules"].clone();
    let external: Vec<_> = rules
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["visibility"] == "ExternalIP")
        .collect();
    let paths = external[0]["http"]["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 2);
    assert_eq!(paths[0]["path"], "/.well-known/acme-challenge/t");
    assert_eq!(paths[0]["splits"][0]["serviceName"], "solver");
    assert_eq!(external[1]["http"]["paths"].as_array().unwrap().len(), 1);
}
