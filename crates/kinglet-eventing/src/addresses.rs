//! The Services under which the data plane is reached, and the addresses that statuses have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kinglet_api::conditions::ConditionState;
use kinglet_api::config::eventing::{Features, SYSTEM_NAMESPACE, TransportEncryption};
use kinglet_api::destination::Resolved;
use kinglet_api::duck::{AddressStatus, Addressable, DeliveryStatus};
use kinglet_api::{keys, names};
use kinglet_reconcile::{Context, Key, Object, owner_reference};

/// Takes events for Brokers.
pub(crate) const INGRESS: &str = "broker-ingress";
/// Filters events for Triggers.
pub(crate) const FILTER: &str = "broker-filter";
/// Takes and delivers the events of InMemoryChannels.
pub(crate) const IN_MEMORY_DISPATCHER: &str = "imc-dispatcher";
/// Takes and delivers the events of DurableChannels.
pub(crate) const DURABLE_DISPATCHER: &str = "durable-dispatcher";
/// Label of an EndpointSlice: its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const PORT: i32 = 80;

/// Whether a Service of the data plane has an endpoint that is ready; one that does not say counts as ready.
pub(crate) fn has_endpoint(context: &Context, service: &str) -> bool {
    let slices = context
        .cache::<EndpointSlice>()
        .select(SYSTEM_NAMESPACE, [(SERVICE_NAME, service)]);
    slices.iter().flat_map(|slice| &slice.endpoints).any(|one| {
        let ready = one.conditions.as_ref().and_then(|known| known.ready);
        !one.addresses.is_empty() && ready.unwrap_or(true)
    })
}

/// Whether an EndpointSlice is of one of these Services of the data plane.
pub(crate) fn is_of(slice: &kinglet_reconcile::Head, services: &[&str]) -> bool {
    let name = slice.label(SERVICE_NAME);
    &*slice.key.namespace == SYSTEM_NAMESPACE && name.is_some_and(|name| services.contains(&name))
}

/// The one address of an object.
pub(crate) fn one(url: String) -> AddressStatus {
    AddressStatus {
        address: Some(Addressable {
            name: Some("http".to_owned()),
            url: Some(url),
            ..Addressable::default()
        }),
        addresses: Vec::new(),
    }
}

/// Host of a Service of the data plane.
pub(crate) fn host(service: &str, domain: &str) -> String {
    names::service_host(service, SYSTEM_NAMESPACE, domain)
}

/// Whether objects have an address under these features.
pub(crate) fn addressable(features: &Features) -> ConditionState {
    if features.transport_encryption == TransportEncryption::Strict {
        return ConditionState::false_because(
            "TransportEncryptionNotSupported",
            "transport-encryption is Strict, but addresses are served over http only; set it to Disabled or Permissive",
        );
    }
    ConditionState::True
}

/// Whether an object has an identity under these features.
pub(crate) fn identity(features: &Features) -> ConditionState {
    if features.is_oidc() {
        return ConditionState::false_because(
            "AuthenticationNotSupported",
            "authentication-oidc is on, but identities are not made yet; set it to Disabled",
        );
    }
    kinglet_api::conditions::eventing::oidc_disabled()
}

/// A dead letter sink in a status.
pub(crate) fn delivery_status(resolved: Option<&Resolved>) -> DeliveryStatus {
    let Some(resolved) = resolved.cloned() else {
        return DeliveryStatus::default();
    };
    DeliveryStatus {
        dead_letter_sink_uri: Some(resolved.url),
        dead_letter_sink_ca_certs: resolved.ca_certs,
        dead_letter_sink_audience: resolved.audience,
    }
}

/// The other way round.
pub(crate) fn dead_letter_sink(status: &DeliveryStatus) -> Option<Resolved> {
    Some(Resolved {
        url: status.dead_letter_sink_uri.clone()?,
        ca_certs: status.dead_letter_sink_ca_certs.clone(),
        audience: status.dead_letter_sink_audience.clone(),
    })
}

/// The Service of a channel: another name for the dispatcher's, which knows the channel by the host it is asked for.
pub(crate) fn channel_service<K: Object>(
    channel: &K,
    key: &Key,
    dispatcher: &str,
    role: &str,
    domain: &str,
) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(names::channel_service(&key.name)),
            namespace: Some(key.namespace.to_string()),
            labels: Some(BTreeMap::from([(
                keys::MESSAGING_ROLE.to_owned(),
                role.to_owned(),
            )])),
            owner_references: Some(vec![owner_reference(channel)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some(host(dispatcher, domain)),
            session_affinity: Some("None".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(PORT)),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
