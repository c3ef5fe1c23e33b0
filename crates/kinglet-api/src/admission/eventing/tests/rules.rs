//! Rules and defaults that nothing recorded shows.

use std::cell::RefCell;

use super::*;

const EVENTING: &str = "eventing.knative.dev/v1";
const ALPHA: &str = "eventing.knative.dev/v1alpha1";
const MESSAGING: &str = "messaging.knative.dev/v1";
const SOURCES: &str = "sources.knative.dev/v1";

fn trigger(extra: &Value) -> Value {
    let mut spec = json!({"broker": "default", "subscriber": {"uri": "http://x.y/z"}});
    merge(&mut spec, extra);
    spec
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn ping(extra: &Value) -> Value {
    let mut spec = json!({"sink": {"uri": "http://x.y/z"}});
    merge(&mut spec, extra);
    spec
}

#[test]
fn refusals_name_the_field() {
    let broker = json!({"apiVersion": EVENTING, "kind": "Broker", "name": "b"});
    let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let rows = [
        (
            EVENTING,
            "Trigger",
            trigger(&json!({"brokerRef": broker})),
            "expected exactly one, got both: spec.broker, spec.brokerRef",
        ),
        (
            EVENTING,
            "Trigger",
            trigger(&json!({"subscriber": {"uri": "http://x", "CACerts": pem}})),
            "invalid value: CA Cert type is not a certificate: spec.subscriber.caCert",
        ),
        (
            EVENTING,
            "Trigger",
            trigger(
                &json!({"subscriber": {"ref": {"apiVersion": "v1", "kind": "Service", "name": "s", "group": "g"}}}),
            ),
            "must not set the field(s): spec.subscriber.ref.group",
        ),
        (
            EVENTING,
            "Trigger",
            trigger(&json!({"subscriber": {"uri": "x.y/z"}})),
            "invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent: spec.subscriber.uri",
        ),
        (
            EVENTING,
            "Trigger",
            trigger(
                &json!({"filters": [{"exact": {"type": "a"}}, {"not": {"any": [{"prefix": {"A": "b"}}]}}]}),
            ),
            "invalid key name \"A\": spec.filters[1].not.any[0].prefix[A]\nAttribute name must start with a letter and can only contain lowercase alphanumeric",
        ),
        (
            EVENTING,
            "Trigger",
            trigger(
                &json!({"delivery": {"retryAfterMax": "PT1S", "retry": -1, "deadLetterSink": {}}}),
            ),
            "expected at least one, got none: spec.delivery.deadLetterSink.ref, spec.delivery.deadLetterSink.uri\ninvalid value: -1: spec.delivery.retry\nmust not set the field(s): spec.delivery.retryAfterMax",
        ),
        (
            ALPHA,
            "RequestReply",
            json!({"brokerRef": {"apiVersion": EVENTING, "kind": "Channel", "name": "b", "namespace": "o"}, "replyAttribute": "id", "timeout": "PT0S"}),
            "invalid value: Channel: spec.brokerRef.kind\nexpected Broker\ninvalid value: PT0S: spec.timeout\ninvalid value: id: spec.replyAttribute\nmust not set the field(s): spec.brokerRef.namespace",
        ),
        (
            ALPHA,
            "EventTransform",
            json!({"jsonata": {}, "sink": {"uri": "http://x.y", "CACerts": "junk"}, "reply": {}}),
            "CACerts for the sink is not supported for JSONata transformations: spec.sink.CACerts\nexpected exactly one, got neither: spec.reply.discard, spec.reply.jsonata\ninvalid value: CA Cert provided is invalid: spec.sink.caCert",
        ),
        (
            MESSAGING,
            "InMemoryChannel",
            json!({"subscribers": [{"uid": "a"}]}),
            "missing field(s): spec.subscribable.subscriber[0].replyURI, spec.subscribable.subscriber[0].subscriberURI\nexpected at least one of, got none",
        ),
        (
            "messaging.kinglet.dev/v1alpha1",
            "DurableChannel",
            json!({"retention": {"age": "1h", "size": "0", "whenFull": "Drop"}}),
            "invalid value: 0: spec.retention.size\nexpected a quantity above 0\ninvalid value: 1h: spec.retention.age\nexpected an ISO 8601 duration above 0\ninvalid value: Drop: spec.retention.whenFull",
        ),
        (
            SOURCES,
            "PingSource",
            ping(&json!({"data": "a", "dataBase64": "b"})),
            "expected exactly one, got both: spec.data, spec.dataBase64",
        ),
        (
            SOURCES,
            "PingSource",
            ping(&json!({"data": "[1]", "contentType": "application/json"})),
            "invalid value: invalid type: sequence, expected a map at line 1 column 0: spec.data",
        ),
        (
            SOURCES,
            "PingSource",
            ping(&json!({"dataBase64": "!"})),
            "invalid value: Invalid symbol 33, offset 0.: spec.dataBase64",
        ),
        (
            SOURCES,
            "SinkBinding",
            ping(&json!({"subject": {"apiVersion": "a b", "kind": "1", "name": "D"}})),
            "a valid C identifier",
        ),
        (
            SOURCES,
            "ApiServerSource",
            ping(
                &json!({"resources": [{"apiVersion": "v1", "kind": "Pod", "selector": {"matchLabels": {"a": "b c"}}}]}),
            ),
            "spec.resources[0].selector",
        ),
        (
            "sources.knative.dev/v1alpha1",
            "IntegrationSource",
            ping(&json!({"timer": {"period": 0, "message": "x"}})),
            "expected 1 <= 0 <= 9223372036854775807: spec.timer.period",
        ),
        (
            "sources.knative.dev/v1alpha1",
            "IntegrationSource",
            ping(&json!({"timer": {}, "aws": {"sqs": {}}})),
            "only one source type can be set: spec.spec",
        ),
        (
            "sources.knative.dev/v1alpha1",
            "IntegrationSource",
            ping(&json!({"aws": {"s3": {"arn": "a"}}})),
            "integrations with AWS are not supported by Kinglet",
        ),
        (
            "sinks.knative.dev/v1alpha1",
            "IntegrationSink",
            json!({"aws": {"sns": {"arn": "a"}}}),
            "use the sink type log",
        ),
        (
            "sinks.knative.dev/v1alpha1",
            "IntegrationSink",
            json!({}),
            "at least one sink type must be specified: spec.spec",
        ),
        (
            "sinks.knative.dev/v1alpha1",
            "IntegrationSink",
            json!({"log": {"level": "LOUD"}}),
            "invalid value: LOUD: spec.log.level",
        ),
        (
            "sinks.knative.dev/v1alpha1",
            "JobSink",
            json!({}),
            "expected exactly one, got neither: spec.job",
        ),
    ];
    for (api_version, kind, spec, want) in rows {
        let refused = refusal(api_version, kind, &spec, &EventingConfigs::default());
        assert!(
            refused.contains(want),
            "{kind} {spec}: {refused}\nwant {want}"
        );
    }
}

#[test]
fn what_is_no_expression_is_refused_with_the_reason() {
    let spec = trigger(&json!({"filters": [{"cesql": "type = "}]}));
    let refused = refusal(EVENTING, "Trigger", &spec, &EventingConfigs::default());
    assert!(
        refused.starts_with("invalid value: type = : spec.filters[0].cesql\n"),
        "{refused}"
    );
}

#[test]
fn filters_may_not_be_nested_for_ever() {
    let mut filter = json!({"exact": {"type": "a"}});
    for _ in 0..100 {
        filter = json!({"not": filter});
    }
    let refused = refusal(
        EVENTING,
        "Trigger",
        &trigger(&json!({"filters": [filter]})),
        &EventingConfigs::default(),
    );
    assert!(refused.contains("deep"), "{refused}");
}

#[test]
fn features_open_what_they_guard() {
    let delivery = trigger(&json!({"delivery": {"retryAfterMax": "PT1S"}}));
    stored(
        EVENTING,
        "Trigger",
        &delivery,
        &features(&[("delivery-retryafter", "Enabled")]),
    );
    let negative = trigger(&json!({"delivery": {"retryAfterMax": "-PT1S"}}));
    assert_eq!(
        refusal(
            EVENTING,
            "Trigger",
            &negative,
            &features(&[("delivery-retryafter", "Enabled")])
        ),
        "invalid value: -PT1S: spec.delivery.retryAfterMax"
    );
    let timeout = trigger(&json!({"delivery": {"timeout": "PT1S"}}));
    assert_eq!(
        refusal(
            EVENTING,
            "Trigger",
            &timeout,
            &features(&[("delivery-timeout", "Disabled")])
        ),
        "must not set the field(s): spec.delivery.timeout"
    );
    let group = trigger(&json!({"subscriber": {"ref": {"group": "g", "kind": "K", "name": "n"}}}));
    stored(
        EVENTING,
        "Trigger",
        &group,
        &features(&[("kreference-group", "enabled")]),
    );
    let watched = ping(
        &json!({"resources": [{"apiVersion": "v1", "kind": "Pod"}], "filters": [{"exact": {"A": "b"}}]}),
    );
    assert!(
        refusal(
            SOURCES,
            "ApiServerSource",
            &watched,
            &features(&[("new-apiserversource-filters", "enabled")])
        )
        .starts_with("invalid key name \"A\": spec.filters[0].exact[A]")
    );
}

#[test]
fn policies_are_judged_once_they_are_in_force() {
    let on = features(&[("authentication-oidc", "enabled")]);
    for (spec, want) in [
        (
            json!({"from": [{"sub": "a*b"}]}),
            "invalid value: a*b: spec.from[0].sub\n'*' is only allowed as suffix",
        ),
        (
            json!({"from": [{"sub": "a", "ref": {"apiVersion": "v1", "kind": "K", "name": "n"}}]}),
            "expected exactly one, got both: spec.from[0].ref, spec.from[0].sub",
        ),
        (
            json!({"from": [{}], "to": [{}]}),
            "expected exactly one, got neither: spec.from[0].ref, spec.from[0].sub, spec.to[0].ref, spec.to[0].selector",
        ),
        (
            json!({"to": [{"ref": {"name": "n"}}]}),
            "missing field(s): spec.to[0].ref.apiVersion, spec.to[0].ref.kind",
        ),
    ] {
        assert_eq!(refusal(ALPHA, "EventPolicy", &spec, &on), want, "{spec}");
    }
    let good =
        json!({"from": [{"ref": {"apiVersion": "v1", "kind": "K", "name": "n"}}, {"sub": "a*"}]});
    let got = stored(ALPHA, "EventPolicy", &good, &on);
    assert_eq!(got["from"][0]["ref"]["namespace"], "corpus");
}

#[test]
fn links_to_other_namespaces_are_asked_about() {
    let on = features(&[("cross-namespace-event-links", "enabled")]);
    let broker =
        json!({"apiVersion": EVENTING, "kind": "Broker", "name": "b", "namespace": "other"});
    let spec = json!({"brokerRef": broker, "subscriber": {"uri": "http://x.y"}});
    let asked = RefCell::new(Vec::new());
    let no = |link: &Link<'_>| {
        asked.borrow_mut().push(format!("{link:?}"));
        false
    };
    let ask = Ask {
        may_link: &no,
        try_job: &|_| Ok(()),
    };
    let review = request(EVENTING, "Trigger");
    let refused = admit_asking(&review, &object(&spec), &on, ask).unwrap_err();
    assert_eq!(
        refused,
        format!(
            "{REFUSED}user admin is not authorized to get target resource in namespace: other: spec.BrokerNamespace"
        )
    );
    assert_eq!(
        asked.take(),
        [
            "Link { group: \"eventing.knative.dev\", resource: \"brokers\", namespace: \"other\", name: \"b\" }"
        ]
    );
    let got = admit(&review, &object(&spec), &on).unwrap();
    assert_eq!(got["metadata"]["labels"][crate::keys::BROKER], "b");
    let channel = json!({"apiVersion": MESSAGING, "kind": "InMemoryChannel", "name": "c", "namespace": "other"});
    let spec = json!({"channel": channel, "subscriber": {"uri": "http://x.y"}});
    let refused = admit_asking(
        &request(MESSAGING, "Subscription"),
        &object(&spec),
        &on,
        ask,
    );
    assert!(
        refused
            .unwrap_err()
            .ends_with("spec.InMemoryChannelNamespace")
    );
    let own = json!({"channel": {"apiVersion": MESSAGING, "kind": "Channel", "name": "c", "namespace": "corpus"}, "subscriber": {"uri": "http://x.y"}});
    admit_asking(&request(MESSAGING, "Subscription"), &object(&own), &on, ask).unwrap();
    assert!(
        refusal(MESSAGING, "Subscription", &own, &EventingConfigs::default())
            .starts_with("must not set the field(s): spec.channel.namespace\n")
    );
}

