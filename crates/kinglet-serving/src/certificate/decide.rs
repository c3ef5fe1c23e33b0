//! What to do about one Certificate: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kinglet_api::conditions::{CertificateCondition, ConditionState, Conditions};
use kinglet_api::formats;
use kinglet_api::keys;
use kinglet_api::networking::Certificate;
use kinglet_process::pki::Credential;
use kinglet_process::tls::ServerCertificate;
use kinglet_reconcile::{Plan, is_controlled_by, owner_reference, uid_of};

/// Names in one certificate; public authorities take as many.
const NAMES_MAX: usize = 100;
/// A certificate is looked at so often at least, since clocks are set.
const LOOK_MAX: Duration = Duration::from_secs(12 * 3600);

/// Facts about one Certificate.
#[derive(Clone, Debug)]
pub(super) struct CertificateObserved {
    pub(super) certificate: Arc<Certificate>,
    pub(super) secret: Option<Arc<Secret>>,
    /// Public hosts of the Route that it says it is for.
    pub(super) hosts: BTreeSet<String>,
    /// Domains of Services on this machine.
    pub(super) domains: Vec<String>,
    pub(super) now: Timestamp,
}

/// What the Secret is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Examined {
    /// It holds until then, and is to be renewed at the other time.
    Good {
        not_after: Timestamp,
        renew_at: Timestamp,
    },
    /// It is to be signed.
    Due,
    /// It is not to be signed, and why.
    Refused(String),
}

/// Looks at names and Secret. `signed` says whether the authority of today has signed a certificate for a host.
pub(super) fn examine(
    observed: &CertificateObserved,
    signed: impl Fn(&str, &str, &[String]) -> bool,
) -> Examined {
    if let Err(why) = allowed(observed) {
        return Examined::Refused(why);
    }
    let Some(secret) = observed.secret.as_deref() else {
        return Examined::Due;
    };
    let certificate = &*observed.certificate;
    if !is_controlled_by(secret, certificate) {
        return Examined::Refused(format!(
            "Secret {:?} was made by somebody else and is left alone; choose another secretName",
            certificate.spec.secret_name
        ));
    }
    let field = |name: &str| {
        let data = secret.data.iter().flatten();
        let found = data.into_iter().find(|(field, _)| *field == name);
        found.map_or(&[][..], |(_, bytes)| &bytes.0)
    };
    let Ok(read) = ServerCertificate::from_pem(field("tls.crt"), field("tls.key")) else {
        return Examined::Due;
    };
    let renew_at = read.validity.renew_at();
    let pem = String::from_utf8_lossy(field("tls.crt"));
    let mut names = certificate.spec.dns_names.iter();
    if observed.now >= renew_at || !names.all(|host| signed(&pem, host, &observed.domains)) {
        return Examined::Due;
    }
    Examined::Good {
        not_after: read.validity.not_after,
        renew_at,
    }
}

/// A name belongs to the namespace that has a Route for it, or whose own name is in it as in Knative's own template. Without
/// this, one tenant could have a certificate for another one's hosts.
fn allowed(observed: &CertificateObserved) -> Result<(), String> {
    let certificate = &*observed.certificate;
    let names = &certificate.spec.dns_names;
    if names.len() > NAMES_MAX {
        return Err(format!("it has more than {NAMES_MAX} names"));
    }
    for name in names {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        if formats::fully_qualified_domain_name(plain).is_some() || name.len() > 253 {
            return Err(format!("{name:?} is no host name"));
        }
        let namespace = certificate.namespace();
        let of_namespace = observed
            .domains
            .iter()
            .any(|domain| name.ends_with(&format!(".{namespace}.{domain}")));
        if !of_namespace && !observed.hosts.contains(name) {
            return Err(format!(
                "no Route of namespace {namespace} has host {name}, so this machine signs no certificate for it"
            ));
        }
    }
    Ok(())
}

/// The Secret and the status. `issued` is what was signed: a credential and the authority's certificate.
pub(super) fn decide(
    observed: &CertificateObserved,
    examined: Examined,
    issued: Option<Result<(Credential, String), String>>,
) -> Plan {
    let mut plan = Plan::new();
    let certificate = &*observed.certificate;
    let outcome = match (examined, issued) {
        (Examined::Refused(why), _) | (Examined::Due, Some(Err(why))) => Err(why),
        (Examined::Due, None) => Err("it is not signed yet".to_owned()),
        (
            Examined::Good {
                not_after,
                renew_at,
            },
            _,
        ) => Ok((not_after, renew_at)),
        (Examined::Due, Some(Ok((credential, authority)))) => {
            put(observed, &credential, &authority, &mut plan)
        }
    };
    let mut status = certificate.status.clone();
    let ready = match outcome {
        Ok((not_after, renew_at)) => {
            status.not_after = crate::stamp(not_after);
            let left = Duration::try_from(renew_at.duration_since(observed.now));
            let left = left.unwrap_or_default() + Duration::from_secs(1);
            plan.after(left.min(LOOK_MAX));
            ConditionState::True
        }
        Err(why) => {
            status.not_after = String::new();
            plan.after(LOOK_MAX);
            ConditionState::false_because("NotIssued", why)
        }
    };
    status.common.observed_generation = certificate.generation();
    status.common.conditions = Conditions::new()
        .with(CertificateCondition::Ready, ready)
        .finish(&certificate.status.common.conditions, observed.now);
    plan.status(certificate, &status);
    plan
}

/// Puts what was signed into the Secret.
fn put(
    observed: &CertificateObserved,
    credential: &Credential,
    authority: &str,
    plan: &mut Plan,
) -> Result<(Timestamp, Timestamp), String> {
    let certificate = &*observed.certificate;
    let (chain, key) = (&credential.certificate_pem, &credential.key_pem);
    let validity = ServerCertificate::from_pem(chain.as_bytes(), key.as_bytes())?.validity;
    let mut secret = observed.secret.as_deref().cloned().unwrap_or_default();
    if observed.secret.is_none() {
        secret.metadata.name = Some(certificate.spec.secret_name.clone());
        secret.metadata.namespace = certificate.metadata.namespace.clone();
        secret.metadata.owner_references = Some(vec![owner_reference(certificate)]);
        secret.type_ = Some("kubernetes.io/tls".to_owned());
    }
    let labels = secret.metadata.labels.get_or_insert_default();
    labels.insert(
        keys::CERTIFICATE_UID.to_owned(),
        uid_of(certificate).to_owned(),
    );
    let data: [(&str, &str); 3] = [("tls.crt", chain), ("tls.key", key), ("ca.crt", authority)];
    secret.data = Some(BTreeMap::from(data.map(|(field, text)| {
        (field.to_owned(), ByteString(text.as_bytes().to_vec()))
    })));
    plan.ensure(observed.secret.as_deref(), &secret);
    let verb = match observed.secret {
        Some(_) => "Renewed",
        None => "Issued",
    };
    let until = crate::stamp(validity.not_after);
    plan.normal(
        certificate,
        verb,
        format!("{verb} a certificate that holds until {until}"),
    );
    Ok((validity.not_after, validity.renew_at()))
}
