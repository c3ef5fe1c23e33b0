//! Secrets good and bad, absent, changed and far too many; which rule shows which entry.

use std::cell::RefCell;
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kinglet_api::networking::Ingress;
use kinglet_process::pki::Pki;
use serde_json::{Value, json};

use super::*;
use crate::ingress::decide::{decide, with_faults};
use crate::ingress::publish::ProgrammedState;
use crate::ingress::{GatewayNames, rules};

/// Fields of a Secret.
type Data<'a> = &'a [(&'a str, &'a [u8])];

/// Secrets as a cache has them, and what is shown.
struct World {
    certificates: Certificates,
    secrets: RefCell<BTreeMap<Key, Arc<Secret>>>,
    pki: Pki,
    now: Timestamp,
    _folder: Folder,
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl World {
    fn new(name: &str) -> Self {
        let folder = format!("kinglet-ingress-tls-{name}-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(folder));
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        Self {
            certificates: Certificates::default(),
            secrets: RefCell::default(),
            pki: Pki::open(&folder.0, now).unwrap(),
            now,
            _folder: folder,
        }
    }

    /// A certificate for 90 days, and its key.
    fn pair(&self) -> (Vec<u8>, Vec<u8>) {
        let made = self
            .pki
            .server(&["x.example.com".to_owned()], &[], self.now);
        let made = made.unwrap();
        (made.certificate_pem.into_bytes(), made.key_pem.into_bytes())
    }

    fn put(&self, namespace: &str, name: &str, data: &[(&str, &[u8])]) {
        let mut secrets = self.secrets.borrow_mut();
        let version = secrets.len() + 1000;
        let key = Key::new(namespace, name);
        let known = secrets
            .get(&key)
            .and_then(|secret| secret.metadata.resource_version.clone());
        let version = known.map_or(version, |known| known.parse::<usize>().unwrap() + 1_000_000);
        let mut secret = Secret::default();
        secret.metadata.resource_version = Some(version.to_string());
        secret.data = Some(
            data.iter()
                .map(|(field, bytes)| ((*field).to_owned(), ByteString(bytes.to_vec())))
                .collect(),
        );
        secrets.insert(key, Arc::new(secret));
    }

    fn good(&self, name: &str) -> Vec<u8> {
        let (chain, key) = self.pair();
        self.put("a", name, &[("tls.crt", &chain), ("tls.key", &key)]);
        chain
    }

    fn look(&self, ingress: &Ingress, look: Look) -> Resolved {
        let key = kinglet_reconcile::key_of(ingress);
        let secrets = self.secrets.borrow();
        self.certificates
            .resolve(&key, ingress, look, self.now, |secret| {
                secrets.get(secret).cloned()
            })
    }
}

/// An Ingress with one external rule per list of hosts, and these entries.
fn ingress(name: &str, rules: &[&[&str]], tls: &[(&[&str], &str)]) -> Ingress {
    let rules: Vec<Value> = rules
        .iter()
        .map(|hosts| json!({"hosts": hosts, "visibility": "ExternalIP", "http": {"paths": []}}))
        .collect();
    let tls: Vec<Value> = tls
        .iter()
        .map(
            |(hosts, secret)| json!({"hosts": hosts, "secretName": secret, "secretNamespace": "a"}),
        )
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "generation": 1},
        "spec": {"rules": rules, "tls": tls},
    }))
    .unwrap()
}

fn names(all: &[Option<Arc<Certificate>>]) -> Vec<Option<&str>> {
    all.iter()
        .map(|one| one.as_ref().map(|one| &*one.secret.name))
        .collect()
}

