//! `config-features` of Eventing: what users may do, and how connections are made.

use std::collections::BTreeMap;

use crate::config::{Data, Flag};

/// Prefix of the keys that become node selectors of ApiServerSources.
const NODE_SELECTOR: &str = "apiserversources-nodeselector-";

/// Whether addresses are HTTP, both, or HTTPS only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransportEncryption {
    /// HTTP only.
    #[default]
    Disabled,
    /// Both; HTTPS comes first.
    Permissive,
    /// HTTPS only.
    Strict,
}

/// Who may send to what no EventPolicy applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AuthorizationMode {
    /// Everybody.
    AllowAll,
    /// Nobody.
    DenyAll,
    /// Those of the same namespace.
    #[default]
    AllowSameNamespace,
}

impl AuthorizationMode {
    /// As written in the ConfigMap and in conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowAll => "Allow-All",
            Self::DenyAll => "Deny-All",
            Self::AllowSameNamespace => "Allow-Same-Namespace",
        }
    }
}

/// `config-features`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// `group` in references.
    pub kreference_group: Flag,
    /// `delivery.retryAfterMax`.
    pub delivery_retry_after: Flag,
    /// `delivery.timeout`.
    pub delivery_timeout: Flag,
    /// URLs of references by templates.
    pub kreference_mapping: Flag,
    /// HTTP, both, or HTTPS only.
    pub transport_encryption: TransportEncryption,
    /// EventTypes made from traffic.
    pub eventtype_auto_create: Flag,
    /// Tokens, audiences and EventPolicies.
    pub authentication_oidc: Flag,
    /// Who may send to what no EventPolicy applies to.
    pub default_authorization_mode: AuthorizationMode,
    /// References to Brokers and channels of other namespaces.
    pub cross_namespace_event_links: Flag,
    /// `ApiServerSource.spec.filters`.
    pub new_apiserversource_filters: Flag,
    /// Where the issuer's discovery document is.
    pub oidc_discovery_base_url: String,
    /// Wait of a RequestReply that names none (ISO 8601).
    pub requestreply_default_timeout: String,
    /// Node selector of ApiServerSources' adapters.
    pub apiserversources_node_selector: BTreeMap<String, String>,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            kreference_group: Flag::Disabled,
            delivery_retry_after: Flag::Disabled,
            delivery_timeout: Flag::Enabled,
            kreference_mapping: Flag::Disabled,
            transport_encryption: TransportEncryption::Disabled,
            eventtype_auto_create: Flag::Disabled,
            authentication_oidc: Flag::Disabled,
            default_authorization_mode: AuthorizationMode::AllowSameNamespace,
            cross_namespace_event_links: Flag::Disabled,
            new_apiserversource_filters: Flag::Disabled,
            oidc_discovery_base_url: "https://kubernetes.default.svc".to_owned(),
            requestreply_default_timeout: "PT30S".to_owned(),
            apiserversources_node_selector: BTreeMap::new(),
        }
    }
}

impl Features {
    /// Reads the map. A value that is not known turns its feature off, as in Knative, where only `Enabled` turns one on.
    pub fn parse(data: &Data) -> Self {
        let mut features = Self::default();
        for (key, value) in data.iter().filter(|(key, _)| !key.starts_with('_')) {
            features.set(key.trim(), value.trim());
        }
        features
    }

    fn set(&mut self, key: &str, value: &str) {
        let word = value.to_ascii_lowercase();
        let flag = match word.as_str() {
            "enabled" => Flag::Enabled,
            "allowed" => Flag::Allowed,
            _ => Flag::Disabled,
        };
        match key {
            "kreference-group" => self.kreference_group = flag,
            "delivery-retryafter" => self.delivery_retry_after = flag,
            "delivery-timeout" => self.delivery_timeout = flag,
            "kreference-mapping" => self.kreference_mapping = flag,
            "eventtype-auto-create" => self.eventtype_auto_create = flag,
            "authentication-oidc" => self.authentication_oidc = flag,
            "cross-namespace-event-links" => self.cross_namespace_event_links = flag,
            "new-apiserversource-filters" => self.new_apiserversource_filters = flag,
            "transport-encryption" => {
                self.transport_encryption = match word.as_str() {
                    "permissive" => TransportEncryption::Permissive,
                    "strict" => TransportEncryption::Strict,
                    _ => TransportEncryption::Disabled,
                };
            }
            "default-authorization-mode" => {
                self.default_authorization_mode = match word.as_str() {
                    "allow-all" => AuthorizationMode::AllowAll,
                    "allow-same-namespace" => AuthorizationMode::AllowSameNamespace,
                    // What is not known must not open anything.
                    _ => AuthorizationMode::DenyAll,
                };
            }
            "oidc-discovery-base-url" if !value.is_empty() => {
                value.clone_into(&mut self.oidc_discovery_base_url);
            }
            "requestreply-default-timeout" if !value.is_empty() => {
                value.clone_into(&mut self.requestreply_default_timeout);
            }
            _ => {
                if let Some(label) = key.strip_prefix(NODE_SELECTOR) {
                    self.apiserversources_node_selector
                        .insert(label.to_owned(), value.to_owned());
                }
            }
        }
    }

    /// Whether tokens, audiences and EventPolicies are in force.
    pub fn is_oidc(&self) -> bool {
        self.authentication_oidc == Flag::Enabled
    }

    /// Whether Brokers and channels of other namespaces may be named.
    pub fn links_namespaces(&self) -> bool {
        self.cross_namespace_event_links == Flag::Enabled
    }
}
