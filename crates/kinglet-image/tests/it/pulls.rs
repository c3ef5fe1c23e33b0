//! Pulls that succeed: by tag and digest, of lists, compressed, shared, mirrored, authorized, several at once.

use kinglet_image::{Credentials, Progress, ProgressEvent, PullPolicy};

use crate::content::{Folder, gzip, image, list, tar, zstd};
use crate::registry::{Door, Registry};

fn anonymous() -> Credentials {
    Credentials::default()
}

fn user() -> Credentials {
    let mut credentials = Credentials::default();
    credentials
        .add_docker_config(br#"{"auths":{"*.0.0.1":{"username":"wrong","password":""}}}"#)
        .expect("config");
    credentials
}

fn user_of(registry: &Registry) -> Credentials {
    let mut credentials = user();
    let config = format!(
        r#"{{"auths":{{"http://{}/v1/":{{"username":"user","password":"secret"}}}}}}"#,
        registry.host()
    );
    credentials
        .add_docker_config(config.as_bytes())
        .expect("config");
    credentials
}

#[tokio::test]
async fn by_tag_and_by_digest() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let built = image(
        "serve",
        &[
            gzip(&tar(&[("a", "1")])),
            zstd(&tar(&[("b/c", "2")])),
            tar(&[("b/d", "3")]),
        ],
    );
    registry.push("team/app", "v1", &built);
    let images = folder.images(&registry.listed());
    let ready = images
        .ensure(
            &registry.name("team/app:v1"),
            PullPolicy::IfNotPresent,
            &anonymous(),
        )
        .await
        .expect("pull");
    assert_eq!(ready.digest, built.digest());
    assert_eq!(
        (ready.config.cmd.as_slice(), ready.config.user.as_str()),
        (&["serve".to_owned()][..], "7")
    );
    // Topmost first, as overlayfs wants them.
    let texts: Vec<_> = ready
        .layers
        .iter()
        .zip(["b/d", "b/c", "a"])
        .map(|(layer, file)| std::fs::read_to_string(layer.join(file)).expect(file))
        .collect();
    assert_eq!(texts, ["3", "2", "1"]);
    assert_eq!(folder.scratch(), 0);

    let by_digest = registry.name(&format!("team/app@{}", built.digest()));
    let again = images
        .ensure(&by_digest, PullPolicy::Always, &anonymous())
        .await
        .expect("digest");
    assert_eq!(
        (
            again.layers.clone(),
            registry.asked("GET /v2/team/app/manifests")
        ),
        (ready.layers.clone(), 1),
        "a digest that is here asks nobody"
    );
    assert_eq!(
        images
            .resolve_digest(&by_digest, &anonymous())
            .await
            .expect("same"),
        by_digest
    );

    let other = Folder::new();
    let ready = other
        .images(&registry.listed())
        .ensure(&by_digest, PullPolicy::IfNotPresent, &anonymous())
        .await
        .expect("fresh, by digest");
    assert_eq!(ready.digest, built.digest());
}

#[tokio::test]
async fn a_list_leads_to_this_machines_image() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let (amd, arm) = (
        image("amd64", &[tar(&[("a", "amd")])]),
        image("arm64", &[tar(&[("a", "arm")])]),
    );
    let both = list(&[("arm64", &arm), ("amd64", &amd)]);
    for built in [&amd, &arm, &both] {
        registry.push("multi", "v1", built);
    }
    let images = folder.images(&registry.listed());
    let ready = images
        .ensure(
            &registry.name("multi:v1"),
            PullPolicy::IfNotPresent,
            &anonymous(),
        )
        .await
        .expect("pull");
    let mine = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    assert_eq!(ready.config.cmd, [mine]);
    assert_eq!(
        ready.digest,
        both.digest(),
        "the digest that the tag led to"
    );

    registry.push("foreign", "v1", &list(&[("s390x", &arm)]));
    let error = images
        .ensure(
            &registry.name("foreign:v1"),
            PullPolicy::IfNotPresent,
            &anonymous(),
        )
        .await
        .expect_err("no such platform");
    assert!(error.to_string().contains("foreign:v1"), "{error}");
}

