//! `config-network`: names and gateways of Routes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::go;
use crate::keys;
use crate::template::Template;

use super::{Data, read};

/// What plain HTTP gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpProtocol {
    /// Served.
    #[default]
    Enabled,
    /// Redirected to HTTPS where there is a certificate.
    Redirected,
    /// Refused (deprecated).
    Disabled,
}

/// `config-network`.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Which gateway.
    pub ingress_class: String,
    /// Which certificate maker.
    pub certificate_class: String,
    /// Public host of a Route.
    pub domain_template: Template,
    /// First part of a tag's host.
    pub tag_template: Template,
    /// Namespaces that get a wildcard certificate.
    pub namespace_wildcard_cert_selector: Option<Value>,
    /// Certificates for public hosts.
    pub external_domain_tls: bool,
    /// Certificates for cluster-local hosts.
    pub cluster_local_domain_tls: bool,
    /// Certificates between our own parts.
    pub system_internal_tls: bool,
    /// What plain HTTP gets.
    pub http_protocol: HttpProtocol,
    /// Scheme of public URLs without TLS.
    pub default_external_scheme: String,
    /// Duration of gradual rollouts.
    pub rollout_duration: Duration,
    /// Whether a DomainMapping claims its domain itself.
    pub autocreate_cluster_domain_claims: bool,
    /// Whether a mesh lets pods be addressed directly.
    pub enable_mesh_pod_addressability: bool,
    /// `enabled`, `disabled` or `auto`.
    pub mesh_compatibility_mode: String,
}

impl Default for Network {
    fn default() -> Self {
        Self::parse(&Data::new()).expect("the defaults are valid")
    }
}

impl Network {
    /// Reads the map.
    pub fn parse(data: &Data) -> Result<Self, String> {
        let text = |keys: &[&str], or: &str| read::text(data, keys).unwrap_or(or).to_owned();
        let rollout = read::int(data, &["rollout-duration", "rolloutDuration"], 64, 0)?;
        let rollout_duration = u64::try_from(rollout).map_err(|_| {
            format!("rollout-duration must be a positive integer, but was {rollout}")
        })?;
        let (domain_template, tag_template) = templates(data)?;
        let tls = |keys: &[&str]| {
            read::text(data, keys).is_some_and(|value| value.eq_ignore_ascii_case("enabled"))
        };
        let system_internal_tls = strict_tls(data, "system-internal-tls")?
            || read::text(data, &["internal-encryption"])
                .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(Self {
            ingress_class: text(
                &["ingress-class", "ingress.class"],
                keys::INGRESS_CLASS_ISTIO,
            ),
            certificate_class: text(
                &["certificate-class", "certificate.class"],
                "cert-manager.certificate.networking.knative.dev",
            ),
            domain_template,
            tag_template,
            namespace_wildcard_cert_selector: read::text(
                data,
                &["namespace-wildcard-cert-selector"],
            )
            .filter(|yaml| !yaml.is_empty())
            .map(read::yaml)
            .transpose()?,
            external_domain_tls: tls(&["external-domain-tls", "auto-tls", "autoTLS"]),
            cluster_local_domain_tls: strict_tls(data, "cluster-local-domain-tls")?,
            system_internal_tls,
            http_protocol: http_protocol(data)?,
            default_external_scheme: text(
                &["default-external-scheme", "defaultExternalScheme"],
                "http",
            ),
            rollout_duration: Duration::from_secs(rollout_duration),
            autocreate_cluster_domain_claims: read::boolean(
                data,
                &[
                    "autocreate-cluster-domain-claims",
                    "autocreateClusterDomainClaims",
                ],
                false,
            )?,
            enable_mesh_pod_addressability: read::boolean(
                data,
                &["enable-mesh-pod-addressability"],
                false,
            )?,
            mesh_compatibility_mode: match read::text(data, &["mesh-compatibility-mode"])
                .map(str::to_ascii_lowercase)
            {
                Some(mode) if ["enabled", "disabled"].contains(&mode.as_str()) => mode,
                _ => "auto".to_owned(),
            },
        })
    }

