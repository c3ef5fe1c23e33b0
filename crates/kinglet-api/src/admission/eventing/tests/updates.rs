//! What may change, and who signs it.

use super::*;

fn update<'a>(api_version: &'a str, kind: &'a str, old: &'a Value) -> Review<'a> {
    Review {
        operation: Operation::Update,
        user: "ben",
        old: Some(old),
        ..request(api_version, kind)
    }
}

/// What is stored of a new object.
fn made(api_version: &str, kind: &str, spec: &Value) -> Value {
    admit(
        &request(api_version, kind),
        &object(spec),
        &EventingConfigs::default(),
    )
    .unwrap()
}

fn changed(
    api_version: &str,
    kind: &str,
    spec: &Value,
    pointer: &str,
    to: &Value,
) -> Result<Value, String> {
    let old = made(api_version, kind, spec);
    let mut new = old.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    new.pointer_mut(parent).unwrap()[field] = to.clone();
    let answer = admit(
        &update(api_version, kind, &old),
        &new,
        &EventingConfigs::default(),
    );
    answer.map_err(|message| message.trim_start_matches(REFUSED).to_owned())
}

#[test]
fn what_is_immutable_stays() {
    let trigger = json!({"broker": "default", "subscriber": {"uri": "http://x.y/z"}});
    let subscription = json!({"channel": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": "c"}, "subscriber": {"uri": "http://x.y"}});
    let rows = [
        (
            "eventing.knative.dev/v1",
            "Broker",
            json!({}),
            "/spec/config/name",
            json!("other"),
            "Immutable fields changed (-old +new): spec\n{v1.BrokerSpec}.Config.Name:\n\t-: \"config-br-default-channel\"\n\t+: \"other\"\n",
        ),
        (
            "eventing.knative.dev/v1",
            "Trigger",
            trigger.clone(),
            "/spec/broker",
            json!("other"),
            "Immutable fields changed (-old +new): broker, spec\n{string}:\n\t-: \"default\"\n\t+: \"other\"\n",
        ),
        (
            "messaging.knative.dev/v1",
            "Subscription",
            subscription.clone(),
            "/spec/channel/name",
            json!("d"),
            "Immutable fields changed (-old +new): spec\n{v1.SubscriptionSpec}.Channel.Name:\n\t-: \"c\"\n\t+: \"d\"\n",
        ),
        (
            "messaging.knative.dev/v1",
            "Channel",
            json!({}),
            "/spec/channelTemplate/kind",
            json!("K"),
            "Immutable fields changed (-old +new): spec\n{v1.ChannelSpec}.ChannelTemplate.Kind:\n\t-: \"InMemoryChannel\"\n\t+: \"K\"\n",
        ),
    ];
    for (api_version, kind, spec, pointer, to, want) in rows {
        assert_eq!(
            changed(api_version, kind, &spec, pointer, &to),
            Err(want.to_owned()),
            "{kind}"
        );
    }
    changed(
        "eventing.knative.dev/v1",
        "Broker",
        &json!({}),
        "/spec/delivery",
        &json!({"retry": 1}),
    )
    .unwrap();
    changed(
        "eventing.knative.dev/v1",
        "Trigger",
        &trigger,
        "/spec/filter",
        &json!({"attributes": {"type": "a"}}),
    )
    .unwrap();
    changed(
        "messaging.knative.dev/v1",
        "Subscription",
        &subscription,
        "/spec/reply",
        &json!({"uri": "http://r"}),
    )
    .unwrap();
    let old = made("eventing.knative.dev/v1", "Broker", &json!({}));
    let mut new = old.clone();
    new["metadata"]["annotations"][crate::keys::BROKER_CLASS] = json!("Other");
    let review = update("eventing.knative.dev/v1", "Broker", &old);
    let refused = admit(&review, &new, &EventingConfigs::default()).unwrap_err();
    assert_eq!(
        refused,
        format!(
            "{REFUSED}Immutable annotations changed (-old +new): annotations\n{{string}}:\n\t-: \"MTChannelBasedBroker\"\n\t+: \"Other\"\n"
        )
    );
}

#[test]
fn whoever_changes_a_spec_signs() {
    let old = made(
        "eventing.knative.dev/v1",
        "Trigger",
        &json!({"broker": "default", "subscriber": {"uri": "http://x.y/z"}}),
    );
    let review = update("eventing.knative.dev/v1", "Trigger", &old);
    let mut labelled = old.clone();
    labelled["metadata"]["labels"]["a"] = json!("b");
    let got = admit(&review, &labelled, &EventingConfigs::default()).unwrap();
    assert_eq!(
        got["metadata"]["annotations"]["eventing.knative.dev/lastModifier"],
        "admin"
    );
    let mut new = old.clone();
    new["spec"]["subscriber"]["uri"] = json!("http://other");
    let got = admit(&review, &new, &EventingConfigs::default()).unwrap();
    let annotations = &got["metadata"]["annotations"];
    assert_eq!(annotations["eventing.knative.dev/lastModifier"], "ben");
    assert_eq!(annotations["eventing.knative.dev/creator"], "admin");
}

#[test]
fn applying_the_same_again_changes_nothing() {
    for (api_version, kind, spec) in [
        ("eventing.knative.dev/v1", "Broker", json!({})),
        (
            "eventing.knative.dev/v1beta3",
            "EventType",
            json!({"attributes": [{"name": "type", "required": true, "value": "t"}]}),
        ),
        (
            "sinks.knative.dev/v1alpha1",
            "JobSink",
            json!({"job": {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}}),
        ),
        (
            "sources.knative.dev/v1alpha1",
            "IntegrationSource",
            json!({"sink": {"uri": "http://x.y"}, "timer": {"message": "x"}}),
        ),
        ("messaging.knative.dev/v1", "Channel", json!({})),
    ] {
        let old = made(api_version, kind, &spec);
        let review = update(api_version, kind, &old);
        assert_eq!(
            admit(&review, &old, &EventingConfigs::default()),
            Ok(old.clone()),
            "{kind}"
        );
    }
}

#[test]
fn only_the_controller_changes_the_subscribers_of_a_channel() {
    for (api_version, kind) in [
        ("messaging.knative.dev/v1", "InMemoryChannel"),
        ("messaging.kinglet.dev/v1alpha1", "DurableChannel"),
    ] {
        let old = made(api_version, kind, &json!({}));
        let mut new = old.clone();
        new["spec"]["subscribers"] = json!([{"uid": "a", "subscriberUri": "http://x"}]);
        let review = update(api_version, kind, &old);
        let refused = admit(&review, &new, &EventingConfigs::default()).unwrap_err();
        assert!(
            refused.ends_with("denied the request: validation failed: Channel.Spec.Subscribers changed by user ben which was not the system:serviceaccount:knative-eventing:eventing-controller service account: spec.subscribers"),
            "{refused}"
        );
        let controller = Review {
            user: CONTROLLER,
            ..review
        };
        admit(&controller, &new, &EventingConfigs::default()).unwrap();
        let ours = Review {
            user_is_controller: true,
            ..review
        };
        admit(&ours, &new, &EventingConfigs::default()).unwrap();
    }
    let review = request("messaging.knative.dev/v1", "InMemoryChannel");
    let mut bad = object(&json!({}));
    bad["metadata"]["annotations"] = json!({"eventing.knative.dev/scope": "galaxy"});
    let refused = admit(&review, &bad, &EventingConfigs::default()).unwrap_err();
    assert_eq!(
        refused,
        "admission webhook \"validation.inmemorychannel.eventing.knative.dev\" denied the request: validation failed: invalid value: galaxy: metadata.annotations.[eventing.knative.dev/scope]\nexpected either 'cluster' or 'namespace'"
    );
}
