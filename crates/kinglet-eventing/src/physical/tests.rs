//! InMemoryChannels as recorded (channel, retry-dead-letter), and DurableChannels beside them.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kinglet_api::destination::Resolved;
use kinglet_api::messaging::{DurableChannel, InMemoryChannel};
use kinglet_reconcile::{Key, Plan, Verb};
use serde_json::{Value, json};

use super::decide::{decide, in_force};
use super::kinds::PhysicalChannel;
use super::observe::PhysicalObserved;
use crate::testing::{DOMAIN, NO_SINK, POLICIES, conditions, error, now, others, read, status};

fn look<K: PhysicalChannel>(own_service: Option<Value>) -> PhysicalObserved<K> {
    let channel: K = read(json!({
        "metadata": {"name": "direct", "namespace": "channel", "uid": "c-1", "generation": 2},
        "spec": {"subscribers": [{"uid": "s-1", "generation": 1, "name": "direct", "subscriberUri": "http://10.244.0.1:9999/direct"}]},
    }));
    PhysicalObserved {
        channel: Arc::new(channel),
        key: Key::new("channel", "direct"),
        ordered: BTreeSet::new(),
        own_service: own_service.map(|service| Arc::new(read::<Service>(service))),
        service: true,
        endpoint: true,
        dead_letter: None,
        of_broker: false,
        configs: Arc::default(),
        cluster_domain: DOMAIN.into(),
        now: now(),
    }
}

fn service(api_version: &str, kind: &str, role: &str, dispatcher: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "direct-kn-channel", "namespace": "channel",
            "labels": {"messaging.knative.dev/role": role},
            "ownerReferences": [{
                "apiVersion": api_version, "kind": kind, "name": "direct", "uid": "c-1",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "externalName": format!("{dispatcher}.knative-eventing.svc.cluster.local"),
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None", "type": "ExternalName",
        },
    })
}

fn in_memory() -> Value {
    let version = "messaging.knative.dev/v1";
    service(
        version,
        "InMemoryChannel",
        "in-memory-channel",
        "imc-dispatcher",
    )
}

fn durable() -> Value {
    let version = "messaging.kinglet.dev/v1alpha1";
    service(
        version,
        "DurableChannel",
        "durable-channel",
        "durable-dispatcher",
    )
}

fn made(plan: &Plan) -> Value {
    let [made] = others(plan)[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(made.verb, Verb::Create);
    made.body.clone()
}

#[test]
fn its_service_is_another_name_of_the_dispatchers() {
    let plan = decide(&look::<InMemoryChannel>(None), None);
    assert_eq!(made(&plan), in_memory());
    let plan = decide(&look::<DurableChannel>(None), None);
    assert_eq!(made(&plan), durable());
    // Whatever else it led to, it leads there again.
    let mut astray = in_memory();
    astray["spec"]["externalName"] = json!("elsewhere");
    let plan = decide(&look::<InMemoryChannel>(Some(astray)), None);
    let [update] = others(&plan)[..] else {
        panic!("{plan:?}")
    };
    assert_eq!(update.body["spec"], in_memory()["spec"]);
}

#[test]
fn a_channel_in_force_is_ready_and_so_are_its_subscribers() {
    let plan = decide(&look::<InMemoryChannel>(Some(in_memory())), None);
    assert!(others(&plan).is_empty(), "{plan:?}");
    let want = json!({
        "address": {"name": "http", "url": "http://direct-kn-channel.channel.svc.cluster.local"},
        "observedGeneration": 2,
        "subscribers": [{"uid": "s-1", "observedGeneration": 1, "ready": "True"}],
    });
    assert_eq!(status(&plan), want);
    assert_eq!(
        conditions(&plan),
        [
            "Addressable | True",
            "ChannelServiceReady | True",
            NO_SINK,
            "DispatcherReady | True | Info",
            "EndpointsReady | True",
            POLICIES,
            "Ready | True",
            "ServiceReady | True",
        ]
    );
    let plan = decide(&look::<DurableChannel>(Some(durable())), None);
    assert_eq!(status(&plan), want);
    assert_eq!(
        conditions(&plan),
        [
            "Addressable | True",
            "ChannelServiceReady | True",
            NO_SINK,
            POLICIES,
            "LogReady | True",
            "Ready | True",
        ]
    );
}

#[test]
fn what_the_data_plane_refuses_is_not_ready() {
    let why = "opening the log of channel/direct: no space left on device";
    let plan = decide(
        &look::<DurableChannel>(Some(durable())),
        Some(why.to_owned()),
    );
    assert_eq!(error(&plan), why);
    assert_eq!(
        status(&plan)["subscribers"],
        json!([{"uid": "s-1", "observedGeneration": 1, "ready": "False", "message": why}])
    );
    assert_eq!(
        conditions(&plan)[4],
        format!("LogReady | False | LogFailed | {why}")
    );
    let plan = decide(
        &look::<InMemoryChannel>(Some(in_memory())),
        Some(why.to_owned()),
    );
    assert_eq!(
        conditions(&plan)[6],
        format!("Ready | False | DispatcherEndpointsNotReady | {why}")
    );
}

#[test]
fn what_stands_in_the_way_is_said() {
    type Change = fn(&mut PhysicalObserved<InMemoryChannel>);
    let rows: [(Change, &str); 4] = [
        (
            |it| it.service = false,
            "ServiceReady | False | DispatcherServiceDoesNotExist | Dispatcher Service does not exist",
        ),
        (
            |it| it.endpoint = false,
            "EndpointsReady | False | DispatcherEndpointsNotReady | There are no endpoints ready for Dispatcher service",
        ),
        (
            |it| it.dead_letter = Some(Err("gone".to_owned())),
            "DeadLetterSinkResolved | False | Unable to get the dead letter sink's URI | gone",
        ),
        (
            |it| {
                let mut strange = in_memory();
                strange["metadata"]["ownerReferences"] = json!([]);
                it.own_service = Some(Arc::new(read(strange)));
            },
            "ChannelServiceReady | False | ChannelServiceFailed | InMemoryChannel channel/direct does not own Service \"direct-kn-channel\"",
        ),
    ];
    for (change, want) in rows {
        let mut observed = look::<InMemoryChannel>(Some(in_memory()));
        change(&mut observed);
        let plan = decide(&observed, None);
        let lines = conditions(&plan);
        assert!(lines.iter().any(|line| line == want), "{lines:?}");
    }
    let mut observed = look::<InMemoryChannel>(Some(in_memory()));
    observed.dead_letter = Some(Ok(Resolved {
        url: "http://dead".to_owned(),
        ..Resolved::default()
    }));
    let plan = decide(&observed, None);
    assert_eq!(status(&plan)["deadLetterSinkUri"], "http://dead");
}

#[test]
fn the_data_plane_is_told_the_whole_channel() {
    let mut channel: InMemoryChannel =
        InMemoryChannel::clone(&look::<InMemoryChannel>(None).channel);
    channel.metadata.annotations = Some(
        [(
            "messaging.knative.dev/async-handler".to_owned(),
            "true".to_owned(),
        )]
        .into(),
    );
    let mut observed = look::<InMemoryChannel>(None);
    observed.channel = Arc::new(channel);
    observed.ordered.insert("s-1".to_owned());
    let force = in_force(&observed);
    assert_eq!(force.spec.subscribers.len(), 1);
    assert!(force.asynchronous && force.ordered.contains("s-1"));
    assert!(in_force(&look::<DurableChannel>(None)).asynchronous);
    assert!(!in_force(&look::<InMemoryChannel>(None)).asynchronous);
}
