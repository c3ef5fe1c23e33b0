//! Tokens and policies hold on the short ways as over HTTP.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::StatusCode;

use super::world::*;
use crate::feed::{
    Access, BrokerRoute, DefaultAccess, Destination, Key, Policy, ServiceAccount, TriggerRoute,
    Update,
};
use crate::{FILTER_AUDIENCE, Tokens, Verify, VerifyError};

/// Tokens that say `ACCOUNT|AUDIENCE`.
struct Issuer;

impl Tokens for Issuer {
    fn token<'a>(
        &'a self,
        identity: &'a ServiceAccount,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Arc<str>, String>> {
        let token = format!(
            "system:serviceaccount:{}:{}|{audience}",
            identity.namespace, identity.name
        );
        Box::pin(std::future::ready(Ok(token.into())))
    }
}

impl Verify for Issuer {
    fn verify<'a>(
        &'a self,
        token: &'a str,
        audience: &'a str,
    ) -> BoxFuture<'a, Result<Arc<str>, VerifyError>> {
        let verdict = match token.split_once('|') {
            Some((subject, meant)) if meant == audience => Ok(subject.into()),
            Some((_, "down")) => Err(VerifyError::Unavailable("no keys".to_owned())),
            _ => Err(VerifyError::Refused(
                "it is meant for somebody else".to_owned(),
            )),
        };
        Box::pin(std::future::ready(verdict))
    }
}

const BROKER: &str = "eventing.knative.dev/broker/ns/default";

fn trigger_route() -> TriggerRoute {
    TriggerRoute {
        uid: "t-uid".into(),
        broker: Key::new("ns", "default"),
        filter: Arc::new(kinglet_events::Filter::compile(None, &[], None).0),
        subscriber: Some(Destination {
            audience: Some("sink".into()),
            ..Destination::plain("http://sink/")
        }),
        delivery: Default::default(),
        reply: None,
        identity: Some(Key::new("ns", "trigger-account")),
        authenticates: true,
        auto_event_types: false,
    }
}

async fn world(shortcuts: bool, policies: Vec<Policy>, identity: Option<ServiceAccount>) -> World {
    let setup = Setup {
        verify: Arc::new(Issuer),
        tokens: Arc::new(Issuer),
        ..Setup::new(shortcuts)
    };
    let world = setup.start(|got, _| match got.url.as_str() {
        "http://sink/" => replies("r", "bar"),
        _ => answer(200, &[], ""),
    });
    let with = |url: String, audience: &str| Destination {
        audience: Some(audience.into()),
        ..Destination::plain(url)
    };
    let mut one = subscriber("t", None);
    one.subscriber = Some(with(
        format!("{FILTER}/triggers/ns/t/t-uid"),
        FILTER_AUDIENCE,
    ));
    one.reply = Some(with(format!("{INGRESS}/ns/default"), BROKER));
    one.delivery.dead_letter = Some(Destination::plain("http://dead/"));
    one.identity = identity.clone();
    let id = channel_id("InMemoryChannel", "default-kne-trigger");
    let mut channel = channel_of(vec![one]);
    // Only the ingress may send to the channel itself.
    channel.access = Access {
        audience: Some("channel".into()),
        default: DefaultAccess::DenyAll,
        policies: vec![Policy {
            name: "ingress".into(),
            subjects: vec!["system:serviceaccount:knative-eventing:mt-broker-ingress-oidc".into()],
            filter: None,
        }],
    };
    world
        .apply(Update::Channel(id.clone(), Some(channel)))
        .await;
    let trigger = trigger_route();
    world
        .apply(Update::Trigger(Key::new("ns", "t"), Some(trigger)))
        .await;
    let broker = BrokerRoute {
        uid: "u".into(),
        channel: shortcuts.then_some(id),
        address: Some(with(
            "http://default-kne-trigger-kn-channel.ns.svc.cluster.local".to_owned(),
            "channel",
        )),
        access: Access {
            audience: Some(BROKER.into()),
            default: DefaultAccess::AllowAll,
            policies,
        },
        auto_event_types: false,
    };
    world
        .apply(Update::Broker(Key::new("ns", "default"), Some(broker)))
        .await;
    world
}

fn allow(subject: &str) -> Vec<Policy> {
    vec![Policy {
        name: "p".into(),
        subjects: vec![subject.into()],
        filter: None,
    }]
}