#[test]
fn an_entry_is_for_the_rules_whose_hosts_it_lists_all() {
    let object = ingress(
        "x",
        &[&["a", "b"], &["a"], &["c"], &[], &["a"]],
        &[
            (&["b", "a"], "both"),
            (&["a"], "one"),
            (&["a", "c", "victim"], "more"),
            (&[], "none"),
        ],
    );
    assert_eq!(
        entries_by_rule(&object),
        [vec![0], vec![0, 1, 2], vec![2], vec![], vec![]],
        "a rule without hosts ends the search"
    );
    let world = World::new("entries");
    for name in ["both", "one", "more"] {
        world.good(name);
    }
    let resolved = world.look(&object, Look::Close);
    assert_eq!(
        names(&resolved.certificates),
        [Some("both"), Some("one"), Some("more"), None]
    );
    assert!(
        resolved.faults.is_empty(),
        "what no rule uses is not asked for"
    );
    let rules = rules::of(&object, &resolved.certificates, |_, _| None).unwrap();
    let shown: Vec<Vec<&str>> = rules
        .iter()
        .map(|rule| {
            rule.certificates
                .iter()
                .map(|one| &*one.secret.name)
                .collect()
        })
        .collect();
    assert_eq!(
        shown,
        [
            vec!["both"],
            vec!["both", "one", "more"],
            vec!["more"],
            vec![],
            vec![]
        ]
    );
    // A host that the Ingress has no rule for is shown nothing, whatever an entry lists.
    let table = kinglet_decide::route::RouteTable::build(1, rules);
    let visibility = kinglet_decide::route::Visibility::External;
    assert!(
        table
            .certificates(visibility)
            .all(|(host, _)| host != "victim")
    );
}

