//! Certificates of Ingresses: which Secrets an Ingress shows for which rules, and what is wrong with them.
//!
//! Flow: Ingress or Secret changed -> [`Certificates::resolve`] -> the rules carry the certificates into the route table.
//! Always: a change of a Secret wakes exactly the Ingresses that refer to it; a Secret that is absent or wrong is said in
//! words, and what was shown before goes on; what is held has a bound, and no namespace takes more than its part of it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kinglet_api::networking::{Ingress, IngressTls, Visibility};
use kinglet_decide::feed::Key;
use kinglet_decide::route::Certificate;
use kinglet_process::tls::{CHAIN_BYTES_MAX, KEY_BYTES_MAX, ServerCertificate};
use parking_lot::Mutex;

/// PEM of all Secrets that Ingresses show: ten thousand of 3 kB. Half of what a feed to gateways in other processes may have.
const BYTES_MAX: usize = 32 << 20;
/// What the Secrets of one namespace may take of it.
const NAMESPACE_BYTES_MAX: usize = BYTES_MAX / 4;

/// Secrets and the Ingresses that refer to them. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Certificates(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    /// Only Secrets that an Ingress refers to.
    secrets: HashMap<Key, Referred>,
    ingresses: HashMap<Key, BTreeSet<Key>>,
    bytes: usize,
    bytes_by_namespace: HashMap<Arc<str>, usize>,
}

/// A Secret that Ingresses refer to, be it there or not.
#[derive(Default)]
struct Referred {
    ingresses: BTreeSet<Key>,
    /// What is shown.
    shown: Option<Arc<Certificate>>,
    /// What was found out about the Secret of this resource version.
    read: Option<(String, Result<Arc<ServerCertificate>, String>)>,
}

/// How closely Secrets are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// They are understood, so that what is wrong with them is said.
    Close,
    /// They are taken as they are: at the start, when requests wait for the first routes.
    Quick,
}

/// What an Ingress shows.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// For each entry of `spec.tls`; none where no rule uses it, or nothing can be shown.
    pub(super) certificates: Vec<Option<Arc<Certificate>>>,
    /// What is wrong, with the field that it is about.
    pub(super) faults: Vec<String>,
    /// When it is different without anybody changing anything.
    pub(super) changes_at: Option<Timestamp>,
}

/// The entries of `spec.tls` that each rule is shown with: those that list all hosts of the rule. An entry that covers a
/// rule in part is nothing for it, and a rule without hosts ends the search (spec/cluster.md 3.9).
pub(super) fn entries_by_rule(ingress: &Ingress) -> Vec<Vec<usize>> {
    let spec = &ingress.spec;
    let mut ended: Vec<Visibility> = Vec::new();
    spec.rules
        .iter()
        .map(|rule| {
            if rule.hosts.is_empty() {
                ended.push(rule.visibility);
            }
            if ended.contains(&rule.visibility) {
                return Vec::new();
            }
            let covers = |tls: &IngressTls| rule.hosts.iter().all(|host| tls.hosts.contains(host));
            let entries = spec.tls.iter().enumerate();
            entries
                .filter(|(_, tls)| covers(tls))
                .map(|(at, _)| at)
                .collect()
        })
        .collect()
}

fn secret_of(tls: &IngressTls) -> Key {
    Key::new(tls.secret_namespace.as_str(), tls.secret_name.as_str())
}

impl Certificates {
    /// The Ingresses to look at when this Secret changes.
    pub(super) fn ingresses_of(&self, secret: &Key) -> Vec<Key> {
        let tables = self.0.lock();
        let referred = tables.secrets.get(secret);
        referred.map_or_else(Vec::new, |referred| {
            referred.ingresses.iter().cloned().collect()
        })
    }

    /// Forgets an Ingress.
    pub(super) fn forget(&self, ingress: &Key) {
        self.0.lock().refer(ingress, &BTreeSet::new());
    }

    /// Finds what an Ingress shows. References are noted before Secrets are read, so that no change is missed.
    pub(super) fn resolve(
        &self,
        key: &Key,
        ingress: &Ingress,
        look: Look,
        now: Timestamp,
        secret: impl Fn(&Key) -> Option<Arc<Secret>>,
    ) -> Resolved {
        let entries = &ingress.spec.tls;
        if entries.is_empty() {
            self.forget(key);
            return Resolved::default();
        }
        let used: BTreeSet<usize> = entries_by_rule(ingress).into_iter().flatten().collect();
        let secrets = used.iter().map(|at| secret_of(&entries[*at]));
        self.0.lock().refer(key, &secrets.collect());
        let mut resolved = Resolved {
            certificates: vec![None; entries.len()],
            ..Resolved::default()
        };
        for at in used {
            let name = secret_of(&entries[at]);
            let found = secret(&name);
            let mut tables = self.0.lock();
            let (shown, verdict) = tables.look(&name, found.as_deref(), look);
            resolved.certificates[at] = shown;
            let mut fault = |why: String| {
                let words = format!("spec.tls[{at}]: Secret {name}: {why}");
                resolved.faults.push(words);
            };
            match verdict {
                Err(why) => fault(why),
                Ok(None) => {}
                Ok(Some(read)) => {
                    if let Err(why) = read.valid_at(now) {
                        fault(why);
                    }
                    let times = [read.validity.not_before, read.validity.not_after];
                    let next = times.into_iter().find(|time| *time > now);
                    let earlier = resolved.changes_at.into_iter().chain(next).min();
                    resolved.changes_at = earlier;
                }
            }
        }
        resolved
    }
}

type Verdict = Result<Option<Arc<ServerCertificate>>, String>;