#[test]
fn a_job_is_tried_with_a_name_that_is_made() {
    let spec = json!({"job": {"spec": {"template": {"spec": {"containers": [
        {"name": "a", "image": "i"}, {"name": "b", "image": "i", "env": [{"name": "K_EXECUTION_MODE", "value": "mine"}]},
    ]}}}}});
    let got = stored(
        "sinks.knative.dev/v1alpha1",
        "JobSink",
        &spec,
        &EventingConfigs::default(),
    );
    let containers = &got["job"]["spec"]["template"]["spec"]["containers"];
    assert_eq!(
        containers[0]["env"],
        json!([{"name": "K_EXECUTION_MODE", "value": "batch"}])
    );
    assert_eq!(
        containers[1]["env"],
        json!([{"name": "K_EXECUTION_MODE", "value": "mine"}])
    );
    assert_eq!(
        (&got["job"]["status"], &got["job"]["metadata"]),
        (&json!({}), &json!({}))
    );
    let no = |job: &Value| {
        assert_eq!(
            job["metadata"],
            json!({"generateName": "x-", "namespace": "corpus"})
        );
        assert_eq!(
            (&job["kind"], &job["status"]),
            (&json!("Job"), &Value::Null)
        );
        Err("Job is bad".to_owned())
    };
    let ask = Ask {
        may_link: &|_| true,
        try_job: &no,
    };
    let review = request("sinks.knative.dev/v1alpha1", "JobSink");
    let refused = admit_asking(&review, &object(&spec), &EventingConfigs::default(), ask);
    assert_eq!(
        refused.unwrap_err(),
        format!("{REFUSED}Job is bad: spec.job")
    );
}