#[tokio::test]
async fn a_shared_layer_is_downloaded_once_also_at_the_same_time() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let base = gzip(&tar(&[("base", &"x".repeat(100_000))]));
    let (one, two) = (
        image("one", &[base.clone(), tar(&[("1", "1")])]),
        image("two", &[base, tar(&[("2", "2")])]),
    );
    registry.push("one", "v1", &one);
    registry.push("two", "v1", &two);
    let images = folder.images(&registry.listed());
    let (name_one, name_two, credentials) = (
        registry.name("one:v1"),
        registry.name("two:v1"),
        anonymous(),
    );
    let (first, second) = tokio::join!(
        images.ensure(&name_one, PullPolicy::IfNotPresent, &credentials),
        images.ensure(&name_two, PullPolicy::IfNotPresent, &credentials),
    );
    assert_eq!(
        first.expect("one").layers[1],
        second.expect("two").layers[1]
    );
    assert_eq!((registry.asked(&one.layer(0)), folder.layers()), (1, 3));
}

#[tokio::test]
async fn the_same_image_at_once_is_pulled_once() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    registry.push("app", "v1", &image("x", &[tar(&[("a", "1")])]));
    let (images, name, credentials) = (
        folder.images(&registry.listed()),
        registry.name("app:v1"),
        anonymous(),
    );
    let pulls = (0..20).map(|_| images.ensure(&name, PullPolicy::IfNotPresent, &credentials));
    for outcome in futures_util::future::join_all(pulls).await {
        outcome.expect("pull");
    }
    assert_eq!(
        (
            registry.asked("GET /v2/app/manifests/"),
            registry.asked("/blobs/")
        ),
        (1, 2)
    );
}

#[tokio::test]
async fn mirrors_come_first_and_in_order() {
    let (folder, broken, mirror, origin) = (
        Folder::new(),
        Registry::start().await,
        Registry::start().await,
        Registry::start().await,
    );
    let built = image("x", &[tar(&[("a", "1")])]);
    mirror.push("cache/team/app", "v1", &built);
    origin.push("team/app", "v2", &built);
    let conf = format!(
        "[[registry]]\nprefix=\"hub.test\"\nlocation=\"{}\"\n[[registry.mirror]]\nlocation=\"{}\"\n[[registry.mirror]]\nlocation=\"{}/cache\"",
        origin.host(),
        broken.host(),
        mirror.host()
    );
    let images = folder.images(&conf);
    let ready = images
        .ensure(
            "hub.test/team/app:v1",
            PullPolicy::IfNotPresent,
            &anonymous(),
        )
        .await
        .expect("mirror");
    assert_eq!(
        ready.reference, "hub.test/team/app:v1",
        "stored under the name it was asked by"
    );
    assert!(broken.asked("manifests") > 0 && origin.asked("manifests") == 0);
    images
        .ensure(
            "hub.test/team/app:v2",
            PullPolicy::IfNotPresent,
            &anonymous(),
        )
        .await
        .expect("origin");
    let error = images
        .ensure(
            "hub.test/team/app:v3",
            PullPolicy::IfNotPresent,
            &anonymous(),
        )
        .await
        .expect_err("nowhere")
        .to_string();
    let said = [broken.host(), mirror.host(), origin.host()]
        .iter()
        .all(|host| error.contains(host));
    assert!(
        said && error.contains("hub.test/team/app:v3") && error.contains("manifest unknown"),
        "{error}"
    );
    let error = folder
        .images("[[registry]]\nprefix=\"hub.test\"\nblocked=true")
        .ensure("hub.test/x", PullPolicy::IfNotPresent, &anonymous())
        .await
        .expect_err("blocked");
    assert!(error.to_string().contains("blocked"), "{error}");
}

