//! Plans for a ServerlessService, as the recordings show them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Service};
use kinglet_api::networking::ServerlessService;
use kinglet_reconcile::{Verb, Write};
use serde_json::{Value, json};

use super::*;
use crate::autoscale::sks::observe;

fn owner(mode: &str, protocol: &str) -> ServerlessService {
    serde_json::from_value(json!({
        "metadata": {
            "name": "hello-a", "namespace": "ready", "uid": "uid-sks", "generation": 3,
            "labels": {"app": "hello-a"}, "annotations": {"autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev"},
        },
        "spec": {
            "mode": mode, "protocolType": protocol, "numActivators": 4,
            "objectRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello-a-deployment"},
        },
    }))
    .unwrap()
}

fn activator_service(ready: &[&str]) -> Endpoints {
    let addresses: Vec<Value> = ready
        .iter()
        .map(|ip| json!({"ip": ip, "nodeName": "node-1", "targetRef": {"kind": "Pod", "name": format!("activator-{ip}"), "namespace": "knative-serving"}}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": "activator-service", "namespace": "knative-serving"},
        "subsets": [
            {"addresses": addresses, "ports": [{"name": "http", "port": 8012}]},
            // The same pods again for another port, and one that is not ready.
            {"addresses": addresses, "notReadyAddresses": [{"ip": "10.44.0.99"}], "ports": [{"name": "http2", "port": 8013}]},
        ],
    }))
    .unwrap()
}

fn observed(mode: &str, protocol: &str, ready: usize) -> ServerlessServiceObserved {
    let address = |n| EndpointAddress {
        ip: format!("10.0.0.{n}"),
        ..Default::default()
    };
    ServerlessServiceObserved {
        owner: Arc::new(owner(mode, protocol)),
        private: None,
        public: None,
        endpoints: None,
        selector: Some(BTreeMap::from([(
            "serving.knative.dev/revisionUID".to_owned(),
            "u".to_owned(),
        )])),
        ready: (1..=ready).map(address).collect(),
        activators: observe::addresses_of(&activator_service(&["10.44.0.1"])),
        now: "2026-11-21T10:00:00Z".parse().unwrap(),
    }
}

fn written<'a>(plan: &'a Plan, kind: &str, name: &str) -> &'a Value {
    let found = plan
        .writes()
        .find(|write: &&Write| write.kind == kind && &*write.key.name == name);
    &found
        .unwrap_or_else(|| panic!("no {kind} {name} in {plan:?}"))
        .body
}

