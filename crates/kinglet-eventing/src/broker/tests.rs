//! Brokers as recorded (broker-triggers, retry-dead-letter, failures), and what stands in their way.

#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is written where it is handed over"
)]

use std::sync::Arc;

use kinglet_api::eventing::Broker;
use kinglet_api::messaging::ChannelTemplate;
use kinglet_reconcile::{Plan, Verb};
use serde_json::{Value, json};

use super::decide::{decide, in_force};
use super::is_ours;
use super::observe::BrokerObserved;
use crate::backing::Backing;
use crate::testing::{
    DOMAIN, POLICIES, channel_kind, conditions, error, now, others, read, status,
};

const NAME: &str = "default-kne-trigger";
const ADDRESS: &str = "http://default-kne-trigger-kn-channel.broker-triggers.svc.cluster.local";

fn broker(delivery: Value) -> Broker {
    read(json!({
        "metadata": {
            "name": "default", "namespace": "broker-triggers", "uid": "b-1", "generation": 1,
            "annotations": {
                "eventing.knative.dev/broker.class": "MTChannelBasedBroker",
                "messaging.knative.dev/mine": "too", "other.dev/not": "handed",
            },
        },
        "spec": {
            "config": {"apiVersion": "v1", "kind": "ConfigMap", "name": "config-br-default-channel", "namespace": "knative-eventing"},
            "delivery": delivery,
        },
    }))
}

fn retries() -> Value {
    json!({"backoffDelay": "PT0.2S", "backoffPolicy": "exponential", "retry": 10})
}

