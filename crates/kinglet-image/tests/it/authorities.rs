//! Registries over TLS, whose certificates an authority signed that only the operator knows.

use kinglet_image::{Progress, PullOptions, Requester};
use kinglet_process::pki::Pki;

use crate::content::{Folder, image, tar};
use crate::registry::{Mood, Registry};

fn with_authority(pem: &str) -> PullOptions {
    PullOptions {
        authorities: vec![pem.as_bytes().to_vec()],
        requester: Requester::Operator,
        ..PullOptions::default()
    }
}

fn authority(folder: &Folder, name: &str) -> Pki {
    let clock = kinglet_process::Clock::system();
    Pki::open(&folder.0.join(name), clock.now()).expect("an authority")
}

#[tokio::test]
async fn the_named_authority_and_no_other_is_trusted() {
    let folder = Folder::new();
    let (ours, other) = (authority(&folder, "ours"), authority(&folder, "other"));
    let registry = Registry::start_tls(&ours).await;
    registry.push("app", "v1", &image("x", &[tar(&[("a", "1")])]));
    let (images, name) = (folder.images(""), registry.name("app:v1"));
    let error = images
        .pull_with(&name, &with_authority(&other.ca_pem), &Progress::none())
        .await
        .expect_err("another authority")
        .to_string();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(registry.asked(""), 0);
    // One file may hold several.
    let both = format!("{}{}", other.ca_pem, ours.ca_pem);
    for pem in [&ours.ca_pem, &both] {
        images
            .pull_with(&name, &with_authority(pem), &Progress::none())
            .await
            .expect("trusted");
    }
}

/// A registry on loopback is asked over plain HTTP otherwise, and its certificate not looked at.
#[tokio::test]
async fn who_names_an_authority_never_gets_an_unchecked_answer() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let authority = authority(&folder, "ours");
    registry.push("app", "v1", &image("x", &[tar(&[("a", "1")])]));
    folder
        .images(&registry.listed())
        .pull_with(
            &registry.name("app:v1"),
            &with_authority(&authority.ca_pem),
            &Progress::none(),
        )
        .await
        .expect_err("plain HTTP");
    assert_eq!(registry.asked("GET"), 0);
}

/// A registry that sends blobs elsewhere, as the large ones do: the authority is for all of the pull.
#[tokio::test]
async fn a_redirect_of_the_operators_pull_is_followed() {
    let folder = Folder::new();
    let ours = authority(&folder, "ours");
    let (registry, store) = (Registry::start_tls(&ours).await, Registry::start().await);
    let built = image("x", &[tar(&[("a", "1")])]);
    registry.push("app", "v1", &built);
    store.push("app", "v1", &built);
    registry.mood(Mood::SendsTo(format!("http://{}", store.host()).leak()));
    folder
        .images("")
        .pull_with(
            &registry.name("app:v1"),
            &with_authority(&ours.ca_pem),
            &Progress::none(),
        )
        .await
        .expect("followed");
}

#[tokio::test]
async fn an_authority_must_be_a_certificate() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    registry.push("app", "v1", &image("x", &[tar(&[("a", "1")])]));
    let (images, name) = (folder.images(""), registry.name("app:v1"));
    let garbage = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n";
    for pem in ["", "hello", garbage] {
        let error = images
            .pull_with(&name, &with_authority(pem), &Progress::none())
            .await
            .expect_err(pem)
            .to_string();
        assert!(error.contains("certificate authority"), "{pem}: {error}");
    }
    assert_eq!(registry.asked(""), 0);
}
