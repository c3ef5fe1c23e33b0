//! The lines of a feed: one object each, under the name of what it is.
//!
//! Over a socket there are two more: what is gone, and the version that everything before makes up.

mod backend;
mod rule;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use kinglet_decide::feed::Key;
use kinglet_decide::route::{Certificate as Shown, IngressRule};
use kinglet_process::tls::ServerCertificate;
use serde::{Deserialize, Serialize};

pub use self::backend::{FedPod, FedRevision};
use self::backend::{Revision, Service};
use self::rule::{Certificate, Rule};
use super::Snapshot;

/// Why a feed was not understood.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No text came.
    #[error("reading the feed {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// What went wrong.
        #[source]
        error: std::io::Error,
    },
    /// It is beyond its bound.
    #[error("the feed {path} is larger than {most} MiB")]
    TooLarge {
        /// The file.
        path: String,
        /// In MiB.
        most: u64,
    },
    /// A line is wrong.
    #[error("line {line} of the feed: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// In words.
        reason: String,
    },
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Line {
    Rule(Rule),
    Certificate(Certificate),
    Service(Service),
    Revision(Box<Revision>),
    Gone(Gone),
    Version(u64),
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Gone {
    /// All of them: their order matters, so they come anew together.
    Rules,
    Service(Name),
    Revision(Name),
    Certificate(Name),
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Name {
    namespace: String,
    name: String,
}

impl Name {
    fn of(key: &Key) -> Self {
        Self {
            namespace: key.namespace.to_string(),
            name: key.name.to_string(),
        }
    }

    fn key(&self) -> Key {
        Key::new(self.namespace.as_str(), self.name.as_str())
    }
}

impl Snapshot {
    /// Understands all lines, or names the first that is wrong. Empty lines count for nothing.
    pub fn parse(text: &str, version: u64) -> Result<Self, FeedError> {
        let mut snapshot = Self {
            version,
            ..Self::default()
        };
        for (index, text) in text.lines().enumerate() {
            if text.trim().is_empty() {
                continue;
            }
            let read = serde_json::from_str(text).map_err(|error| wrong(text, &error));
            read.and_then(|line| snapshot.add(line))
                .map_err(|reason| FeedError::Line {
                    line: index + 1,
                    reason,
                })?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Rule(rule) => {
                let rule = rule.into_rule(&self.certificates)?;
                self.rules.push(rule);
            }
            Line::Certificate(certificate) => {
                let shown = certificate.into_shown();
                let key = shown.secret.clone();
                ServerCertificate::from_pem(&shown.chain_pem, &shown.key_pem)
                    .map_err(|why| format!("certificate {key}: {why}"))?;
                add_once(&mut self.certificates, "certificate", key, Arc::new(shown))?;
            }
            Line::Service(service) => {
                let key = Key::new(service.namespace.as_str(), service.name.as_str());
                add_once(&mut self.services, "service", key, service.into_backend())?;
            }
            Line::Revision(revision) => {
                let key = Key::new(revision.namespace.as_str(), revision.name.as_str());
                add_once(&mut self.revisions, "revision", key, revision.into_fed())?;
            }
            Line::Gone(_) | Line::Version(_) => {
                return Err("what is gone, and versions, are told over a socket only".to_owned());
            }
        }
        Ok(())
    }

    /// Takes over one line of a feed over a socket. Answers whether all is told that makes up a version.
    pub(super) fn take(&mut self, text: &str) -> Result<bool, String> {
        let line: Line = serde_json::from_str(text).map_err(|error| wrong(text, &error))?;
        match line {
            Line::Rule(rule) => self.rules.push(rule.into_rule(&self.certificates)?),
            // Understood when it was taken from its Secret, and again when it is first shown.
            Line::Certificate(certificate) => {
                let shown = certificate.into_shown();
                self.certificates
                    .insert(shown.secret.clone(), Arc::new(shown));
            }
            Line::Service(service) => {
                let key = Key::new(service.namespace.as_str(), service.name.as_str());
                self.services.insert(key, service.into_backend());
            }
            Line::Revision(revision) => {
                let key = Key::new(revision.namespace.as_str(), revision.name.as_str());
                self.revisions.insert(key, revision.into_fed());
            }
            Line::Gone(Gone::Rules) => self.rules.clear(),
            Line::Gone(Gone::Certificate(name)) => {
                self.certificates.remove(&name.key());
            }
            Line::Gone(Gone::Service(name)) => {
                self.services.remove(&name.key());
            }
            Line::Gone(Gone::Revision(name)) => {
                self.revisions.remove(&name.key());
            }
            Line::Version(_) => return Ok(true),
        }
        Ok(false)
    }

    /// The lines that make this of `before`, for a feed over a socket.
    pub(super) fn lines_since(&self, before: &Self) -> String {
        let mut text = String::new();
        let mut add = |line: Line| {
            // Names and numbers always serialize.
            if let Ok(line) = serde_json::to_string(&line) {
                text.push_str(&line);
                text.push('\n');
            }
        };
        for (key, service) in &self.services {
            if before.services.get(key) != Some(service) {
                add(Line::Service(Service::of(key, service)));
            }
        }
        for (key, revision) in &self.revisions {
            if before.revisions.get(key) != Some(revision) {
                add(Line::Revision(Box::new(Revision::of(key, revision))));
            }
        }
        let (shown, shown_before) = (certificates(&self.rules), certificates(&before.rules));
        for (key, certificate) in &shown {
            if shown_before.get(key) != Some(certificate) {
                add(Line::Certificate(Certificate::of(certificate)));
            }
        }
        if self.rules != before.rules {
            if !before.rules.is_empty() {
                add(Line::Gone(Gone::Rules));
            }
            for rule in &self.rules {
                add(Line::Rule(Rule::of(rule)));
            }
        }
        for key in shown_before.keys() {
            if !shown.contains_key(key) {
                add(Line::Gone(Gone::Certificate(Name::of(key))));
            }
        }
        for key in before.services.keys() {
            if !self.services.contains_key(key) {
                add(Line::Gone(Gone::Service(Name::of(key))));
            }
        }
        for key in before.revisions.keys() {
            if !self.revisions.contains_key(key) {
                add(Line::Gone(Gone::Revision(Name::of(key))));
            }
        }
        add(Line::Version(self.version));
        text
    }
}

/// The certificates that rules are shown with, by Secret.
fn certificates(rules: &[IngressRule]) -> BTreeMap<&Key, &Shown> {
    let all = rules.iter().flat_map(|rule| &rule.certificates);
    all.map(|shown| (&shown.secret, &**shown)).collect()
}

/// What is wrong with a line. The words of one with a private key in it are never repeated.
fn wrong(line: &str, error: &serde_json::Error) -> String {
    if line.contains("PRIVATE") {
        let column = error.column();
        return format!("it is not a line as the documentation has it, at column {column}");
    }
    error.to_string()
}

fn add_once<V>(map: &mut BTreeMap<Key, V>, what: &str, key: Key, value: V) -> Result<(), String> {
    match map.entry(key) {
        Entry::Vacant(vacant) => {
            vacant.insert(value);
            Ok(())
        }
        Entry::Occupied(occupied) => Err(format!("{what} {} has a line already", occupied.key())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_feed_is_understood_line_by_line() {
        let text = r#"
{"rule":{"namespace":"ns","ingress":"a","hosts":["a.test"],"hash":"h","paths":[{"splits":[{"serviceNamespace":"ns","serviceName":"one","servicePort":80,"appendHeaders":{"Knative-Serving-Revision":"one"}}]}]}}
{"service":{"namespace":"ns","name":"one","ports":[{"port":80,"addresses":["10.0.0.1:8012"]},{"port":81,"name":"h2c","addresses":[]}]}}

{"revision":{"namespace":"ns","name":"one","timeoutSeconds":300,"containerConcurrency":2,"pods":[{"name":"p","address":"10.0.0.2:8012","ready":false}],"activators":["10.0.0.9","10.0.0.8"]}}
"#;
        let snapshot = Snapshot::parse(text, 7).expect("a feed");
        let key = Key::new("ns", "one");
        assert_eq!(snapshot.rules[0].paths[0].splits[0].percent, 100);
        assert_eq!(snapshot.services[&key].h2c_ports, [81]);
        let revision = &snapshot.revisions[&key];
        assert_eq!(revision.timeout, Duration::from_secs(300));
        assert!(revision.activators.is_sorted());
        assert!(revision.pods.values().all(|pod| !pod.ready));
        assert_eq!(snapshot.version, 7);
    }

    const ALL: &str = r#"
{"rule":{"namespace":"ns","ingress":"a","hosts":["a.test"],"visibility":"ClusterLocal","httpOption":"Redirected","hash":"h","paths":[{"path":"/x","headers":{"a":"b"},"appendHeaders":{"c":"d"},"rewriteHost":"e","splits":[{"serviceNamespace":"ns","serviceName":"one","servicePort":80,"percent":40},{"serviceNamespace":"ns","serviceName":"two","servicePort":80,"percent":60,"appendHeaders":{"f":"g"}}]}]}}
{"rule":{"namespace":"ns","ingress":"a","hosts":["b.test"],"paths":[]}}
{"service":{"namespace":"ns","name":"one","ports":[{"port":80,"addresses":["10.0.0.1:8012"]},{"port":81,"name":"h2c","addresses":[]}]}}
{"service":{"namespace":"ns","name":"two","ports":[]}}
{"revision":{"namespace":"ns","name":"one","configuration":"c","timeoutSeconds":300,"responseStartTimeoutSeconds":3,"idleTimeoutSeconds":4,"containerConcurrency":2,"pods":[{"name":"p","address":"10.0.0.2:8012","ready":false}],"activators":["10.0.0.8","10.0.0.9"],"waitForReadiness":true}}
"#;

    fn told(from: &Snapshot, to: &Snapshot) -> Snapshot {
        let mut heard = from.clone();
        let lines = to.lines_since(from);
        let whole: Vec<bool> = lines
            .lines()
            .map(|line| heard.take(line).expect(line))
            .collect();
        let last = whole.len() - 1;
        assert!(
            whole
                .iter()
                .enumerate()
                .all(|(at, whole)| *whole == (at == last))
        );
        heard.version = to.version;
        heard
    }

    #[test]
    fn what_is_told_over_a_socket_makes_the_same_snapshot() {
        let all = Snapshot::parse(ALL, 3).expect("a feed");
        let nothing = Snapshot::default();
        let mut fewer = all.clone();
        fewer.rules.remove(0);
        fewer.services.remove(&Key::new("ns", "two"));
        fewer.version = 4;
        let mut other = all.clone();
        for revision in other.revisions.values_mut() {
            revision.pods.clear();
        }
        other.rules.reverse();
        let steps = [&nothing, &all, &fewer, &other, &nothing];
        for pair in steps.windows(2) {
            assert_eq!(told(pair[0], pair[1]), *pair[1]);
        }
        assert_eq!(all.lines_since(&all), "{\"version\":3}\n");
    }

    #[test]
    fn the_first_wrong_line_is_named() {
        let service = r#"{"service":{"namespace":"ns","name":"one","ports":[]}}"#;
        for (text, words) in [
            ("{}".to_owned(), &["line 1 of the feed: "][..]),
            (format!("{service}\nnonsense"), &["line 2 of the feed: "]),
            (
                format!("{service}\n\n{service}"),
                &["line 3", "service ns/one has a line already"],
            ),
            (r#"{"gateway":{}}"#.to_owned(), &["line 1", "gateway"]),
            (r#"{"gone":"rules"}"#.to_owned(), &["line 1", "socket"]),
            (r#"{"version":1}"#.to_owned(), &["line 1", "socket"]),
            (
                r#"{"service":{"namespace":"ns","name":"one","ports":[],"prots":[]}}"#.to_owned(),
                &["line 1", "prots"],
            ),
            (
                r#"{"revision":{"namespace":"ns","name":"one","pods":[]}}"#.to_owned(),
                &["line 1", "timeoutSeconds"],
            ),
            (
                r#"{"rule":{"namespace":"ns","ingress":"a","hosts":["a.test"],"tls":[{"secretNamespace":"ns","secretName":"s"}],"paths":[]}}"#
                    .to_owned(),
                &["line 1", "certificate ns/s has no line before this one"],
            ),
            (
                r#"{"certificate":{"namespace":"ns","name":"s","tls.crt":"garbage","tls.key":"SECRET"}}"#.to_owned(),
                &["line 1", "certificate ns/s: tls.crt: it holds no certificate"],
            ),
            (
                r#"{"certificate":{"namespace":"ns","name":"s","tls.crt":"garbage","tls.key":7}}"#.to_owned(),
                &["line 1", "expected a string"],
            ),
            (
                r#"{"certificate":"-----BEGIN PRIVATE KEY-----SECRET"}"#.to_owned(),
                &["line 1", "column"],
            ),
        ] {
            let error = Snapshot::parse(&text, 1).expect_err(&text).to_string();
            assert!(
                words.iter().all(|word| error.contains(word)),
                "{text}: {error}"
            );
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn certificates_are_named_by_the_rules_that_show_them() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let line = serde_json::json!({"certificate": {"namespace": "ns", "name": "s",
            "tls.crt": made.self_signed(&key).unwrap().pem(), "tls.key": key.serialize_pem()}});
        let rule = r#"{"rule":{"namespace":"ns","ingress":"a","hosts":["a.test"],"tls":[{"secretNamespace":"ns","secretName":"s"}],"paths":[]}}"#;
        let snapshot = Snapshot::parse(&format!("{line}\n{rule}"), 1).expect("a feed");
        assert_eq!(
            snapshot.rules[0].certificates[0].secret,
            Key::new("ns", "s")
        );
        let printed = format!("{snapshot:?}");
        assert!(!printed.contains("PRIVATE KEY"), "{printed}");
        // The same over a socket, where a certificate is told once, anew when it changes, and taken back.
        let (nothing, mut changed) = (Snapshot::default(), snapshot.clone());
        let mut other = Shown::clone(&snapshot.rules[0].certificates[0]);
        other.key_pem = b"another"[..].into();
        let other = Arc::new(other);
        changed.rules[0].certificates = vec![other.clone()];
        changed.certificates.insert(Key::new("ns", "s"), other);
        let mut plain = snapshot.clone();
        plain.rules[0].certificates.clear();
        plain.certificates.clear();
        for pair in [&nothing, &snapshot, &changed, &plain, &nothing].windows(2) {
            assert_eq!(told(pair[0], pair[1]), *pair[1]);
        }
    }
}
