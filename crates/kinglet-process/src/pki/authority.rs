//! One authority: a certificate and a key that sign certificates of one purpose.

use std::net::IpAddr;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
    date_time_ymd,
};

use super::{Credential, PkiError, failed, file};
use crate::private;

/// How long an authority and a client certificate hold: they are in files that others have copied.
pub(super) const LONG_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365 * 10);
/// How long a server certificate holds. It is renewed after two thirds of it.
pub(super) const SERVER_LIFE: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Clocks of clients may run behind.
const BEHIND: SignedDuration = SignedDuration::from_hours(24);

/// Signs certificates.
pub(super) struct Authority {
    pub(super) certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Listeners.
    Server,
    /// Clients of the Kubernetes API.
    Client,
}

/// Whom a server certificate names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Host names.
    pub hosts: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl Authority {
    /// The authority of `STEM.crt` and `STEM.key` in `folder`, made when there is none. `constraints` are the domains that a
    /// new one may sign for; none means all.
    pub(super) fn open(
        folder: &Path,
        stem: &str,
        common_name: &str,
        constraints: &[String],
        now: Timestamp,
    ) -> Result<Self, PkiError> {
        let key = file::key(&folder.join(format!("{stem}.key")))?;
        let path = folder.join(format!("{stem}.crt"));
        let parameters = parameters(common_name, constraints, now);
        let certificate_pem = match file::read(&path)? {
            Some(pem) => pem,
            None => {
                let made = parameters.self_signed(&key);
                let pem = made
                    .map_err(failed("signing the certificate authority"))?
                    .pem();
                private::write(&path, &pem)?;
                pem
            }
        };
        Ok(Self {
            certificate_pem,
            // Only the name and the key count: those of the certificate, whenever it was made.
            issuer: Issuer::new(parameters, key),
        })
    }

    /// A certificate for `key`.
    pub(super) fn sign(
        &self,
        key: &KeyPair,
        purpose: Purpose,
        subject: DistinguishedName,
        names: &Names,
        now: Timestamp,
    ) -> Result<String, PkiError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = subject;
        parameters.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let (usage, life) = match purpose {
            Purpose::Server => (ExtendedKeyUsagePurpose::ServerAuth, SERVER_LIFE),
            Purpose::Client => (ExtendedKeyUsagePurpose::ClientAuth, LONG_LIFE),
        };
        parameters.extended_key_usages = vec![usage];
        parameters.use_authority_key_identifier_extension = true;
        validity(&mut parameters, now, life);
        for host in &names.hosts {
            let name = host.as_str().try_into();
            let name = name.map_err(failed("naming the server"))?;
            parameters.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = names.addresses.iter().map(|ip| SanType::IpAddress(*ip));
        parameters.subject_alt_names.extend(addresses);
        let signed = parameters.signed_by(key, &self.issuer);
        Ok(signed.map_err(failed("signing a certificate"))?.pem())
    }

    /// A certificate for a listener, with a key of its own.
    pub(super) fn server(&self, names: &Names, now: Timestamp) -> Result<Credential, PkiError> {
        let key = KeyPair::generate().map_err(failed("generating a key"))?;
        let subject = subject("kinglet", None);
        Ok(Credential {
            certificate_pem: self.sign(&key, Purpose::Server, subject, names, now)?,
            key_pem: key.serialize_pem(),
        })
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

fn parameters(common_name: &str, constraints: &[String], now: Timestamp) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = subject(common_name, None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    if !constraints.is_empty() {
        let permitted = constraints.iter().cloned().map(GeneralSubtree::DnsName);
        // A kind of name that is not mentioned would be free.
        let excluded = [
            rcgen::CidrSubnet::from_v4_prefix([0; 4], 0),
            rcgen::CidrSubnet::from_v6_prefix([0; 16], 0),
        ];
        parameters.name_constraints = Some(NameConstraints {
            permitted_subtrees: permitted.collect(),
            excluded_subtrees: excluded.map(GeneralSubtree::IpAddress).into(),
        });
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }
    validity(&mut parameters, now, LONG_LIFE);
    parameters
}

pub(super) fn subject(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn validity(parameters: &mut CertificateParams, now: Timestamp, life: SignedDuration) {
    let seconds = |duration: SignedDuration| duration.unsigned_abs();
    let epoch = date_time_ymd(1970, 1, 1);
    let now = epoch + std::time::Duration::from_secs(now.as_second().unsigned_abs());
    parameters.not_before = now - seconds(BEHIND);
    parameters.not_after = now + seconds(life);
}