#[tokio::test]
async fn passwords_and_tokens() {
    for door in [Door::Basic, Door::Token] {
        let (folder, registry) = (Folder::new(), Registry::start().await);
        registry.push(
            "private/app",
            "v1",
            &image("x", &[gzip(&tar(&[("a", "1")]))]),
        );
        registry.door(door);
        let (images, name) = (
            folder.images(&registry.listed()),
            registry.name("private/app:v1"),
        );
        let error = images
            .ensure(&name, PullPolicy::IfNotPresent, &user())
            .await
            .expect_err("nobody")
            .to_string();
        assert!(
            error.contains("not authorized") && error.contains("imagePullSecrets"),
            "{door:?}: {error}"
        );
        let digest = images
            .resolve_digest(&name, &user_of(&registry))
            .await
            .expect("digest");
        let ready = images
            .ensure(&name, PullPolicy::IfNotPresent, &user_of(&registry))
            .await
            .expect("pull");
        assert_eq!(
            digest,
            registry.name(&format!("private/app@{}", ready.digest))
        );
    }
}

#[tokio::test]
async fn policies() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let (old, new) = (
        image("old", &[tar(&[("a", "1")])]),
        image("new", &[tar(&[("a", "2")])]),
    );
    registry.push("app", "latest", &old);
    let (images, name) = (folder.images(&registry.listed()), registry.name("app"));
    let cmd = async |policy| {
        images
            .ensure(&name, policy, &anonymous())
            .await
            .map(|ready| ready.config.cmd[0].clone())
    };
    let error = cmd(PullPolicy::Never).await.expect_err("never");
    assert_eq!(error.reason(), "ErrImageNeverPull");
    assert_eq!(registry.asked(""), 0);
    assert_eq!(cmd(PullPolicy::IfNotPresent).await.expect("pull"), "old");
    registry.push("app", "latest", &new);
    assert_eq!(cmd(PullPolicy::IfNotPresent).await.expect("here"), "old");
    assert_eq!(cmd(PullPolicy::Never).await.expect("here"), "old");
    // A tag that moved is known to a Revision made now; the old one stays for Revisions of before.
    let resolved = images
        .resolve_digest(&name, &anonymous())
        .await
        .expect("digest");
    assert!(resolved.ends_with(&new.digest()), "{resolved}");
    assert_eq!(cmd(PullPolicy::Always).await.expect("asked"), "new");
    let before = registry.name(&format!("app@{}", old.digest()));
    let ready = folder
        .images(&registry.listed())
        .ensure(&before, PullPolicy::Never, &anonymous())
        .await
        .expect("still here after a restart");
    assert_eq!(ready.config.cmd, ["old"]);
    // Without a network, what is here has to do.
    registry.mood(crate::registry::Mood::Hangs);
    assert_eq!(cmd(PullPolicy::Always).await.expect("offline"), "new");
    assert!(
        images
            .resolve_digest(&name, &anonymous())
            .await
            .expect("offline")
            .ends_with(&new.digest())
    );
    // A registry that answers has the last word.
    registry.mood(crate::registry::Mood::Answers(403));
    assert!(cmd(PullPolicy::Always).await.is_err());
}

#[tokio::test]
async fn progress_is_told() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let built = image("x", &[gzip(&tar(&[("a", "1")]))]);
    registry.push("app", "v1", &built);
    let (sender, events) = std::sync::mpsc::channel();
    let progress = Progress::new(move |event| drop(sender.send(event)));
    folder
        .images(&registry.listed())
        .pull(
            &registry.name("app:v1"),
            PullPolicy::Always,
            &anonymous(),
            &progress,
        )
        .await
        .expect("pull");
    drop(progress);
    let (layer, events): (_, Vec<_>) = (built.layer(0), events.iter().collect());
    assert!(
        matches!(&events[0], ProgressEvent::Asking { source } if *source == registry.name("app:v1"))
    );
    assert!(events.contains(&ProgressEvent::LayerDone { layer }));
    assert_eq!(
        events.last(),
        Some(&ProgressEvent::Done {
            digest: built.digest()
        })
    );
}