#[test]
fn defaults_follow_the_config_maps() {
    let brokers = "clusterDefault: {brokerClass: C, apiVersion: v1, kind: ConfigMap, name: c, delivery: {retry: 1, timeout: PT1S, format: json}, disallowDifferentNamespaceConfig: true}";
    let with = configs("config-br-defaults", &[("default-br-config", brokers)]);
    let review = request(EVENTING, "Broker");
    let got = admit(&review, &object(&json!({})), &with).unwrap();
    assert_eq!(
        got["spec"],
        json!({"config": {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "namespace": "corpus"}, "delivery": {"retry": 1}})
    );
    assert_eq!(
        got["metadata"]["annotations"][crate::keys::BROKER_CLASS],
        "C"
    );
    let elsewhere =
        json!({"config": {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "namespace": "o"}});
    assert_eq!(
        refusal(EVENTING, "Broker", &elsewhere, &with),
        "mismatched namespaces: spec.config.namespace\nparent namespace: \"corpus\" does not match ref: \"o\""
    );
    let channels = "{clusterDefault: {apiVersion: v1, kind: A}, namespaceDefaults: {corpus: {apiVersion: v1, kind: B}}}";
    let with = configs("default-ch-webhook", &[("default-ch-config", channels)]);
    assert_eq!(
        stored(MESSAGING, "Channel", &json!({}), &with)["channelTemplate"]["kind"],
        "B"
    );
    let steps = json!({"steps": [{"uri": "http://x.y"}]});
    assert_eq!(
        stored("flows.knative.dev/v1", "Sequence", &steps, &with)["channelTemplate"]["kind"],
        "A"
    );
    let nothing = configs("default-ch-webhook", &[("default-ch-config", "{}")]);
    assert_eq!(
        refusal(MESSAGING, "Channel", &json!({}), &nothing),
        "missing field(s): spec.channelTemplate"
    );
    let small = configs("config-ping-defaults", &[("data-max-size", "2")]);
    assert_eq!(
        refusal(
            SOURCES,
            "PingSource",
            &ping(&json!({"data": "abc"})),
            &small
        ),
        "invalid value: the data length of 3 bytes exceeds limit set at 2.: spec.data"
    );
}