#[test]
fn what_is_wrong_is_said_and_what_was_shown_before_goes_on() {
    let world = World::new("wrong");
    let object = ingress("x", &[&["x.example.com"]], &[(&["x.example.com"], "s")]);
    let missing = world.look(&object, Look::Close);
    assert_eq!(names(&missing.certificates), [None]);
    assert!(
        missing.faults[0].starts_with("spec.tls[0]: Secret a/s: it is not there"),
        "{missing:?}"
    );
    assert_eq!(
        world.certificates.ingresses_of(&Key::new("a", "s")),
        [Key::new("a", "x")]
    );
    let chain = world.good("s");
    let good = world.look(&object, Look::Close);
    assert!(good.faults.is_empty(), "{good:?}");
    assert_eq!(
        good.changes_at,
        Some("2026-08-30T00:00:00Z".parse().unwrap())
    );
    let (_, other_key) = world.pair();
    let cases: &[(Data<'_>, &str)] = &[
        (
            &[("tls.cert", &chain), ("tls.key", &other_key)],
            "it has no tls.crt",
        ),
        (&[("tls.crt", &chain)], "it has no tls.key"),
        (
            &[("tls.crt", b"garbage"), ("tls.key", &other_key)],
            "tls.crt: it holds no certificate",
        ),
        (
            &[("tls.crt", &chain), ("tls.key", &other_key)],
            "tls.key: it is not the key",
        ),
        (
            &[
                ("tls.crt", &[b'x'; CHAIN_BYTES_MAX + 1]),
                ("tls.key", &other_key),
            ],
            "longer than 64 kB",
        ),
    ];
    for (data, words) in cases {
        world.put("a", "s", data);
        for look in ["first", "second"] {
            let bad = world.look(&object, Look::Close);
            assert!(bad.faults[0].contains(words), "{look} {words}: {bad:?}");
            let shown = bad.certificates[0].as_ref().unwrap();
            assert_eq!(*shown.chain_pem, *chain, "{words}");
            let printed = format!("{bad:?}");
            assert!(!printed.contains("PRIVATE"), "{printed}");
        }
    }
    world.secrets.borrow_mut().clear();
    let gone = world.look(&object, Look::Close);
    assert!(gone.certificates[0].is_some() && gone.faults[0].contains("not there"));
    // The Ingress says it; its other faults come first.
    let outcome = with_faults(Ok(ProgrammedState::InForce), &gone.faults);
    let plan = decide(
        &object,
        &outcome,
        &GatewayNames::new("cluster.local"),
        world.now,
    );
    let status = &plan.writes().next().unwrap().body["status"];
    let ready = status["conditions"].as_array().unwrap();
    let ready = ready.iter().find(|one| one["type"] == "Ready").unwrap();
    assert_eq!(
        (ready["status"].as_str(), ready["reason"].as_str()),
        (Some("Unknown"), Some("ReconcileIngressFailed"))
    );
    assert!(
        ready["message"].as_str().unwrap().contains("Secret a/s"),
        "{ready}"
    );
}

#[test]
fn an_expired_certificate_is_said_when_its_time_comes() {
    let mut world = World::new("expired");
    let object = ingress("x", &[&["x.example.com"]], &[(&["x.example.com"], "s")]);
    world.good("s");
    let good = world.look(&object, Look::Close);
    world.now = good.changes_at.unwrap() + jiff::SignedDuration::from_secs(1);
    let late = world.look(&object, Look::Close);
    assert!(
        late.faults[0].contains("has expired at 2026-08-30"),
        "{late:?}"
    );
    assert!(
        late.certificates[0].is_some(),
        "clients may decide for themselves"
    );
    world.good("s");
    assert!(
        world.look(&object, Look::Close).faults.is_empty(),
        "a new one is taken"
    );
}

#[test]
fn a_quick_look_takes_what_there_is_and_a_close_one_knows_better() {
    let world = World::new("quick");
    let object = ingress("x", &[&["x.example.com"]], &[(&["x.example.com"], "s")]);
    world.put(
        "a",
        "s",
        &[("tls.crt", b"garbage"), ("tls.key", b"garbage")],
    );
    let quick = world.look(&object, Look::Quick);
    assert!(quick.faults.is_empty() && quick.certificates[0].is_some());
    let close = world.look(&object, Look::Close);
    assert!(close.faults[0].contains("tls.crt"), "{close:?}");
    assert_eq!(names(&close.certificates), [None]);
}

#[test]
fn a_secret_wakes_exactly_its_ingresses() {
    let world = World::new("wakes");
    let key = |name| Key::new("a", name);
    let first = ingress("first", &[&["a"]], &[(&["a"], "s"), (&["b"], "unused")]);
    let second = ingress("second", &[&["b"]], &[(&["b"], "s")]);
    world.look(&first, Look::Close);
    world.look(&second, Look::Close);
    let woken = |secret| world.certificates.ingresses_of(&key(secret));
    assert_eq!(woken("s"), [key("first"), key("second")]);
    assert!(woken("unused").is_empty() && woken("other").is_empty());
    world.look(
        &ingress("first", &[&["a"]], &[(&["a"], "other")]),
        Look::Close,
    );
    assert_eq!(
        (woken("s"), woken("other")),
        (vec![key("second")], vec![key("first")])
    );
    world.certificates.forget(&key("first"));
    world.look(&ingress("second", &[&["b"]], &[]), Look::Close);
    let tables = world.certificates.0.lock();
    assert!(
        tables.secrets.is_empty() && tables.ingresses.is_empty(),
        "nothing is left"
    );
}

#[test]
fn ten_thousand_secrets_have_a_bound_and_leave_room_for_other_namespaces() {
    let world = World::new("many");
    let (chain, private) = world.pair();
    // Comments between certificates are allowed, and cost as much.
    let mut long = chain.clone();
    long.resize(60 * 1024, b'\n');
    let fit = NAMESPACE_BYTES_MAX / (long.len() + private.len());
    assert!((100..279).contains(&fit), "{fit}");
    for at in 0..10_000 {
        let name = format!("s{at}");
        let object = ingress(&name, &[&["x"]], &[(&["x"], &name)]);
        if at < 280 {
            world.put("a", &name, &[("tls.crt", &long), ("tls.key", &private)]);
        }
        let look = if at == 279 { Look::Close } else { Look::Quick };
        let resolved = world.look(&object, look);
        let full = resolved
            .faults
            .iter()
            .any(|why| why.contains("namespace a that Ingresses show have 8 MiB"));
        assert_eq!(
            full,
            (fit..280).contains(&at),
            "{at}: {:?}",
            resolved.faults
        );
    }
    let (bytes, of_namespaces) = {
        let tables = world.certificates.0.lock();
        (tables.bytes, tables.bytes_by_namespace.clone())
    };
    assert!(bytes <= NAMESPACE_BYTES_MAX && of_namespaces.values().sum::<usize>() == bytes);
    world.put("b", "other", &[("tls.crt", &chain), ("tls.key", &private)]);
    let mut other = ingress("other", &[&["y"]], &[(&["y"], "other")]);
    other.spec.tls[0].secret_namespace = "b".to_owned();
    let resolved = world.look(&other, Look::Close);
    assert!(resolved.faults.is_empty(), "{resolved:?}");
    // A place that is given up is taken by the next.
    world.certificates.forget(&Key::new("a", "s0"));
    let again = world.look(
        &ingress("s279", &[&["x"]], &[(&["x"], "s279")]),
        Look::Close,
    );
    assert!(again.faults.is_empty(), "{again:?}");
}
