//! `networking.internal.knative.dev/v1alpha1`: Ingress, ServerlessService, Certificate.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Serialize};

use crate::duck::{ObjectReference, Status};
use crate::kind::{is_default, kind};

/// API group of these kinds.
pub const GROUP: &str = "networking.internal.knative.dev";
/// Their only version.
pub const VERSION: &str = "v1alpha1";

kind!(
    /// Rules of a gateway (KIngress): hosts and paths to splits.
    Ingress, "ingresses", "networking.internal.knative.dev", "v1alpha1", IngressSpec, IngressStatus
);
kind!(
    /// Two Kubernetes Services of a Revision: one for its pods, one that is always reachable.
    ServerlessService, "serverlessservices", "networking.internal.knative.dev", "v1alpha1", ServerlessServiceSpec, ServerlessServiceStatus
);

kind!(
    /// A certificate for host names, put into a Secret by whoever serves its class (KCert).
    Certificate, "certificates", "networking.internal.knative.dev", "v1alpha1", CertificateSpec, CertificateStatus
);

/// Protocol of a user container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1 with upgrades.
    #[default]
    #[serde(rename = "http1", alias = "")]
    Http1,
    /// HTTP/2 with prior knowledge.
    #[serde(rename = "h2c")]
    H2c,
}

impl Protocol {
    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2c => "h2c",
        }
    }
}

/// What plain HTTP gets where TLS is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HttpOption {
    /// Not told: served.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Served.
    Enabled,
    /// Redirected to HTTPS.
    Redirected,
}

/// Spec of an Ingress. The order of the fields here and below is that of Knative's Go types, since the hash that
/// probers compare is taken over the serialized spec (spec/serving.md 6.5).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    /// Certificates by host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<IngressTls>,
    /// Rules by host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<IngressRule>,
    /// What plain HTTP gets.
    #[serde(skip_serializing_if = "is_default")]
    pub http_option: HttpOption,
}

/// A certificate for some hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressTls {
    /// Hosts it is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Secret that holds it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret_name: String,
    /// Namespace of the Secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret_namespace: String,
}

/// Who may reach a rule's hosts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub enum Visibility {
    /// Everyone.
    #[default]
    #[serde(alias = "")]
    ExternalIP,
    /// Only callers inside.
    ClusterLocal,
}

/// Paths for some hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressRule {
    /// Host names, without ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Who may reach them.
    pub visibility: Visibility,
    /// Where their requests go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpIngressRule>,
}

/// Paths in order of declaration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpIngressRule {
    /// The paths.
    pub paths: Vec<HttpIngressPath>,
}

/// Requests that match go to the splits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpIngressPath {
    /// Path prefix; empty means all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Host header that the target sees instead.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rewrite_host: String,
    /// Headers that must match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderMatch>,
    /// Targets with their shares.
    pub splits: Vec<IngressBackendSplit>,
    /// Headers set on each request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub append_headers: BTreeMap<String, String>,
}

/// How a header must look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderMatch {
    /// The exact value.
    pub exact: String,
}

/// One target and its share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressBackendSplit {
    /// Namespace of the Kubernetes Service.
    pub service_namespace: String,
    /// Name of the Kubernetes Service.
    pub service_name: String,
    /// Port of the Kubernetes Service.
    pub service_port: IntOrString,
    /// Share, 0 to 100.
    #[serde(skip_serializing_if = "is_default")]
    pub percent: i64,
    /// Headers set on each request to this target.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub append_headers: BTreeMap<String, String>,
}

impl Default for IngressBackendSplit {
    fn default() -> Self {
        Self {
            service_namespace: String::new(),
            service_name: String::new(),
            service_port: IntOrString::Int(0),
            percent: 0,
            append_headers: BTreeMap::new(),
        }
    }
}

/// Status of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// Where outside traffic enters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_load_balancer: Option<LoadBalancerStatus>,
    /// Where inside traffic enters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_load_balancer: Option<LoadBalancerStatus>,
}

/// Entrances of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// The entrances.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One entrance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Its address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Its public name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Its name inside the cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain_internal: String,
    /// There is none but the mesh.
    #[serde(skip_serializing_if = "is_default")]
    pub mesh_only: bool,
}

/// Who stands behind a Revision's public Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ServerlessServiceMode {
    /// The pods.
    #[default]
    #[serde(alias = "")]
    Serve,
    /// The activators.
    Proxy,
}

/// Spec of a ServerlessService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerlessServiceSpec {
    /// Who stands behind the public Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ServerlessServiceMode>,
    /// The Deployment whose pods are meant.
    pub object_ref: ObjectReference,
    /// Protocol of the user container.
    pub protocol_type: Protocol,
    /// How many activators; 0 means all.
    #[serde(skip_serializing_if = "is_default")]
    pub num_activators: i32,
}

/// Status of a ServerlessService.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerlessServiceStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// The public Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_name: String,
    /// The Service of the pods alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_service_name: String,
}

/// Spec of a Certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateSpec {
    /// Host names that it is for.
    pub dns_names: Vec<String>,
    /// The domain that they are in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Secret that it is put into.
    pub secret_name: String,
}

/// Status of a Certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateStatus {
    /// Generation, conditions, annotations.
    #[serde(flatten)]
    pub common: Status,
    /// When it expires, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub not_after: String,
    /// Requests that must be answered before it can be issued.
    #[serde(rename = "http01Challenges", skip_serializing_if = "Vec::is_empty")]
    pub http01_challenges: Vec<Http01Challenge>,
}

/// A request of an ACME server that somebody must answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http01Challenge {
    /// What is asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Kubernetes Service that answers.
    pub service_name: String,
    /// Its namespace.
    pub service_namespace: String,
    /// Its port.
    pub service_port: IntOrString,
}

impl Default for Http01Challenge {
    fn default() -> Self {
        Self {
            url: String::new(),
            service_name: String::new(),
            service_namespace: String::new(),
            service_port: IntOrString::Int(0),
        }
    }
}
