//! Subscriptions as recorded (channel, retry-dead-letter), and how they leave.

#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is written where it is handed over"
)]

use std::sync::Arc;

use kinglet_api::destination::Resolved;
use kinglet_api::messaging::Subscription;
use kinglet_reconcile::{Plan, Verb};
use serde_json::{Value, json};

use super::decide::decide;
use super::observe::{NoChannel, Physical, SubscriptionObserved, followed};
use crate::testing::{
    IDENTITY, channel_kind, conditions, error, events, now, others, read, status,
};

fn subscription(delivery: Value) -> Subscription {
    read(json!({
        "metadata": {"name": "plain", "namespace": "channel", "uid": "s-1", "generation": 1, "finalizers": ["subscriptions.messaging.knative.dev"]},
        "spec": {
            "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "direct"},
            "delivery": delivery,
        },
    }))
}

fn channel(spec: Value, said: Value) -> Value {
    json!({
        "apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel",
        "metadata": {"name": "direct", "namespace": "channel", "uid": "c-1", "resourceVersion": "7"},
        "spec": spec,
        "status": {"subscribers": said},
    })
}

fn to(url: &str) -> Option<Result<Resolved, String>> {
    Some(Ok(Resolved {
        url: url.to_owned(),
        ..Resolved::default()
    }))
}

fn look(subscription: Subscription, channel: Value) -> SubscriptionObserved {
    SubscriptionObserved {
        subscription: Arc::new(subscription),
        channel: Ok(Physical {
            kind: channel_kind(),
            object: channel,
        }),
        subscriber: to("http://10.244.0.1:9999/plain"),
        reply: None,
        dead_letter: None,
        configs: Arc::default(),
        now: now(),
    }
}

fn entry(more: Value) -> Value {
    let mut entry = json!({"name": "plain", "uid": "s-1", "generation": 1, "subscriberUri": "http://10.244.0.1:9999/plain"});
    entry
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap());
    entry
}

fn said(ready: &str) -> Value {
    json!([{"uid": "s-1", "observedGeneration": 1, "ready": ready}])
}