impl Tables {
    /// Replaces the references of an Ingress.
    fn refer(&mut self, ingress: &Key, secrets: &BTreeSet<Key>) {
        for secret in secrets {
            let referred = self.secrets.entry(secret.clone()).or_default();
            referred.ingresses.insert(ingress.clone());
        }
        let before = if secrets.is_empty() {
            self.ingresses.remove(ingress)
        } else {
            self.ingresses.insert(ingress.clone(), secrets.clone())
        };
        for gone in before.iter().flatten().filter(|key| !secrets.contains(key)) {
            let Some(referred) = self.secrets.get_mut(gone) else {
                continue;
            };
            referred.ingresses.remove(ingress);
            if referred.ingresses.is_empty() {
                self.show(gone, None);
                self.secrets.remove(gone);
            }
        }
    }

    /// What is shown for a Secret now, and what there is to say about it.
    fn look(
        &mut self,
        key: &Key,
        secret: Option<&Secret>,
        look: Look,
    ) -> (Option<Arc<Certificate>>, Verdict) {
        let shown = |tables: &Self| tables.secrets.get(key)?.shown.clone();
        let Some(secret) = secret else {
            return (
                shown(self),
                Err(
                    "it is not there; create it with tls.crt and tls.key, or take the entry away"
                        .to_owned(),
                ),
            );
        };
        let version = secret.metadata.resource_version.clone().unwrap_or_default();
        let known = self
            .secrets
            .get(key)
            .and_then(|referred| referred.read.clone());
        if let Some((_, outcome)) = known.filter(|(known, _)| *known == version) {
            return (shown(self), outcome.map(Some));
        }
        let held = held(key, secret);
        let outcome = match (&held, look) {
            (Err(why), _) => Err(why.clone()),
            (Ok(_), Look::Quick) => Ok(None),
            (Ok(held), Look::Close) => ServerCertificate::from_pem(&held.chain_pem, &held.key_pem)
                .map(|read| Some(Arc::new(read))),
        };
        let outcome = match (outcome, held) {
            (Ok(read), Ok(held)) => self.admit(key, held).map(|()| read),
            (Err(why), Ok(held)) => {
                // What was taken unseen was wrong; what was good before is kept.
                if shown(self).is_some_and(|shown| *shown == held) {
                    self.show(key, None);
                }
                Err(why)
            }
            (outcome, Err(_)) => outcome,
        };
        if let Some(referred) = self.secrets.get_mut(key) {
            referred.read = match &outcome {
                // A place may be free the next time.
                Err(why) if why.starts_with(FULL) => None,
                Err(why) => Some((version, Err(why.clone()))),
                Ok(Some(read)) => Some((version, Ok(Arc::clone(read)))),
                Ok(None) => None,
            };
        }
        (shown(self), outcome)
    }

    /// Shows a certificate from now on, if there is room for it.
    fn admit(&mut self, key: &Key, certificate: Certificate) -> Result<(), String> {
        let referred = self.secrets.get(key);
        let before = referred.and_then(|referred| referred.shown.as_deref());
        if before == Some(&certificate) {
            return Ok(());
        }
        let (before, more) = (before.map_or(0, bytes), bytes(&certificate));
        let of_namespace = self.bytes_by_namespace.get(&key.namespace).copied();
        if of_namespace.unwrap_or(0) - before + more > NAMESPACE_BYTES_MAX {
            return Err(format!(
                "{FULL} of namespace {} that Ingresses show have {} MiB already",
                key.namespace,
                NAMESPACE_BYTES_MAX >> 20
            ));
        }
        if self.bytes - before + more > BYTES_MAX {
            return Err(format!(
                "{FULL} that Ingresses show have {} MiB already",
                BYTES_MAX >> 20
            ));
        }
        self.show(key, Some(Arc::new(certificate)));
        Ok(())
    }

    fn show(&mut self, key: &Key, certificate: Option<Arc<Certificate>>) {
        let Some(referred) = self.secrets.get_mut(key) else {
            return;
        };
        let more = certificate.as_deref().map_or(0, bytes);
        let before = std::mem::replace(&mut referred.shown, certificate);
        let less = before.as_deref().map_or(0, bytes);
        self.bytes = self.bytes - less + more;
        let namespace = &key.namespace;
        let of_namespace = self
            .bytes_by_namespace
            .entry(namespace.clone())
            .or_default();
        *of_namespace = *of_namespace - less + more;
        if *of_namespace == 0 {
            self.bytes_by_namespace.remove(namespace);
        }
    }
}

/// How every refusal for want of room begins.
const FULL: &str = "there is no room for it: the certificates";

fn bytes(certificate: &Certificate) -> usize {
    certificate.chain_pem.len() + certificate.key_pem.len()
}

/// `tls.crt` and `tls.key` of a Secret, whatever its type.
fn held(key: &Key, secret: &Secret) -> Result<Certificate, String> {
    let field = |name: &str, bytes_max: usize| -> Result<Arc<[u8]>, String> {
        let data = secret.data.iter().flatten();
        let found = data.into_iter().find(|(field, _)| *field == name);
        let bytes = found
            .map(|(_, bytes)| &bytes.0)
            .filter(|bytes| !bytes.is_empty());
        let bytes = bytes.ok_or_else(|| format!("it has no {name}"))?;
        if bytes.len() > bytes_max {
            return Err(format!("{name}: it is longer than {} kB", bytes_max / 1024));
        }
        Ok(bytes.as_slice().into())
    };
    Ok(Certificate {
        secret: key.clone(),
        chain_pem: field("tls.crt", CHAIN_BYTES_MAX)?,
        key_pem: field("tls.key", KEY_BYTES_MAX)?,
    })
}
