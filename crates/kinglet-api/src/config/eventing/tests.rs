//! Rows of Eventing's ConfigMaps.

use super::*;
use crate::config::Flag;
use crate::duck::DeliverySpec;

fn data(pairs: &[(&str, &str)]) -> Data {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// What real Knative let in, value by value: everything, since its webhook looks at four other maps only. What does not parse
/// is reported, and the last good value stays.
#[test]
fn every_recorded_value_is_let_in() {
    const BROKER: &str = "clusterDefault:\n  brokerClass: MTChannelBasedBroker\n  delivery:\n";
    let words = |key: &'static str, values: &[&str]| -> Vec<(&'static str, &'static str, String)> {
        values
            .iter()
            .map(|value| ("config-features", key, (*value).to_owned()))
            .collect()
    };
    let mut rows = vec![
        (
            "config-br-defaults",
            "default-br-config",
            "clusterDefault:\n  brokerClass: X\n".to_owned(),
        ),
        ("config-br-defaults", "default-br-config", "x: [".to_owned()),
        (
            "config-br-defaults",
            "default-br-config",
            format!("{BROKER}    retry: -1\n"),
        ),
        (
            "config-br-defaults",
            "default-br-config",
            format!("{BROKER}    backoffDelay: x\n"),
        ),
        ("default-ch-webhook", "default-ch-config", "{}".to_owned()),
        ("config-ping-defaults", "data-max-size", "-1".to_owned()),
    ];
    rows.extend(words(
        "kreference-group",
        &["enabled", "Enabled", "maybe", "permissive", "strict", ""],
    ));
    rows.extend(words(
        "delivery-retryafter",
        &["enabled", "Enabled", "disabled", "permissive"],
    ));
    rows.extend(words(
        "delivery-timeout",
        &["enabled", "Enabled", "disabled", "permissive"],
    ));
    rows.extend(words(
        "kreference-mapping",
        &["Enabled", "maybe", "permissive", "strict", ""],
    ));
    rows.extend(words("new-trigger-filters", &["enabled", "maybe", ""]));
    rows.extend(words("transport-encryption", &["Enabled", "strict"]));
    rows.extend(words(
        "eventtype-auto-create",
        &["enabled", "permissive", "strict"],
    ));
    rows.extend(words(
        "authentication-oidc",
        &["enabled", "disabled", "maybe"],
    ));
    rows.extend(words(
        "cross-namespace-event-links",
        &["enabled", "Enabled", "maybe", "permissive"],
    ));
    rows.extend(words(
        "new-apiserversource-filters",
        &["Enabled", "disabled", "maybe", "permissive", ""],
    ));
    rows.extend(words(
        "default-authorization-mode",
        &["disabled", "maybe", "permissive", "strict"],
    ));
    rows.extend(words(
        "request-reply",
        &["enabled", "Enabled", "disabled", "maybe", "permissive", ""],
    ));
    rows.extend(words(
        "OIDC-discovery-base-url",
        &["enabled", "maybe", "permissive"],
    ));
    assert_eq!(rows.len(), 58);
    for (map, key, value) in rows {
        let data = data(&[(key, &value)]);
        assert_eq!(check(map, &data), Ok(()), "{map}/{key}={value}");
        let (configs, problems) = EventingConfigs::from_maps(|name| (name == map).then_some(&data));
        if value == "x: [" {
            assert_eq!(problems[0].map, map);
            assert_eq!(configs, EventingConfigs::default());
        } else {
            assert_eq!(problems, [], "{map}/{key}={value}");
        }
    }
}

#[test]
fn what_the_webhook_looks_at_is_refused_when_it_does_not_parse() {
    for (map, key, value) in [
        (
            "config-sugar",
            "namespace-selector",
            "matchExpressions: [{key: a, operator: Like}]",
        ),
        ("config-sugar", "trigger-selector", "x: ["),
        ("config-logging", "loglevel.controller", "loud"),
        ("config-leader-election", "lease-duration", "x"),
        ("config-observability", "metrics-protocol", "x"),
        (
            "config-observability",
            "sink-event-error-reporting.enable",
            "maybe",
        ),
    ] {
        assert!(
            check(map, &data(&[(key, value)])).is_err(),
            "{map}/{key}={value}"
        );
    }
}