fn pushed(plan: &Plan) -> Value {
    let [update] = others(plan)[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(update.verb, Verb::Update);
    assert_eq!(update.body["metadata"]["resourceVersion"], "7");
    update.body["spec"]["subscribers"].clone()
}

#[test]
fn a_subscription_is_put_among_the_subscribers() {
    let mut fresh = subscription(Value::Null);
    fresh.metadata.finalizers = None;
    let plan = decide(&look(fresh, channel(json!({}), json!([]))));
    let [finalizer, update] = others(&plan)[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(
        finalizer.body["metadata"]["finalizers"],
        json!(["subscriptions.messaging.knative.dev"])
    );
    assert_eq!(
        update.body["spec"]["subscribers"],
        json!([entry(json!({}))])
    );
    assert_eq!(
        events(&plan),
        [
            "FinalizerUpdate Updated \"plain\" finalizers",
            "SubscriberSync Subscription was synchronized to channel \"direct\"",
        ]
    );
    assert_eq!(
        conditions(&plan)[..2],
        [
            "AddedToChannel | True",
            "ChannelReady | Unknown | SubscriptionNotMarkedReadyByChannel | Failed to get subscription status: subscription \"plain\" not present in channel \"direct\" subscriber's list",
        ]
    );
}

#[test]
fn it_is_ready_when_the_channel_says_so() {
    let settled = json!({"subscribers": [entry(json!({}))]});
    let plan = decide(&look(
        subscription(Value::Null),
        channel(settled.clone(), said("True")),
    ));
    assert!(others(&plan).is_empty(), "{plan:?}");
    assert!(events(&plan).is_empty());
    assert_eq!(
        conditions(&plan),
        [
            "AddedToChannel | True",
            "ChannelReady | True",
            IDENTITY,
            "Ready | True",
            "ReferencesResolved | True",
        ]
    );
    assert_eq!(
        status(&plan),
        json!({"observedGeneration": 1, "physicalSubscription": {"subscriberUri": "http://10.244.0.1:9999/plain"}})
    );
    let mut other_generation = said("True");
    other_generation[0]["observedGeneration"] = json!(2);
    for (told, want) in [
        (said("False"), "False"),
        (said("Unknown"), "Unknown"),
        (other_generation, "Unknown"),
    ] {
        let plan = decide(&look(
            subscription(Value::Null),
            channel(settled.clone(), told),
        ));
        let ready = conditions(&plan)[1].clone();
        assert!(
            ready.starts_with(&format!(
                "ChannelReady | {want} | SubscriptionNotMarkedReadyByChannel"
            )),
            "{ready}"
        );
    }
}

#[test]
fn delivery_is_its_own_or_the_channels() {
    let of_channel = json!({"backoffDelay": "PT0.2S", "backoffPolicy": "exponential", "retry": 10});
    let own = json!({"retry": 1, "backoffPolicy": "linear", "backoffDelay": "PT0.1S", "format": "json", "deadLetterSink": {"ref": {"kind": "X", "name": "x"}}});
    let mut pushed_own = own.clone();
    pushed_own["deadLetterSink"] = json!({"uri": "http://dead"});
    let rows = [
        (Value::Null, Value::Null, None, json!({})),
        (
            Value::Null,
            of_channel.clone(),
            None,
            json!({"delivery": of_channel}),
        ),
        (
            json!({"retry": 1}),
            of_channel,
            None,
            json!({"delivery": {"retry": 1}}),
        ),
        (
            own,
            Value::Null,
            to("http://dead"),
            json!({"delivery": pushed_own}),
        ),
    ];
    for (delivery, of_channel, dead_letter, want) in rows {
        let object = channel(json!({"delivery": of_channel}), json!([]));
        let mut observed = look(subscription(delivery), object);
        observed.dead_letter = dead_letter;
        assert_eq!(pushed(&decide(&observed)), json!([entry(want)]));
    }
    // The dead letter sink of the channel serves all that have none.
    let mut object = channel(json!({}), json!([]));
    object["status"]["deadLetterSinkUri"] = json!("http://dead");
    let plan = decide(&look(subscription(json!({"retry": 2})), object));
    assert_eq!(
        pushed(&plan)[0]["delivery"],
        json!({"retry": 2, "deadLetterSink": {"uri": "http://dead"}})
    );
    assert_eq!(
        status(&plan)["physicalSubscription"]["deadLetterSinkUri"],
        "http://dead"
    );
}

#[test]
fn others_and_replies_stay_as_they_are() {
    let neighbour = json!({"name": "other", "uid": "s-2", "generation": 4, "replyUri": "http://r"});
    let stale = entry(json!({"generation": 0, "subscriberUri": "http://before"}));
    let object = channel(json!({"subscribers": [neighbour, stale]}), json!([]));
    let mut observed = look(subscription(Value::Null), object);
    observed.reply = to("http://10.244.0.1:9999/reply");
    assert_eq!(
        pushed(&decide(&observed)),
        json!([
            neighbour,
            entry(json!({"replyUri": "http://10.244.0.1:9999/reply"}))
        ])
    );
}

#[test]
fn what_cannot_be_resolved_is_named() {
    let missing = NoChannel {
        why: "channels.messaging.knative.dev \"missing\" not found".to_owned(),
        missing: true,
    };
    let mut observed = look(subscription(Value::Null), Value::Null);
    observed.channel = Err(missing);
    let words = "Failed to get Spec.Channel or backing channel: channels.messaging.knative.dev \"missing\" not found";
    let plan = decide(&observed);
    assert_eq!(events(&plan), [format!("ChannelReferenceFailed {words}")]);
    assert_eq!(
        conditions(&plan),
        [
            "AddedToChannel | Unknown".to_owned(),
            "ChannelReady | Unknown".to_owned(),
            IDENTITY.to_owned(),
            format!("Ready | Unknown | ChannelReferenceFailed | {words}"),
            format!("ReferencesResolved | Unknown | ChannelReferenceFailed | {words}"),
        ]
    );
    assert_eq!(
        status(&plan),
        json!({"observedGeneration": 1, "physicalSubscription": {}})
    );

    type Break = fn(&mut SubscriptionObserved);
    let rows: [(Break, &str); 3] = [
        (
            |it| it.subscriber = Some(Err("gone".to_owned())),
            "ReferencesResolved | False | SubscriberResolveFailed | Failed to resolve spec.subscriber: gone",
        ),
        (
            |it| it.reply = Some(Err("gone".to_owned())),
            "ReferencesResolved | False | ReplyResolveFailed | Failed to resolve spec.reply: gone",
        ),
        (
            |it| it.dead_letter = Some(Err("gone".to_owned())),
            "ReferencesResolved | False | DeadLetterSinkResolveFailed | Failed to resolve spec.delivery.deadLetterSink: gone",
        ),
    ];
    for (change, want) in rows {
        let mut observed = look(subscription(Value::Null), channel(json!({}), json!([])));
        change(&mut observed);
        let plan = decide(&observed);
        assert!(others(&plan).is_empty());
        assert_eq!(conditions(&plan).last().unwrap(), want);
    }
}

#[test]
fn a_channel_is_followed_when_it_is_ready() {
    let behind = json!({"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "letters", "namespace": "channel"});
    let object = |generation: i64, truth: &str, message: &str| {
        json!({
            "metadata": {"name": "letters", "generation": generation},
            "status": {"observedGeneration": 1, "channel": behind, "conditions": [{"type": "Ready", "status": truth, "message": message}]},
        })
    };
    assert_eq!(followed(&object(1, "True", "")).unwrap().name, "letters");
    for (channel, want) in [
        (object(2, "True", ""), "Channel \"letters\" is not ready"),
        (
            object(1, "False", "full"),
            "Channel \"letters\" is not ready: full",
        ),
    ] {
        assert_eq!(followed(&channel).unwrap_err(), want);
    }
}

#[test]
fn a_subscription_that_goes_leaves_the_channel_first() {
    let mut going = subscription(Value::Null);
    going.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    let neighbour = json!({"uid": "s-2"});
    let object = channel(
        json!({"subscribers": [entry(json!({})), neighbour]}),
        said("True"),
    );
    let mut observed = look(going, object);
    let plan = decide(&observed);
    let [removed, finalizer] = others(&plan)[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(removed.body["spec"]["subscribers"], json!([neighbour]));
    assert_eq!(finalizer.body["metadata"].get("finalizers"), None);
    assert_eq!(
        events(&plan),
        ["SubscriberRemoved Subscription was removed from channel \"direct\""]
    );
    // Without a channel there is nothing to leave.
    observed.channel = Err(NoChannel {
        why: "gone".to_owned(),
        missing: true,
    });
    assert_eq!(others(&decide(&observed)).len(), 1);
    // A Channel that is not ready may still lead to one that has the entry.
    let mut known = Subscription::clone(&observed.subscription);
    known.status.physical_subscription.subscriber_uri = Some("http://x".to_owned());
    observed.subscription = Arc::new(known);
    observed.channel = Err(NoChannel {
        why: "not ready".to_owned(),
        missing: false,
    });
    let plan = decide(&observed);
    assert!(others(&plan).is_empty());
    assert_eq!(error(&plan), "removing the subscriber: not ready");
}
