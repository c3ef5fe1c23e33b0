//! Triggers as recorded (broker-triggers, retry-dead-letter, failures), and what stands in their way.

#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is written where it is handed over"
)]

use std::sync::Arc;

use kinglet_api::destination::Resolved;
use kinglet_api::duck::ObjectReference;
use kinglet_api::eventing::{Broker, Trigger};
use kinglet_api::messaging::Subscription;
use kinglet_reconcile::{Key, Plan, Verb};
use serde_json::{Value, json};

use super::decide::{decide, in_force};
use super::observe::{Dependency, TriggerObserved};
use crate::testing::{
    DOMAIN, IDENTITY, NO_SINK, conditions, error, now, others, read, ready, status,
};

const SUBSCRIPTION: &str = "default-trigger1-t-1";
const ABSENT: &str = "failed to get object ns/absent: services \"absent\" not found";

fn trigger(delivery: Value) -> Trigger {
    read(json!({
        "metadata": {"name": "trigger1", "namespace": "ns", "uid": "t-1", "generation": 1},
        "spec": {
            "broker": "default", "filter": {"attributes": {"type": "foo"}},
            "subscriber": {"uri": "http://10.244.0.1:9999/service1"}, "delivery": delivery,
        },
    }))
}

fn broker(class: &str, status: Value) -> Arc<Broker> {
    Arc::new(read(json!({
        "metadata": {
            "name": "default", "namespace": "ns", "uid": "b-1", "generation": 1,
            "annotations": {"eventing.knative.dev/broker.class": class},
        },
        "spec": {"delivery": {"backoffDelay": "PT0.2S", "backoffPolicy": "exponential", "retry": 10}},
        "status": status,
    })))
}

fn ready_broker() -> Arc<Broker> {
    let mut status = ready("True", "");
    status["annotations"] = json!({
        "knative.dev/channelAPIVersion": "messaging.knative.dev/v1", "knative.dev/channelAddress": "http://c",
        "knative.dev/channelKind": "InMemoryChannel", "knative.dev/channelName": "default-kne-trigger",
    });
    broker("MTChannelBasedBroker", status)
}

fn look(trigger: Trigger, subscription: Option<Value>) -> TriggerObserved {
    TriggerObserved {
        subscriber: Ok(Resolved {
            url: "http://10.244.0.1:9999/service1".to_owned(),
            ..Resolved::default()
        }),
        trigger: Arc::new(trigger),
        broker_key: Key::new("ns", "default"),
        broker: Some(ready_broker()),
        dead_letter: None,
        subscription: subscription.map(|one| Arc::new(read(one))),
        dependency: None,
        configs: Arc::default(),
        cluster_domain: DOMAIN.into(),
        now: now(),
    }
}