fn conditions(plan: &Plan) -> Vec<String> {
    let body = plan
        .writes()
        .find(|write| write.verb == Verb::Status)
        .map(|write| &write.body)
        .unwrap();
    let list = body["status"]["conditions"].as_array().unwrap();
    list.iter()
        .map(|condition| {
            let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
            format!("{}={} {}", text("type"), text("status"), text("reason"))
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn addresses(plan: &Plan) -> Vec<String> {
    let body = written(plan, "Endpoints", "hello-a");
    let list = body["subsets"][0]["addresses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    list.iter()
        .map(|address| address["ip"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn builds_both_services() {
    let plan = decide(&observed("Proxy", "http1", 0));
    let private = written(&plan, "Service", "hello-a-private");
    assert_eq!(
        private["spec"]["selector"],
        json!({"serving.knative.dev/revisionUID": "u"})
    );
    assert_eq!(
        private["spec"]["ports"],
        json!([
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8012},
            {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8112},
            {"name": "http-autometric", "port": 9090, "protocol": "TCP", "targetPort": "http-autometric"},
            {"name": "http-usermetric", "port": 9091, "protocol": "TCP", "targetPort": "http-usermetric"},
            {"name": "http-istio", "port": 8012, "protocol": "TCP", "targetPort": 8012},
        ])
    );
    assert_eq!(
        private["metadata"]["labels"]["networking.internal.knative.dev/serviceType"],
        "Private"
    );
    let public = written(&plan, "Service", "hello-a");
    assert_eq!(public["spec"].get("selector"), None);
    assert_eq!(
        public["spec"]["ports"],
        json!([
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8012},
            {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8112},
        ])
    );
    assert_eq!(
        public["metadata"]["ownerReferences"][0]["kind"],
        "ServerlessService"
    );
    assert_eq!(
        public["metadata"]["annotations"]["autoscaling.knative.dev/class"],
        "kpa.autoscaling.knative.dev"
    );
}

#[test]
fn h2c_has_ports_of_its_own() {
    let plan = decide(&observed("Proxy", "h2c", 0));
    assert_eq!(
        written(&plan, "Service", "hello-a")["spec"]["ports"][0],
        json!({"name": "http2", "port": 81, "protocol": "TCP", "targetPort": 8013, "appProtocol": "kubernetes.io/h2c"})
    );
    assert_eq!(
        written(&plan, "Service", "hello-a-private")["spec"]["ports"][4]["name"],
        "http2-istio"
    );
}

#[test]
fn who_stands_behind_the_public_service() {
    let rows = [
        (
            "no pods",
            "Serve",
            0,
            vec!["10.44.0.1"],
            [
                "ActivatorEndpointsPopulated=True ActivatorEndpointsPopulated",
                "EndpointsPopulated=Unknown NoHealthyBackends",
                "Ready=Unknown NoHealthyBackends",
            ],
        ),
        (
            "pods, direct",
            "Serve",
            2,
            vec!["10.0.0.1", "10.0.0.2"],
            [
                "ActivatorEndpointsPopulated=False ActivatorEndpointsPopulated",
                "EndpointsPopulated=True",
                "Ready=True",
            ],
        ),
        (
            "pods, buffered",
            "Proxy",
            2,
            vec!["10.44.0.1"],
            [
                "ActivatorEndpointsPopulated=True ActivatorEndpointsPopulated",
                "EndpointsPopulated=True",
                "Ready=True",
            ],
        ),
    ];
    for (case, mode, ready, expected, request) in rows {
        let plan = decide(&observed(mode, "http1", ready));
        assert_eq!(addresses(&plan), expected, "{case}");
        assert_eq!(conditions(&plan), request, "{case}");
        let status = &plan.writes().last().unwrap().body["status"];
        assert_eq!(
            (&status["serviceName"], &status["privateServiceName"]),
            (&json!("hello-a"), &json!("hello-a-private"))
        );
        assert_eq!(status["observedGeneration"], 3);
    }
}

#[test]
fn without_activators_it_is_the_pods() {
    let bare = ServerlessServiceObserved {
        activators: Vec::new(),
        ..observed("Proxy", "http1", 1)
    };
    assert_eq!(addresses(&decide(&bare)), ["10.0.0.1"]);
    let empty = ServerlessServiceObserved {
        activators: Vec::new(),
        ..observed("Proxy", "http1", 0)
    };
    assert!(addresses(&decide(&empty)).is_empty());
}

#[test]
fn some_activators_of_many_are_chosen_and_named_as_their_service_names_them() {
    let ips = [
        "10.44.0.5",
        "10.44.0.1",
        "10.44.0.4",
        "10.44.0.3",
        "10.44.0.2",
    ];
    let many = ServerlessServiceObserved {
        activators: observe::addresses_of(&activator_service(&ips)),
        ..observed("Proxy", "http1", 3)
    };
    let plan = decide(&many);
    let mut sorted = ips;
    sorted.sort_unstable();
    assert_eq!(addresses(&plan), subset::choose(&sorted, 4, "hello-a"));
    let first = &written(&plan, "Endpoints", "hello-a")["subsets"][0]["addresses"][0];
    assert_eq!(first["nodeName"], "node-1");
    assert_eq!(first["targetRef"]["namespace"], "knative-serving");
}

#[test]
fn a_foreign_service_stops_it() {
    let stranger: Service =
        serde_json::from_value(json!({"metadata": {"name": "hello-a", "namespace": "ready"}}))
            .unwrap();
    let plan = decide(&ServerlessServiceObserved {
        public: Some(Arc::new(stranger)),
        ..observed("Proxy", "http1", 0)
    });
    assert_eq!(
        conditions(&plan),
        ["EndpointsPopulated=False NotOwned", "Ready=False NotOwned"]
    );
    assert_eq!(plan.writes().count(), 1);
    assert_eq!(
        plan.error.unwrap().message,
        "Resource hello-a of type Service is not owned by SKS"
    );
}

#[test]
fn without_a_deployment_it_waits_and_nothing_is_an_error() {
    let plan = decide(&ServerlessServiceObserved {
        selector: None,
        ..observed("Proxy", "http1", 0)
    });
    assert!(plan.error.is_none(), "deletion takes the Deployment first");
    assert!(matches!(plan.next, kinglet_reconcile::Next::After(_)));
    assert_eq!(
        conditions(&plan),
        [
            "EndpointsPopulated=Unknown CreatingPrivateService",
            "Ready=Unknown CreatingPrivateService"
        ]
    );
}

#[test]
fn deciding_twice_changes_nothing() {
    let first = observed("Proxy", "http1", 1);
    let plan = decide(&first);
    let take = |kind, name| {
        let mut value = written(&plan, kind, name).clone();
        // What a server adds.
        value["metadata"]["uid"] = json!("u");
        if kind == "Service" {
            value["spec"]["clusterIP"] = json!("10.96.0.9");
        }
        value
    };
    let again = ServerlessServiceObserved {
        private: Some(Arc::new(
            serde_json::from_value(take("Service", "hello-a-private")).unwrap(),
        )),
        public: Some(Arc::new(
            serde_json::from_value(take("Service", "hello-a")).unwrap(),
        )),
        endpoints: Some(Arc::new(
            serde_json::from_value(take("Endpoints", "hello-a")).unwrap(),
        )),
        owner: Arc::new(
            serde_json::from_value(plan.writes().last().unwrap().body.clone()).unwrap(),
        ),
        ..first
    };
    assert!(decide(&again).writes().all(Write::changes_nothing));
}
