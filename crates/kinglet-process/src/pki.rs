//! The machine's own certificate authority and what it signs.
//!
//! Made on first start, kept in the data directory with mode 0600 and never changed, so that kubeconfigs written once
//! stay good. The server certificate is signed anew at each start, because its names may change.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::private::{self, PrivateError};

/// Years that the authority and client certificates hold.
const YEARS_VALID: i16 = 10;

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// Reading or writing a file.
    #[error("{action} {path}: {source}")]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Writing a key or certificate.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// Making or parsing a key or certificate.
    #[error("{what}: {source}")]
    Certificate {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: rcgen::Error,
    },
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Credential {
    /// Certificate.
    pub certificate_pem: String,
    /// PKCS#8 private key.
    pub key_pem: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// The authority and the long-lived credentials. What it signs for listeners is made anew at each start.
#[derive(Clone, Debug)]
pub struct Pki {
    /// The authority's certificate, for clients.
    pub ca_pem: String,
    /// The administrator: `CN=kinglet-admin, O=system:masters`.
    pub admin: Credential,
    folder: PathBuf,
    year: i16,
    /// Signs service account tokens (PKCS#8, P-256).
    pub service_account_key_pem: String,
}

impl Pki {
    /// Opens or makes everything below `folder`.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, PkiError> {
        private::directory(folder)?;
        let year = now.to_zoned(jiff::tz::TimeZone::UTC).year();
        let ca_key = key(&folder.join("ca.key"))?;
        let ca_params = ca_params(year);
        let ca_path = folder.join("ca.crt");
        let ca_pem = match read(&ca_path)? {
            Some(pem) => pem,
            None => {
                let pem = ca_params
                    .self_signed(&ca_key)
                    .map_err(failed("signing the certificate authority"))?
                    .pem();
                private::write(&ca_path, &pem)?;
                pem
            }
        };
        let issuer = Issuer::from_params(&ca_params, &ca_key);
        let admin_key = key(&folder.join("admin.key"))?;
        let admin_path = folder.join("admin.crt");
        let admin_pem = match read(&admin_path)? {
            Some(pem) => pem,
            None => {
                let params = leaf(
                    year,
                    "kinglet-admin",
                    Some("system:masters"),
                    ExtendedKeyUsagePurpose::ClientAuth,
                );
                let pem = params
                    .signed_by(&admin_key, &issuer)
                    .map_err(failed("signing the administrator's certificate"))?
                    .pem();
                private::write(&admin_path, &pem)?;
                pem
            }
        };
        let service_account_key_pem = key(&folder.join("service-account.key"))?.serialize_pem();
        Ok(Self {
            ca_pem,
            admin: Credential {
                certificate_pem: admin_pem,
                key_pem: admin_key.serialize_pem(),
            },
            folder: folder.to_owned(),
            year,
            service_account_key_pem,
        })
    }

    /// A certificate for our listeners, good for `hosts` and `addresses`.
    pub fn server(&self, hosts: &[String], addresses: &[IpAddr]) -> Result<Credential, PkiError> {
        let ca_key = key(&self.folder.join("ca.key"))?;
        let ca_params = ca_params(self.year);
        let issuer = Issuer::from_params(&ca_params, &ca_key);
        let server_key = key(&self.folder.join("server.key"))?;
        let mut params = leaf(
            self.year,
            "kinglet",
            None,
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        for host in hosts {
            let name = host
                .as_str()
                .try_into()
                .map_err(failed("naming the server"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params
            .subject_alt_names
            .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        let server_pem = params
            .signed_by(&server_key, &issuer)
            .map_err(failed("signing the server's certificate"))?
            .pem();
        Ok(Credential {
            certificate_pem: server_pem,
            key_pem: server_key.serialize_pem(),
        })
    }
}

fn ca_params(year: i16) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("kinglet-ca", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    validity(&mut params, year);
    params
}

fn leaf(
    year: i16,
    common_name: &str,
    organization: Option<&str>,
    usage: ExtendedKeyUsagePurpose,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name, organization);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, year);
    params
}

fn validity(params: &mut CertificateParams, year: i16) {
    // Clocks of clients may run behind.
    params.not_before = date_time_ymd(i32::from(year) - 1, 1, 1);
    params.not_after = date_time_ymd(i32::from(year + YEARS_VALID), 12, 31);
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn failed(what: &str) -> impl FnOnce(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate {
        what: what.to_owned(),
        source,
    }
}

fn key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem).map_err(|source| PkiError::Certificate {
            what: format!("parsing {}", path.display()),
            source,
        });
    }
    let made = KeyPair::generate().map_err(failed("generating a key"))?;
    private::write(path, &made.serialize_pem())?;
    Ok(made)
}

fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File {
            action: "reading",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opened_twice_keeps_authority_and_credentials() {
        let folder = std::env::temp_dir().join(format!("kinglet-pki-{}", std::process::id()));
        let now = Timestamp::from_second(1_800_000_000).expect("time");
        let first = Pki::open(&folder, now).expect("first");
        let second = Pki::open(&folder, now).expect("second");
        assert_eq!(first.ca_pem, second.ca_pem);
        assert_eq!(first.admin.certificate_pem, second.admin.certificate_pem);
        let one = first
            .server(&["localhost".to_owned()], &[])
            .expect("server");
        let other = second
            .server(&["other".to_owned()], &["127.0.0.1".parse().expect("ip")])
            .expect("server");
        assert_ne!(one.certificate_pem, other.certificate_pem);
        assert_eq!(one.key_pem, other.key_pem);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(folder.join("ca.key"))
                .expect("meta")
                .permissions(),
        );
        assert_eq!(mode & 0o077, 0);
        std::fs::remove_dir_all(folder).expect("clean");
    }
}