fn subscription(status: Value) -> Value {
    json!({
        "apiVersion": "messaging.knative.dev/v1", "kind": "Subscription",
        "metadata": {
            "name": SUBSCRIPTION, "namespace": "ns", "uid": "s-1", "generation": 1,
            "labels": {"eventing.knative.dev/broker": "default", "eventing.knative.dev/trigger": "trigger1"},
            "ownerReferences": [{
                "apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "name": "trigger1", "uid": "t-1",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "default-kne-trigger"},
            "delivery": {"backoffDelay": "PT0.2S", "backoffPolicy": "exponential", "retry": 10},
            "reply": {"ref": {"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "name": "default", "namespace": "ns"}},
            "subscriber": {"uri": "http://broker-filter.knative-eventing.svc.cluster.local/triggers/ns/trigger1/t-1"},
        },
        "status": status,
    })
}

fn plan(observed: &TriggerObserved) -> Plan {
    decide(observed).expect("a Trigger of ours")
}

fn line(plan: &Plan, condition: &str) -> String {
    let lines = conditions(plan);
    let found = lines.into_iter().find(|line| line.starts_with(condition));
    found.unwrap()
}

#[test]
fn a_subscription_is_made_as_knative_makes_it() {
    let plan = plan(&look(trigger(Value::Null), None));
    let [made] = others(&plan)[..] else {
        panic!("{plan:?}")
    };
    let mut want = subscription(Value::Null);
    want.as_object_mut().unwrap().remove("status");
    for field in ["uid", "generation"] {
        want["metadata"].as_object_mut().unwrap().remove(field);
    }
    let mut body = made.body.clone();
    body.as_object_mut().unwrap().remove("status");
    assert_eq!((&made.verb, body), (&Verb::Create, want));
    assert_eq!(
        line(&plan, "SubscriptionReady"),
        "SubscriptionReady | Unknown | SubscriptionNotConfigured | Subscription has not yet been reconciled."
    );
}

#[test]
fn a_trigger_with_all_it_needs_is_ready() {
    let observed = look(trigger(Value::Null), Some(subscription(ready("True", ""))));
    let plan = plan(&observed);
    assert!(others(&plan).is_empty(), "{plan:?}");
    assert_eq!(
        status(&plan),
        json!({"observedGeneration": 1, "subscriberUri": "http://10.244.0.1:9999/service1"})
    );
    assert_eq!(
        conditions(&plan),
        [
            "BrokerReady | True",
            NO_SINK,
            "DependencyReady | True",
            IDENTITY,
            "Ready | True",
            "SubscriberResolved | True",
            "SubscriptionReady | True",
        ]
    );
    let force = in_force(&observed).unwrap();
    assert_eq!(force.delivery.unwrap().retry, Some(10));
}

#[test]
fn an_obstacle_stops_what_comes_after_it() {
    let mut nosub = look(trigger(Value::Null), None);
    nosub.subscriber = Err(ABSENT.to_owned());
    let told = plan(&nosub);
    assert_eq!(
        conditions(&told),
        [
            "BrokerReady | True".to_owned(),
            "DeadLetterSinkResolved | Unknown".to_owned(),
            "DependencyReady | Unknown".to_owned(),
            "OIDCIdentityCreated | Unknown".to_owned(),
            format!("Ready | False | Unable to get the Subscriber's URI | {ABSENT}"),
            format!("SubscriberResolved | False | Unable to get the Subscriber's URI | {ABSENT}"),
            "SubscriptionReady | Unknown".to_owned(),
        ]
    );
    assert_eq!(
        (error(&told), status(&told)),
        (ABSENT, json!({"observedGeneration": 1}))
    );

    let mut nodl = look(trigger(Value::Null), None);
    nodl.dead_letter = Some(Err(ABSENT.to_owned()));
    let told = plan(&nodl);
    assert!(others(&told).is_empty());
    assert_eq!(error(&told), ABSENT);
    assert_eq!(
        conditions(&told),
        [
            "BrokerReady | True".to_owned(),
            format!(
                "DeadLetterSinkResolved | False | Unable to get the dead letter sink's URI | {ABSENT}"
            ),
            "DependencyReady | Unknown".to_owned(),
            "OIDCIdentityCreated | Unknown".to_owned(),
            format!("Ready | False | Unable to get the dead letter sink's URI | {ABSENT}"),
            "SubscriberResolved | True".to_owned(),
            "SubscriptionReady | Unknown".to_owned(),
        ]
    );
}

#[test]
fn the_broker_decides_first() {
    type Row = (Option<Arc<Broker>>, &'static str);
    let ours = "MTChannelBasedBroker";
    let rows: [Row; 5] = [
        (
            None,
            "BrokerReady | False | BrokerDoesNotExist | Broker \"default\" does not exist",
        ),
        (
            Some(broker(ours, json!({}))),
            "BrokerReady | Unknown | BrokerNotConfigured | Broker has not yet been reconciled.",
        ),
        (
            Some(broker(ours, ready("False", "no channel"))),
            "BrokerReady | False | no channel",
        ),
        (
            Some(broker(
                ours,
                json!({"observedGeneration": 0, "conditions": [{"type": "Ready", "status": "True"}]}),
            )),
            "BrokerReady | Unknown | BrokerUnknown | The newest generation of the Broker has not yet been reconciled.",
        ),
        (
            Some(broker(ours, ready("True", ""))),
            "BrokerReady | False | MissingBrokerChannel | the status of Broker \"default\" names no channel",
        ),
    ];
    for (broker, want) in rows {
        let mut observed = look(trigger(Value::Null), None);
        observed.broker = broker;
        let plan = plan(&observed);
        assert!(others(&plan).is_empty());
        assert_eq!(line(&plan, "BrokerReady"), want);
    }
    let mut observed = look(trigger(Value::Null), None);
    observed.broker = Some(broker("Alien", ready("True", "")));
    assert!(decide(&observed).is_none());
}

#[test]
fn dead_letters_are_the_triggers_own_or_the_brokers() {
    let mut observed = look(
        trigger(json!({"retry": 2})),
        Some(subscription(ready("True", ""))),
    );
    let mut broker = Broker::clone(observed.broker.as_ref().unwrap());
    broker.status.delivery.dead_letter_sink_uri = Some("http://dead".to_owned());
    observed.broker = Some(Arc::new(broker));
    let told = plan(&observed);
    assert_eq!(status(&told)["deadLetterSinkUri"], "http://dead");
    assert_eq!(
        line(&told, "DeadLetterSinkResolved"),
        "DeadLetterSinkResolved | True"
    );
    // The Trigger's delivery replaces the Broker's, whole; the Subscription keeps its uid and what waits for it.
    let [update] = others(&told)[..] else {
        panic!("{told:?}")
    };
    assert_eq!(update.verb, Verb::Update);
    assert_eq!(update.body["spec"]["delivery"], json!({"retry": 2}));
    observed.dead_letter = Some(Ok(Resolved {
        url: "http://own".to_owned(),
        ..Resolved::default()
    }));
    assert_eq!(status(&plan(&observed))["deadLetterSinkUri"], "http://own");
}

#[test]
fn a_subscription_of_another_channel_is_made_anew_and_a_strangers_is_left_alone() {
    let mut other = subscription(ready("True", ""));
    other["spec"]["channel"]["kind"] = json!("DurableChannel");
    let told = plan(&look(trigger(Value::Null), Some(other)));
    assert!(matches!(others(&told)[0].verb, Verb::Delete { .. }));
    assert!(line(&told, "Ready").starts_with("Ready | Unknown"));

    let mut strange = subscription(ready("True", ""));
    strange["metadata"]["ownerReferences"] = json!([]);
    let told = plan(&look(trigger(Value::Null), Some(strange)));
    assert!(others(&told).is_empty());
    assert_eq!(
        line(&told, "SubscriptionReady"),
        "SubscriptionReady | False | SubscriptionNotOwnedByTrigger | trigger \"trigger1\" does not own subscription \"default-trigger1-t-1\""
    );
}

#[test]
fn order_is_asked_for_on_the_subscription() {
    let mut ordered = trigger(Value::Null);
    ordered.metadata.annotations = Some(
        [(
            "eventing.kinglet.dev/delivery-order".to_owned(),
            "ordered".to_owned(),
        )]
        .into(),
    );
    let made = plan(&look(ordered.clone(), None));
    let asked = "eventing.kinglet.dev/delivery-order";
    assert_eq!(
        others(&made)[0].body["metadata"]["annotations"][asked],
        "ordered"
    );
    let told = plan(&look(ordered, Some(subscription(ready("True", "")))));
    assert_eq!(
        others(&told)[0].body["metadata"]["annotations"][asked],
        "ordered"
    );
}

#[test]
fn a_dependency_is_waited_for() {
    let reference = ObjectReference {
        kind: "PingSource".to_owned(),
        name: "p".to_owned(),
        api_version: "sources.knative.dev/v1".to_owned(),
        ..ObjectReference::default()
    };
    let found = |generation, value| Dependency::Found(generation, Box::new(read(value)));
    let rows = [
        (found(1, ready("True", "")), "DependencyReady | True"),
        (
            found(1, ready("False", "no sink")),
            "DependencyReady | False | no sink",
        ),
        (
            found(2, ready("True", "")),
            "DependencyReady | Unknown | GenerationNotEqual | The dependency's metadata.generation, 2, is not equal to its status.observedGeneration, 1.",
        ),
        (
            found(0, json!({})),
            "DependencyReady | Unknown | DependencyUnknown | The dependency says nothing about being ready.",
        ),
        (
            Dependency::Missing(reference.clone()),
            "DependencyReady | False | DependencyDoesNotExist | Dependency does not exist: PingSource \"p\"",
        ),
        (
            Dependency::UnknownKind(reference),
            "DependencyReady | Unknown | ListerDoesNotExist | there is no kind \"PingSource\" in sources.knative.dev/v1",
        ),
        (
            Dependency::Unreadable("expected value".to_owned()),
            "DependencyReady | False | ReferenceError | Unable to unmarshal objectReference from dependency annotation of trigger: expected value",
        ),
    ];
    for (dependency, want) in rows {
        let mut observed = look(trigger(Value::Null), Some(subscription(ready("True", ""))));
        observed.dependency = Some(dependency);
        assert_eq!(line(&plan(&observed), "DependencyReady"), want);
    }
}

#[test]
fn what_the_subscription_says_is_passed_on() {
    let rows = [
        (
            json!({}),
            "SubscriptionReady | Unknown | SubscriptionNotConfigured | Subscription has not yet been reconciled.",
        ),
        (
            ready("False", "503 since noon"),
            "SubscriptionReady | False | 503 since noon",
        ),
        (
            ready("Unknown", "soon"),
            "SubscriptionReady | Unknown | soon",
        ),
    ];
    for (status, want) in rows {
        let observed = look(trigger(Value::Null), Some(subscription(status)));
        assert_eq!(line(&plan(&observed), "SubscriptionReady"), want);
    }
    // What was said about an earlier generation is not good news yet.
    let mut newer = subscription(ready("True", ""));
    newer["metadata"]["generation"] = json!(2);
    let observed = look(trigger(Value::Null), Some(newer));
    assert!(line(&plan(&observed), "SubscriptionReady").contains("Unknown"));
    let _: Option<Arc<Subscription>> = observed.subscription;
}