    /// Public host of a Route.
    pub fn host(&self, values: &DomainTemplateValues<'_>) -> Result<String, String> {
        render_host(&self.domain_template, values)
    }

    /// Name that takes a Route's place in the host of one of its tags.
    pub fn tag_name(&self, route: &str, tag: &str) -> Result<String, String> {
        self.tag_template
            .render(&json!({"Name": route, "Tag": tag}))
    }
}

/// Reads the templates of hosts and tags, and tries both.
fn templates(data: &Data) -> Result<(Template, Template), String> {
    let domain = read::text(data, &["domain-template", "domainTemplate"])
        .unwrap_or("{{.Name}}.{{.Namespace}}.{{.Domain}}");
    let domain = Template::parse("domain-template", domain)?;
    check_host(&render_host(&domain, &DomainTemplateValues::sample())?)?;
    let tag = read::text(data, &["tag-template", "tagTemplate"]).unwrap_or("{{.Tag}}-{{.Name}}");
    let tag = Template::parse("tag-template", tag)?;
    tag.render(&json!({"Name": "foo", "Tag": "v2"}))?;
    Ok((domain, tag))
}

fn http_protocol(data: &Data) -> Result<HttpProtocol, String> {
    match read::text(data, &["http-protocol", "httpProtocol"])
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        None | Some("" | "enabled") => Ok(HttpProtocol::Enabled),
        Some("redirected") => Ok(HttpProtocol::Redirected),
        Some("disabled") => Ok(HttpProtocol::Disabled),
        Some(other) => Err(format!(
            "http-protocol {other} in config-network ConfigMap is not supported"
        )),
    }
}

/// What a host is made from.
#[derive(Clone, Copy, Debug)]
pub struct DomainTemplateValues<'a> {
    /// Name of the Route, or of one of its tags.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its domain.
    pub domain: &'a str,
    /// Its annotations.
    pub annotations: Option<&'a BTreeMap<String, String>>,
    /// Its labels.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

impl DomainTemplateValues<'static> {
    fn sample() -> Self {
        Self {
            name: "foo",
            namespace: "bar",
            domain: "baz.com",
            annotations: None,
            labels: None,
        }
    }
}

fn render_host(template: &Template, values: &DomainTemplateValues<'_>) -> Result<String, String> {
    let map =
        |map: Option<&BTreeMap<String, String>>| map.map_or_else(|| json!({}), |map| json!(map));
    template.render(&json!({
        "Name": values.name, "Namespace": values.namespace, "Domain": values.domain,
        "Annotations": map(values.annotations), "Labels": map(values.labels),
    }))
}

fn check_host(host: &str) -> Result<(), String> {
    let (host, path) = host.split_at(host.find('/').unwrap_or(host.len()));
    if host.is_empty() {
        return Err("empty hostname".to_owned());
    }
    if !path.is_empty() {
        return Err(format!("domain template has url path: {path}"));
    }
    if host.contains(char::is_whitespace) {
        return Err(format!(
            "domain template yields an invalid hostname: {}",
            go::quote(host)
        ));
    }
    Ok(())
}

fn strict_tls(data: &Data, key: &str) -> Result<bool, String> {
    match read::text(data, &[key]) {
        None | Some("") => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("enabled") => Ok(true),
        Some(value) if value.eq_ignore_ascii_case("disabled") => Ok(false),
        Some(value) => Err(format!(
            "{key} with value: {} in config-network ConfigMap is not supported",
            go::quote(value)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_tags() {
        let network = Network::default();
        let values = DomainTemplateValues {
            name: "hello",
            namespace: "default",
            domain: "localhost",
            annotations: None,
            labels: None,
        };
        assert_eq!(network.host(&values).unwrap(), "hello.default.localhost");
        assert_eq!(network.tag_name("hello", "v1").unwrap(), "v1-hello");
        assert_eq!(network.ingress_class, keys::INGRESS_CLASS_ISTIO);
    }
}