#[test]
fn containers_of_a_source_are_named_after_it() {
    let spec = ping(
        &json!({"template": {"metadata": {"creationTimestamp": null}, "spec": {"containers": [{"image": "a"}, {"image": "b", "name": "mine"}]}}}),
    );
    let got = stored(
        SOURCES,
        "ContainerSource",
        &spec,
        &EventingConfigs::default(),
    );
    let containers = &got["template"]["spec"]["containers"];
    assert_eq!(
        (&containers[0]["name"], &containers[1]["name"]),
        (&json!("x-0"), &json!("mine"))
    );
}

/// The old version is judged as the new one; a newer EventType as what it is stored as.
#[test]
fn versions_are_judged_alike() {
    let got = stored(
        "sources.knative.dev/v1beta2",
        "PingSource",
        &ping(&json!({})),
        &EventingConfigs::default(),
    );
    assert_eq!(got["schedule"], "* * * * *");
    let refused = refusal(
        "eventing.knative.dev/v1beta2",
        "EventType",
        &json!({"source": "/a"}),
        &EventingConfigs::default(),
    );
    assert_eq!(refused, "missing field(s): spec.type");
    let unknown = json!({"attributes": [], "bogus": 1});
    let refused = refusal(
        "eventing.knative.dev/v1beta3",
        "EventType",
        &unknown,
        &EventingConfigs::default(),
    );
    assert_eq!(
        refused,
        format!("{UNREADABLE}cannot decode incoming new object: json: unknown field \"bogus\"")
    );
}