/// The channel as the Broker makes it, with a status.
fn channel(status: Value) -> Value {
    json!({
        "apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel",
        "metadata": {
            "name": NAME, "namespace": "broker-triggers", "uid": "c-1",
            "annotations": {"eventing.knative.dev/scope": "cluster", "messaging.knative.dev/mine": "too"},
            "labels": {"eventing.knative.dev/broker": "default", "eventing.knative.dev/brokerEverything": "true"},
            "ownerReferences": [{
                "apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default", "uid": "b-1",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {"delivery": retries()},
        "status": status,
    })
}

fn addressed() -> Value {
    json!({"address": {"name": "http", "url": ADDRESS}, "conditions": [{"type": "Ready", "status": "True"}]})
}

fn look(broker: Broker, found: Option<Value>) -> BrokerObserved {
    let template = ChannelTemplate {
        kind: "InMemoryChannel".to_owned(),
        api_version: "messaging.knative.dev/v1".to_owned(),
        spec: None,
    };
    let kind = Some(channel_kind());
    BrokerObserved {
        broker: Arc::new(broker),
        channel: Ok((template, Backing { kind, found })),
        ingress: true,
        filter: true,
        dead_letter: None,
        configs: Arc::default(),
        cluster_domain: DOMAIN.into(),
        now: now(),
    }
}

fn line<'l>(lines: &'l [String], condition: &str) -> &'l str {
    let mut lines = lines.iter().map(String::as_str);
    lines.find(|line| line.starts_with(condition)).unwrap()
}

#[test]
fn a_channel_is_made_as_knative_makes_it() {
    let plan = decide(&look(broker(retries()), None), None);
    let [made] = others(&plan)[..] else {
        panic!("{plan:?}")
    };
    let mut want = channel(Value::Null);
    want.as_object_mut().unwrap().remove("status");
    want["metadata"].as_object_mut().unwrap().remove("uid");
    assert_eq!((&made.verb, &made.body), (&Verb::Create, &want));
    assert_eq!(
        line(&conditions(&plan), "TriggerChannelReady"),
        "TriggerChannelReady | False | NoAddress | Channel does not have an address."
    );
    assert_eq!(status(&plan).get("annotations"), None);
}

#[test]
fn a_broker_with_all_it_needs_is_ready() {
    let observed = look(broker(retries()), Some(channel(addressed())));
    let plan = decide(&observed, None);
    assert!(others(&plan).is_empty(), "{plan:?}");
    assert_eq!(
        status(&plan),
        json!({
            "address": {"name": "http", "url": "http://broker-ingress.knative-eventing.svc.cluster.local/broker-triggers/default"},
            "annotations": {
                "knative.dev/channelAPIVersion": "messaging.knative.dev/v1", "knative.dev/channelAddress": ADDRESS,
                "knative.dev/channelKind": "InMemoryChannel", "knative.dev/channelName": NAME,
            },
            "observedGeneration": 1,
        })
    );
    assert_eq!(
        conditions(&plan),
        [
            "Addressable | True",
            "DeadLetterSinkResolved | True | Info | DeadLetterSinkNotConfigured | No dead letter sink is configured.",
            POLICIES,
            "FilterReady | True",
            "IngressReady | True",
            "Ready | True",
            "TriggerChannelReady | True",
        ]
    );
    let (id, address) = in_force(&observed).channel.unwrap();
    assert_eq!(
        (
            id.kind.as_str(),
            &*id.key.name,
            id.uid.as_str(),
            address.as_str()
        ),
        ("InMemoryChannel", NAME, "c-1", ADDRESS)
    );
}

#[test]
fn without_its_config_map_nothing_is_known() {
    let mut observed = look(broker(retries()), None);
    observed.channel = Err("configmap \"absent\" not found".to_owned());
    let plan = decide(&observed, None);
    assert!(others(&plan).is_empty());
    assert_eq!(error(&plan), "configmap \"absent\" not found");
    assert_eq!(
        conditions(&plan),
        [
            "Addressable | Unknown",
            "EventPoliciesReady | Unknown",
            "FilterReady | Unknown",
            "IngressReady | Unknown",
            "Ready | False | ChannelTemplateFailed | Error on setting up the ChannelTemplate: configmap \"absent\" not found",
            "TriggerChannelReady | False | ChannelTemplateFailed | Error on setting up the ChannelTemplate: configmap \"absent\" not found",
        ]
    );
    assert_eq!(status(&plan), json!({"observedGeneration": 1}));
}

#[test]
fn the_channel_follows_the_broker() {
    let changed = json!({"retry": 3});
    let plan = decide(
        &look(broker(changed.clone()), Some(channel(addressed()))),
        None,
    );
    let [update] = others(&plan)[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(update.verb, Verb::Update);
    assert_eq!(update.body["spec"]["delivery"], changed);
    // What the template says is stronger.
    let mut observed = look(broker(retries()), Some(channel(addressed())));
    if let Ok((template, _)) = &mut observed.channel {
        template.spec = Some(json!({"delivery": {"retry": 1}}));
    }
    let plan = decide(&observed, None);
    assert_eq!(
        others(&plan)[0].body["spec"]["delivery"],
        json!({"backoffDelay": "PT0.2S", "backoffPolicy": "exponential", "retry": 1})
    );
}

#[test]
fn what_stands_in_the_way_is_said() {
    type Change = fn(&mut BrokerObserved);
    let rows: [(Change, &str, &str); 7] = [
        (
            |it| it.ingress = false,
            "IngressReady | False | EndpointSlicesUnavailable | Service \"broker-ingress\" has no endpoint that is ready.",
            "",
        ),
        (
            |it| it.filter = false,
            "FilterReady | False | EndpointSlicesUnavailable | Service \"broker-filter\" has no endpoint that is ready.",
            "",
        ),
        (
            |it| it.dead_letter = Some(Err("no such thing".to_owned())),
            "DeadLetterSinkResolved | False | Info | Unable to get the dead letter sink's URI | no such thing",
            "no such thing",
        ),
        (
            |it| {
                if let Ok((_, backing)) = &mut it.channel {
                    backing.found = Some(channel(
                        json!({"address": {"url": ADDRESS}, "conditions": [{"type": "Ready", "status": "False", "message": "disk full"}]}),
                    ));
                }
            },
            "TriggerChannelReady | False | ChannelFailure | disk full",
            "",
        ),
        (
            |it| {
                if let Ok((_, backing)) = &mut it.channel {
                    let mut other = channel(addressed());
                    other["metadata"]["ownerReferences"][0]["uid"] = json!("another");
                    backing.found = Some(other);
                }
            },
            "TriggerChannelReady | False | ChannelFailure | InMemoryChannel \"default-kne-trigger\" exists and does not belong to this Broker; delete it, or name the Broker differently",
            "InMemoryChannel \"default-kne-trigger\" exists and does not belong to this Broker; delete it, or name the Broker differently",
        ),
        (
            |it| {
                if let Ok((_, backing)) = &mut it.channel {
                    *backing = Backing {
                        kind: None,
                        found: None,
                    };
                }
            },
            "TriggerChannelReady | False | ChannelFailure | there is no kind \"InMemoryChannel\" in messaging.knative.dev/v1; name another kind of channel, or install this one",
            "there is no kind \"InMemoryChannel\" in messaging.knative.dev/v1; name another kind of channel, or install this one",
        ),
        (
            |it| {
                let mut configs = kinglet_api::config::eventing::EventingConfigs::default();
                configs.features.transport_encryption =
                    kinglet_api::config::eventing::TransportEncryption::Strict;
                it.configs = Arc::new(configs);
            },
            "Addressable | False | TransportEncryptionNotSupported | transport-encryption is Strict, but addresses are served over http only; set it to Disabled or Permissive",
            "",
        ),
    ];
    for (change, want, words) in rows {
        let mut observed = look(broker(retries()), Some(channel(addressed())));
        change(&mut observed);
        let plan = decide(&observed, None);
        let lines = conditions(&plan);
        let condition = want.split(' ').next().unwrap();
        assert_eq!(line(&lines, condition), want);
        assert_eq!(error(&plan), words);
    }
    let observed = look(broker(retries()), Some(channel(addressed())));
    let plan: Plan = decide(&observed, Some("opening the log: no space".to_owned()));
    assert_eq!(
        line(&conditions(&plan), "Ready"),
        "Ready | False | ServiceFailure | opening the log: no space"
    );
}

#[test]
fn brokers_of_other_classes_are_left_alone() {
    assert!(is_ours(&broker(retries())));
    let alien =
        json!({"metadata": {"annotations": {"eventing.knative.dev/broker.class": "Alien"}}});
    for other in [alien, json!({})] {
        assert!(!is_ours(&read::<Broker>(other)));
    }
}