#[test]
fn features_are_words_in_any_case() {
    let features = |key: &str, value: &str| Features::parse(&data(&[(key, value)]));
    assert_eq!(
        features("kreference-group", " ENABLED ").kreference_group,
        Flag::Enabled
    );
    assert_eq!(
        features("delivery-timeout", "maybe").delivery_timeout,
        Flag::Disabled
    );
    assert_eq!(Features::default().delivery_timeout, Flag::Enabled);
    assert_eq!(
        features("transport-encryption", "Strict").transport_encryption,
        TransportEncryption::Strict
    );
    assert_eq!(
        features("default-authorization-mode", "allow-all").default_authorization_mode,
        AuthorizationMode::AllowAll
    );
    assert_eq!(
        features("default-authorization-mode", "alow-all").default_authorization_mode,
        AuthorizationMode::DenyAll
    );
    assert_eq!(
        features("apiserversources-nodeselector-a/b", "c").apiserversources_node_selector["a/b"],
        "c"
    );
    assert_eq!(features("_example", "x"), Features::default());
}

/// The order of spec/eventing.md 3.3.
#[test]
fn a_brokers_configuration_is_looked_up_by_namespace_then_cluster() {
    let text = "
clusterDefault: {brokerClass: C, apiVersion: v1, kind: ConfigMap, name: cluster, namespace: sys, delivery: {retry: 1},
  brokerClasses: {K: {apiVersion: v1, kind: ConfigMap, name: cluster-k}}, disallowDifferentNamespaceConfig: true}
namespaceDefaults:
  a: {brokerClass: A, apiVersion: v1, kind: ConfigMap, name: a, brokerClasses: {B: {apiVersion: v1, kind: ConfigMap, name: a-b}}}
  bare: {brokerClass: A, disallowDifferentNamespaceConfig: false}
";
    let defaults = BrokerDefaults::parse(&data(&[("default-br-config", text)])).unwrap();
    for (namespace, class, want) in [
        ("a", "", "a"),
        ("a", "A", "a"),
        ("a", "B", "a-b"),
        ("a", "K", "cluster-k"),
        ("a", "other", "cluster"),
        ("bare", "A", "cluster"),
        ("bare", "", "cluster"),
        ("elsewhere", "", "cluster"),
        ("elsewhere", "K", "cluster-k"),
    ] {
        let config = defaults.config(namespace, class).unwrap();
        assert_eq!(config.reference.name, want, "{namespace} {class}");
    }
    assert_eq!(
        (defaults.class("a"), defaults.class("elsewhere")),
        ("A", "C")
    );
    assert!(defaults.keeps_to_namespace("bare"));
    assert_eq!(
        defaults.config("x", "").unwrap().delivery,
        Some(DeliverySpec {
            retry: Some(1),
            ..DeliverySpec::default()
        })
    );
    let nothing =
        BrokerDefaults::parse(&data(&[("default-br-config", "namespaceDefaults: {}")])).unwrap();
    assert_eq!((nothing.config("x", ""), nothing.class("x")), (None, ""));
    assert!(BrokerDefaults::parse(&Data::new()).is_err());
}

#[test]
fn channels_are_templates() {
    let text = "{clusterDefault: {apiVersion: v1, kind: C}, namespaceDefaults: {a: {apiVersion: v1, kind: A, spec: {x: 1}}}}";
    let defaults = ChannelDefaults::parse(&data(&[("default-ch-config", text)])).unwrap();
    assert_eq!(defaults.of("a").unwrap().kind, "A");
    assert_eq!(defaults.of("b").unwrap().kind, "C");
    assert_eq!(defaults.of_cluster().unwrap().kind, "C");
    for key in ["channel-template-spec", "channelTemplateSpec"] {
        let template =
            broker_channel_template(&data(&[(key, "apiVersion: a/v1\nkind: K\nspec: {n: 1}\n")]));
        assert_eq!(template.unwrap().kind, "K");
    }
    for bad in ["", "kind: K", "apiVersion: v1", "x: [", "[]"] {
        assert!(
            broker_channel_template(&data(&[("channel-template-spec", bad)])).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn sugar_tells_nothing_from_everything() {
    let sugar = Sugar::parse(&data(&[
        ("namespace-selector", "{}"),
        ("trigger-selector", ""),
    ]))
    .unwrap();
    assert!(sugar.namespace_selector.is_some());
    assert!(sugar.trigger_selector.is_none());
}

#[test]
fn a_bad_mapping_is_a_problem() {
    assert!(KReferenceMapping::parse(&data(&[("Pod.v1", "{{ .Name")])).is_err());
    assert!(EventDispatcher::parse(&data(&[("MaxIdleConnections", "x")])).is_err());
    assert_eq!(
        PingDefaults::parse(&data(&[("dataMaxSize", "10")])),
        Ok(PingDefaults { data_max_size: 10 })
    );
}