#[tokio::test(start_paused = true)]
async fn senders_need_a_token_and_a_policy() {
    for shortcuts in [true, false] {
        let account = || Some(Key::new("ns", "trigger-account"));
        for (token, policies, status) in [
            (None, vec![], 401),
            (
                Some("system:serviceaccount:ns:a|other".to_owned()),
                vec![],
                401,
            ),
            (Some("nonsense".to_owned()), vec![], 401),
            (Some("x|down".to_owned()), vec![], 500),
            (
                Some(format!("system:serviceaccount:ns:a|{BROKER}")),
                vec![],
                202,
            ),
            (
                Some(format!("system:serviceaccount:ns:a|{BROKER}")),
                allow("system:serviceaccount:ns:*"),
                202,
            ),
            (
                Some(format!("system:serviceaccount:ns:a|{BROKER}")),
                allow("system:serviceaccount:ns:b"),
                403,
            ),
        ] {
            let world = world(shortcuts, policies, account()).await;
            let mut request = event_request("/ns/default", "1", "foo");
            if let Some(token) = &token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let (got, _, why) = world.post(world.handle.ingress(false), request, "").await;
            assert_eq!(got, status, "{token:?}, shortcuts {shortcuts}: {why}");
            if status != 202 {
                assert!(!why.is_empty());
                assert!(world.sinks.at("").is_empty());
                continue;
            }
            let sink = &world.sinks.at("http://sink/")[0];
            let expected = "Bearer system:serviceaccount:ns:trigger-account|sink";
            assert_eq!(sink.header("authorization"), Some(expected));
        }
    }
}

/// The reply is sent as the Trigger, and the Broker's policies hold for it; a subscription that is somebody else is not
/// let through the filter.
#[tokio::test(start_paused = true)]
async fn stages_of_ours_are_checked_as_strangers_are() {
    for shortcuts in [true, false] {
        for (identity, policy, code, destination) in [
            (
                Some("trigger-account"),
                "system:serviceaccount:ns:*",
                None,
                "",
            ),
            (
                Some("trigger-account"),
                "system:serviceaccount:ns:a",
                Some("403"),
                "broker-ingress",
            ),
            // The filter's own refusals carry no reason into the dead letter, as in Knative.
            (
                Some("other"),
                "system:serviceaccount:ns:*",
                Some("none"),
                "",
            ),
            (None, "system:serviceaccount:ns:*", Some("none"), ""),
        ] {
            let account = identity.map(|name| Key::new("ns", name));
            let world = world(shortcuts, allow(policy), account).await;
            let token = format!("Bearer system:serviceaccount:ns:a|{BROKER}");
            let request = event_request("/ns/default", "1", "foo").header("authorization", token);
            let (got, _, why) = world.post(world.handle.ingress(false), request, "").await;
            assert_eq!(got, StatusCode::ACCEPTED, "{why}");
            let context = format!("{identity:?} {policy}, shortcuts {shortcuts}");
            let Some(code) = code else {
                // The reply comes round and is refused only when its passes are over.
                until("the reply", || world.sinks.at("http://sink/").len() > 1).await;
                continue;
            };
            let [letter] = &world.sinks.at("http://dead/")[..] else {
                panic!("{context}")
            };
            assert_eq!(
                letter.header("ce-knativeerrorcode").unwrap_or("none"),
                code,
                "{context}"
            );
            let named = letter.header("ce-knativeerrordest").unwrap_or_default();
            assert!(named.contains(destination), "{context}: {named}");
        }
    }
}

/// `…/reply` and `…/dls` of the filter send on with the Trigger's identity, and only for its Subscription.
#[tokio::test(start_paused = true)]
async fn the_filter_sends_replies_and_dead_letters_on() {
    let world = world(false, allow("*"), Some(Key::new("ns", "trigger-account"))).await;
    let mut route = trigger_route();
    route.reply = Some(Destination {
        audience: Some("reply".into()),
        ..Destination::plain("http://replies/")
    });
    route.delivery.dead_letter = Some(Destination::plain("http://letters/"));
    world
        .apply(Update::Trigger(Key::new("ns", "t"), Some(route)))
        .await;
    for (path, account, status, sink) in [
        (
            "/triggers/ns/t/t-uid/reply",
            "trigger-account",
            200,
            "http://replies/",
        ),
        (
            "/triggers/ns/t/t-uid/dls",
            "trigger-account",
            200,
            "http://letters/",
        ),
        ("/triggers/ns/t/t-uid/dls", "other", 403, "http://nobody/"),
    ] {
        let token = format!("Bearer system:serviceaccount:ns:{account}|{FILTER_AUDIENCE}");
        // Without a TTL: a reply has none of its own.
        let request = event_request(path, "1", "foo").header("authorization", token);
        let (got, _, why) = world.post(world.handle.filter(false), request, "{}").await;
        assert_eq!(got, status, "{path} {account}: {why}");
        assert_eq!(world.sinks.at(sink).len(), usize::from(status == 200));
    }
    let reply = &world.sinks.at("http://replies/")[0];
    let expected = "Bearer system:serviceaccount:ns:trigger-account|reply";
    assert_eq!(reply.header("authorization"), Some(expected));
}
