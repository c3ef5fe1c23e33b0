//! Channels as recorded (channel).

#![allow(
    clippy::needless_pass_by_value,
    reason = "JSON is written where it is handed over"
)]

use std::sync::Arc;

use kinglet_api::messaging::Channel;
use kinglet_reconcile::Verb;
use serde_json::{Value, json};

use super::decide::decide;
use super::observe::ChannelObserved;
use crate::backing::Backing;
use crate::testing::{
    NO_SINK, POLICIES, channel_kind, conditions, error, now, others, read, status,
};

fn look(delivery: Value, found: Option<Value>) -> ChannelObserved {
    let channel: Channel = read(json!({
        "metadata": {"name": "letters", "namespace": "channel", "uid": "l-1", "generation": 1},
        "spec": {"channelTemplate": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}, "delivery": delivery},
    }));
    let kind = Some(channel_kind());
    let template = channel.spec.channel_template.clone().unwrap();
    ChannelObserved {
        channel: Arc::new(channel),
        backing: Some((template, Backing { kind, found })),
        configs: Arc::default(),
        now: now(),
    }
}

fn behind(status: Value) -> Option<Value> {
    Some(json!({
        "apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel",
        "metadata": {
            "name": "letters", "namespace": "channel",
            "ownerReferences": [{
                "apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "letters", "uid": "l-1",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {},
        "status": status,
    }))
}

fn well() -> Value {
    json!({
        "address": {"name": "http", "url": "http://letters-kn-channel.channel.svc.cluster.local"},
        "subscribers": [{"uid": "s-1", "observedGeneration": 1, "ready": "True"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    })
}

#[test]
fn the_channel_behind_is_made_as_knative_makes_it() {
    let plan = decide(&look(json!({"retry": 2}), None));
    let [made] = others(&plan)[..] else {
        panic!("{plan:?}")
    };
    let mut want = behind(Value::Null).unwrap();
    want.as_object_mut().unwrap().remove("status");
    want["spec"] = json!({"delivery": {"retry": 2}});
    assert_eq!((&made.verb, &made.body), (&Verb::Create, &want));
    assert_eq!(
        conditions(&plan),
        [
            "Addressable | False | EmptyHostname | hostname is the empty string",
            "BackingChannelReady | Unknown | BackingChannelNotConfigured | BackingChannel has not yet been reconciled.",
            NO_SINK,
            POLICIES,
            "Ready | False | EmptyHostname | hostname is the empty string",
        ]
    );
}

#[test]
fn what_the_channel_behind_says_is_passed_on() {
    let plan = decide(&look(Value::Null, behind(well())));
    assert!(others(&plan).is_empty(), "{plan:?}");
    assert_eq!(
        status(&plan),
        json!({
            "address": {"name": "http", "url": "http://letters-kn-channel.channel.svc.cluster.local"},
            "channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel", "name": "letters", "namespace": "channel"},
            "observedGeneration": 1,
            "subscribers": [{"uid": "s-1", "observedGeneration": 1, "ready": "True"}],
        })
    );
    assert_eq!(
        conditions(&plan),
        [
            "Addressable | True",
            "BackingChannelReady | True",
            NO_SINK,
            POLICIES,
            "Ready | True",
        ]
    );
}

#[test]
fn the_dead_letter_sink_is_the_one_that_the_channel_behind_has_resolved() {
    let sink = json!({"deadLetterSink": {"uri": "http://dead"}});
    let plan = decide(&look(sink.clone(), behind(well())));
    assert_eq!(
        conditions(&plan)[2],
        "DeadLetterSinkResolved | False | Unable to get the dead letter sink's URI | Backing Channel letters didn't set status.deadLetterSinkURI"
    );
    let mut resolved = well();
    resolved["deadLetterSinkUri"] = json!("http://dead");
    let plan = decide(&look(sink, behind(resolved)));
    assert_eq!(conditions(&plan)[2], "DeadLetterSinkResolved | True");
    assert_eq!(status(&plan)["deadLetterSinkUri"], "http://dead");
}

#[test]
fn what_cannot_be_made_is_said() {
    let mut unknown = look(Value::Null, None);
    unknown.backing.as_mut().unwrap().1.kind = None;
    let mut stranger = look(Value::Null, behind(well()));
    stranger.backing.as_mut().unwrap().1.found.as_mut().unwrap()["metadata"]["ownerReferences"] =
        json!([]);
    let mut without = look(Value::Null, None);
    without.backing = None;
    for (observed, want) in [
        (
            unknown,
            "there is no kind \"InMemoryChannel\" in messaging.knative.dev/v1; name another kind of channel, or install this one",
        ),
        (
            stranger,
            "InMemoryChannel \"letters\" exists and does not belong to this Channel; delete it, or name the Channel differently",
        ),
        (
            without,
            "the Channel has no channelTemplate, and default-ch-webhook names none",
        ),
    ] {
        let plan = decide(&observed);
        assert!(others(&plan).is_empty());
        assert_eq!(error(&plan), want);
        let ready = conditions(&plan).pop().unwrap();
        assert_eq!(ready, format!("Ready | False | ChannelFailure | {want}"));
    }
}
