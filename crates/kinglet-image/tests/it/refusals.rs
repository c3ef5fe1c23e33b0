//! Pulls that fail: what is said, and that nothing is left behind.

use std::time::Duration;

use kinglet_image::{Credentials, ImageError, PullPolicy};

use crate::content::{Folder, gzip, image, tar};
use crate::registry::{Mood, Registry};

async fn world() -> (Folder, Registry) {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let noise: String = (0..200_000_u32)
        .map(|number| u8::try_from((number.wrapping_mul(2_654_435_761) >> 13) % 26))
        .map(|letter| char::from(b'a' + letter.expect("below 26")))
        .collect();
    registry.push("app", "v1", &image("x", &[gzip(&tar(&[("a", &noise)]))]));
    (folder, registry)
}

#[tokio::test]
async fn wrong_content_is_refused_and_not_kept() {
    let (folder, registry) = world().await;
    registry.mood(Mood::Lies);
    let (images, name) = (folder.images(&registry.listed()), registry.name("app:v1"));
    let error = images
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect_err("lies")
        .to_string();
    assert!(error.contains("digest") && error.contains(&name), "{error}");
    assert_eq!(
        (folder.layers(), folder.scratch(), images.list().len()),
        (0, 0, 0)
    );
    registry.mood(Mood::Fine);
    images
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect("the truth");
}

#[tokio::test]
async fn refusals_name_the_image_and_the_answer() {
    let (folder, registry) = world().await;
    let conf = registry.listed() + "[[registry]]\nprefix = \"127.0.0.1:1\"\n";
    let images = folder.images(&conf);
    for (mood, name, wanted) in [
        (Mood::Fine, "app:v9", "manifest unknown"),
        (Mood::Answers(500), "app:v1", "500"),
        (Mood::Answers(403), "app:v1", "403"),
        (Mood::Hangs, "app:v1", "did not answer"),
        (Mood::StopsHalfway, "app:v1", "downloading layer"),
    ] {
        registry.mood(mood);
        let name = registry.name(name);
        let began = tokio::time::Instant::now();
        let error = images
            .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
            .await
            .expect_err("refused");
        assert!(matches!(error, ImageError::Pull { .. }) && error.reason() == "ErrImagePull");
        let error = error.to_string();
        assert!(
            error.contains(&name) && error.contains(wanted),
            "{mood:?}: {error}"
        );
        assert!(began.elapsed() < Duration::from_secs(5), "{mood:?}");
        if mood != Mood::StopsHalfway {
            let error = images
                .resolve_digest(&name, &Credentials::default())
                .await
                .expect_err("refused")
                .to_string();
            assert!(
                error.contains(&name) && error.contains(wanted),
                "{mood:?}: {error}"
            );
        }
        assert_eq!((folder.layers(), folder.scratch()), (0, 0), "{mood:?}");
    }
    let error = images
        .ensure(
            "127.0.0.1:1/app:v1",
            PullPolicy::IfNotPresent,
            &Credentials::default(),
        )
        .await
        .expect_err("closed")
        .to_string();
    assert!(error.contains("refused"), "{error}");
    let error = images
        .ensure(
            "nowhere.invalid/app:v1",
            PullPolicy::IfNotPresent,
            &Credentials::default(),
        )
        .await
        .expect_err("no host")
        .to_string();
    assert!(error.contains("nowhere.invalid/app:v1"), "{error}");
}

#[tokio::test]
async fn what_is_no_container_image_is_refused_in_words() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let mut chart = image("x", &[b"not a tar".to_vec()]);
    chart.manifest = String::from_utf8(chart.manifest)
        .expect("text")
        .replace(
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.cncf.helm.chart.content.v1",
        )
        .into_bytes();
    registry.push("chart", "v1", &chart);
    registry.push("garbage", "v1", &image("x", &[vec![7; 2048]]));
    let images = folder.images(&registry.listed());
    let error = images
        .ensure(
            &registry.name("chart:v1"),
            PullPolicy::IfNotPresent,
            &Credentials::default(),
        )
        .await
        .expect_err("chart")
        .to_string();
    assert!(error.contains("not a container image"), "{error}");
    let error = images
        .ensure(
            &registry.name("garbage:v1"),
            PullPolicy::IfNotPresent,
            &Credentials::default(),
        )
        .await
        .expect_err("garbage")
        .to_string();
    assert!(error.contains("unpacking layer"), "{error}");
    assert_eq!((folder.layers(), folder.scratch()), (0, 0));
    for name in ["", "UPPER/case:v1", "a b", "app@sha256:short"] {
        let error = images
            .ensure(name, PullPolicy::IfNotPresent, &Credentials::default())
            .await
            .expect_err(name);
        assert_eq!(error.reason(), "InvalidImageName", "{name}");
    }
}

#[tokio::test]
async fn a_cancelled_pull_leaves_nothing_and_blocks_nobody() {
    let (folder, registry) = world().await;
    registry.mood(Mood::StopsHalfway);
    let (images, name) = (folder.images(&registry.listed()), registry.name("app:v1"));
    let credentials = Credentials::default();
    let pull = images.ensure(&name, PullPolicy::IfNotPresent, &credentials);
    assert!(
        tokio::time::timeout(Duration::from_millis(200), pull)
            .await
            .is_err(),
        "still under way"
    );
    assert_eq!(
        (registry.asked("/blobs/"), folder.layers(), folder.scratch()),
        (2, 0, 0)
    );
    registry.mood(Mood::Fine);
    images
        .ensure(&name, PullPolicy::IfNotPresent, &credentials)
        .await
        .expect("the next one");
}

#[tokio::test]
async fn who_waited_for_a_pull_that_failed_does_not_repeat_it() {
    let (folder, registry) = world().await;
    registry.mood(Mood::Hangs);
    let (images, name, credentials) = (
        folder.images(&registry.listed()),
        registry.name("app:v1"),
        Credentials::default(),
    );
    let began = tokio::time::Instant::now();
    let pulls = (0..20).map(|_| images.ensure(&name, PullPolicy::IfNotPresent, &credentials));
    for outcome in futures_util::future::join_all(pulls).await {
        assert!(
            outcome
                .expect_err("hangs")
                .to_string()
                .contains("did not answer")
        );
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
