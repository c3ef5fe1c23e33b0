//! Whose names are signed, when a Secret is good enough, what is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kinglet_process::pki::Browsers;
use kinglet_reconcile::{Next, Plan, Verb};
use serde_json::json;

use super::decide::{CertificateObserved, Examined, decide, examine};

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct World {
    observed: CertificateObserved,
    browsers: Browsers,
    _folder: Folder,
}

impl World {
    fn new(test: &str, names: &[&str], hosts: &[&str]) -> Self {
        let folder = format!("kinglet-certificate-{test}-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(folder));
        kinglet_process::private::directory(&folder.0).unwrap();
        let certificate = serde_json::from_value(json!({
            "metadata": {"name": "route-u", "namespace": "a", "uid": "c", "generation": 3},
            "spec": {"dnsNames": names, "secretName": "s", "domain": "example.com"},
        }))
        .unwrap();
        Self {
            browsers: Browsers::in_folder(&folder.0),
            observed: CertificateObserved {
                certificate: Arc::new(certificate),
                secret: None,
                hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
                domains: vec!["example.com".to_owned()],
                now: "2026-06-01T00:00:00Z".parse().unwrap(),
            },
            _folder: folder,
        }
    }

    fn step(&mut self) -> (Examined, Plan) {
        let now = self.observed.now;
        let examined = examine(&self.observed, |pem, host, domains| {
            self.browsers.has_signed(pem, host, domains, now)
        });
        let issued = (examined == Examined::Due).then(|| {
            let names = &self.observed.certificate.spec.dns_names;
            let signed = self.browsers.issue(names, &self.observed.domains, now);
            signed.map_err(|error| error.to_string())
        });
        let plan = decide(&self.observed, examined.clone(), issued);
        for write in plan.writes().filter(|write| write.kind == "Secret") {
            let secret: Secret = serde_json::from_value(write.body.clone()).unwrap();
            self.observed.secret = Some(Arc::new(secret));
        }
        (examined, plan)
    }
}

fn ready(plan: &Plan) -> (String, String) {
    let status = plan
        .writes()
        .find(|write| write.verb == Verb::Status)
        .unwrap();
    let ready = &status.body["status"]["conditions"][0];
    assert_eq!(ready["type"], "Ready");
    assert_eq!(status.body["status"]["observedGeneration"], 3);
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message"))
}

#[test]
fn a_certificate_is_signed_kept_and_renewed_in_time() {
    let mut world = World::new("life", &["x.a.example.com"], &[]);
    let (_, plan) = world.step();
    assert_eq!(ready(&plan).0, "True");
    let status = plan
        .writes()
        .find(|write| write.verb == Verb::Status)
        .unwrap();
    assert_eq!(status.body["status"]["notAfter"], "2026-08-30T00:00:00Z");
    let secret = world.observed.secret.clone().unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let labels = secret.metadata.labels.clone().unwrap();
    assert_eq!(
        labels["networking.internal.knative.dev/certificate-uid"],
        "c"
    );
    let fields: BTreeSet<String> = secret.data.clone().unwrap().into_keys().collect();
    assert_eq!(
        fields,
        ["ca.crt", "tls.crt", "tls.key"].map(str::to_owned).into()
    );
    for days in [1, 30, 58] {
        world.observed.now = "2026-06-01T00:00:00Z".parse().unwrap();
        world.observed.now += jiff::SignedDuration::from_hours(24 * days);
        let (examined, plan) = world.step();
        assert!(
            matches!(examined, Examined::Good { .. }),
            "after {days} days"
        );
        assert!(plan.writes().all(|write| write.kind != "Secret"));
        assert!(matches!(plan.next, Next::After(_)), "it is looked at again");
    }
    world.observed.now += jiff::SignedDuration::from_hours(24 * 3);
    let (examined, _) = world.step();
    assert_eq!(examined, Examined::Due, "two thirds are over");
    let renewed = world.observed.secret.clone().unwrap();
    assert_ne!(renewed.data, secret.data);
    assert!(matches!(world.step().0, Examined::Good { .. }));
    // What somebody has spoilt is signed again.
    let mut spoilt = Secret::clone(&renewed);
    spoilt.data.as_mut().unwrap().remove("tls.key");
    world.observed.secret = Some(Arc::new(spoilt));
    assert_eq!(world.step().0, Examined::Due);
    // So is what another authority signed, because somebody removed its files.
    world.browsers = Browsers::in_folder(&world._folder.0);
    std::fs::remove_file(world.browsers.certificate_path()).unwrap();
    std::fs::remove_file(world.browsers.certificate_path().with_extension("key")).unwrap();
    assert_eq!(world.step().0, Examined::Due);
    assert!(matches!(world.step().0, Examined::Good { .. }));
}

#[test]
fn only_names_of_the_namespace_are_signed() {
    for (names, hosts, words) in [
        (&["x.a.example.com"][..], &[][..], None),
        (&["*.a.example.com"], &[], None),
        (&["own.example.com"], &["own.example.com"], None),
        (
            &["x.b.example.com"],
            &[],
            Some("no Route of namespace a has host x.b.example.com"),
        ),
        (
            &["x.a.example.com", "x.b.example.com"],
            &[],
            Some("x.b.example.com"),
        ),
        (
            &["own.example.com"],
            &["other.example.com"],
            Some("own.example.com"),
        ),
        (&["a.example.com"], &[], Some("no Route")),
        (&["x.a.example.org"], &[], Some("no Route")),
        (
            &["own.example.org"],
            &["own.example.org"],
            Some("outside the domains"),
        ),
        (&["x y.a.example.com"], &[], Some("is no host name")),
        (&["*"], &[], Some("is no host name")),
        (&[&"x.".repeat(200)], &[], Some("is no host name")),
    ] {
        let mut world = World::new("names", names, hosts);
        let (_, plan) = world.step();
        let (status, message) = ready(&plan);
        match words {
            None => assert_eq!(status, "True", "{names:?}: {message}"),
            Some(words) => {
                assert_eq!(status, "False", "{names:?}");
                assert!(message.contains(words), "{names:?}: {message}");
                assert!(world.observed.secret.is_none());
            }
        }
    }
}

#[test]
fn a_secret_of_somebody_else_is_left_alone() {
    let mut world = World::new("foreign", &["x.a.example.com"], &[]);
    let mut secret = Secret::default();
    secret.metadata.name = Some("s".to_owned());
    world.observed.secret = Some(Arc::new(secret));
    let (_, plan) = world.step();
    let (status, message) = ready(&plan);
    assert_eq!(status, "False");
    assert!(message.contains("made by somebody else"), "{message}");
    assert!(plan.writes().all(|write| write.kind != "Secret"));
}