#[test]
fn what_is_not_ours_passes_untouched() {
    let review = request("apps/v1", "Deployment");
    let deployment = json!({"spec": {"anything": 1}});
    assert_eq!(
        admit(&review, &deployment, &EventingConfigs::default()),
        Ok(deployment.clone())
    );
    let status = Review {
        subresource: Some("status"),
        ..request(EVENTING, "Trigger")
    };
    assert_eq!(
        admit(&status, &deployment, &EventingConfigs::default()),
        Ok(deployment)
    );
    assert!(judges(EVENTING.split('/').next().unwrap(), "Trigger"));
    assert!(!judges("apps", "Deployment"));
}

#[test]
fn config_maps_are_judged_where_knative_judges_them() {
    let review = Review {
        namespace: crate::config::eventing::SYSTEM_NAMESPACE,
        name: "config-sugar",
        ..request("v1", "ConfigMap")
    };
    let bad =
        json!({"data": {"namespace-selector": "matchExpressions: [{key: a, operator: Like}]"}});
    let refused = admit(&review, &bad, &EventingConfigs::default()).unwrap_err();
    assert_eq!(
        refused,
        "admission webhook \"config.webhook.eventing.knative.dev\" denied the request: validation failed: namespace-selector: \"Like\" is not a valid label selector operator"
    );
    let elsewhere = Review {
        namespace: "default",
        ..review
    };
    assert_eq!(
        admit(&elsewhere, &bad, &EventingConfigs::default()),
        Ok(bad)
    );
}
