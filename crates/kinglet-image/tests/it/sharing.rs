//! Who may use what is here: layers by their content, images by the credentials they came with.

use kinglet_image::{Credentials, ImageError, Progress, PullPolicy};
use serde_json::json;

use crate::content::{Folder, digest, gzip, image, image_of, tar};
use crate::registry::{Door, Mood, Registry};

fn with(registry: &Registry, user: &str, password: &str) -> Credentials {
    let mut credentials = Credentials::default();
    credentials.add(registry.host(), user, password);
    credentials
}

#[tokio::test]
async fn docker_and_oci_forms_of_one_image_share_their_layers() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let (one, two) = (tar(&[("a", "1")]), tar(&[("b", "2")]));
    let diff_ids = [digest(&one), digest(&two)];
    registry.push(
        "oci",
        "v1",
        &image_of("oci", &[gzip(&one), gzip(&two)], &diff_ids),
    );
    let images = folder.images(&registry.listed());
    let pulled = images
        .ensure(
            &registry.name("oci:v1"),
            PullPolicy::IfNotPresent,
            &Credentials::default(),
        )
        .await
        .expect("pull");
    let mut builder = tar::Builder::new(Vec::new());
    let config =
        json!({"config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string();
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["docker:1"], "Layers": ["1.tar", "2.tar"]}])
            .to_string();
    for (name, bytes) in [
        ("manifest.json", manifest.as_bytes()),
        ("c.json", config.as_bytes()),
        ("1.tar", &one),
        ("2.tar", &two),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, bytes)
            .expect("member");
    }
    let path = folder.0.join("docker.tar");
    std::fs::write(&path, builder.into_inner().expect("tar")).expect("archive");
    images.import(&path, None).await.expect("import");
    let imported = images
        .ensure("docker:1", PullPolicy::Never, &Credentials::default())
        .await
        .expect("here");
    assert_eq!(imported.layers, pulled.layers);
    assert_eq!(folder.layers(), 2);
}

#[tokio::test]
async fn a_configuration_that_lies_about_its_layers_poisons_nothing() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let (good, evil) = (tar(&[("a", "good")]), tar(&[("a", "evil")]));
    registry.push(
        "liar",
        "v1",
        &image_of("x", &[gzip(&evil)], &[digest(&good)]),
    );
    registry.push(
        "short",
        "v1",
        &image_of("x", &[gzip(&evil), gzip(&good)], &[digest(&evil)]),
    );
    let images = folder.images(&registry.listed());
    for (name, wanted) in [("liar:v1", "its content is"), ("short:v1", "speaks of 1")] {
        let error = images
            .ensure(
                &registry.name(name),
                PullPolicy::IfNotPresent,
                &Credentials::default(),
            )
            .await
            .expect_err(name)
            .to_string();
        assert!(error.contains(wanted), "{error}");
    }
    assert_eq!((folder.layers(), folder.scratch()), (0, 0));
}

#[tokio::test]
async fn an_image_that_came_with_credentials_is_used_with_them_only() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let built = image("x", &[gzip(&tar(&[("a", "1")]))]);
    registry.push("private/app", "v1", &built);
    registry.door(Door::Basic);
    let name = registry.name("private/app:v1");
    let right = with(&registry, "user", "secret");
    for images in [
        folder.images(&registry.listed()),
        // Also after a restart.
        folder.images(&registry.listed()),
    ] {
        images
            .ensure(&name, PullPolicy::IfNotPresent, &right)
            .await
            .expect("with credentials");
        let by_digest = registry.name(&format!("private/app@{}", built.digest()));
        for (asked, credentials) in [
            (&name, Credentials::default()),
            (&name, with(&registry, "user", "wrong")),
            (&by_digest, Credentials::default()),
        ] {
            for (policy, reason) in [
                (PullPolicy::IfNotPresent, "ErrImagePull"),
                (PullPolicy::Always, "ErrImagePull"),
                (PullPolicy::Never, "ErrImageNeverPull"),
            ] {
                let error = images
                    .ensure(asked, policy, &credentials)
                    .await
                    .expect_err("others");
                assert_eq!(error.reason(), reason, "{error}");
            }
        }
        let error = images
            .ensure(&name, PullPolicy::Never, &Credentials::default())
            .await
            .expect_err("others");
        assert!(matches!(error, ImageError::NotAllowed { .. }), "{error}");
        // Not even when the registry is away.
        registry.mood(crate::registry::Mood::Hangs);
        assert!(
            images
                .ensure(&name, PullPolicy::Always, &Credentials::default())
                .await
                .is_err()
        );
        images
            .ensure(&name, PullPolicy::Never, &right)
            .await
            .expect("the same credentials need no network");
        registry.mood(crate::registry::Mood::Fine);
    }
    // Who authenticates downloads no layer again.
    let before = registry.asked(&built.layer(0));
    registry.door(Door::Open);
    let images = folder.images(&registry.listed());
    images
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect("public by now");
    assert_eq!(registry.asked(&built.layer(0)), before);
    registry.door(Door::Basic);
    images
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect("everybody's from now on");
}

#[tokio::test]
async fn what_the_operator_pulled_is_everybodys() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    registry.push("private/app", "v1", &image("x", &[tar(&[("a", "1")])]));
    registry.door(Door::Basic);
    // No need to list the registry either.
    let (images, name) = (folder.images(""), registry.name("private/app:v1"));
    images
        .pull(
            &name,
            PullPolicy::Always,
            &with(&registry, "user", "secret"),
            &Progress::none(),
        )
        .await
        .expect("operator");
    images
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect("everybody");
}

#[tokio::test]
async fn registries_of_this_machine_are_the_operators_to_name() {
    let (folder, registry, other) = (
        Folder::new(),
        Registry::start().await,
        Registry::start().await,
    );
    registry.push("app", "v1", &image("x", &[tar(&[("a", "1")])]));
    let nobody = Credentials::default();
    let port = registry.host().rsplit_once(':').expect("port").1.to_owned();
    let images = folder.images("");
    for host in ["127.0.0.1", "localhost", "127.1", "0.0.0.0"] {
        let name = format!("{host}:{port}/app:v1");
        let error = images
            .ensure(&name, PullPolicy::IfNotPresent, &nobody)
            .await
            .expect_err(host)
            .to_string();
        assert!(
            error.contains("registries.conf") && error.contains(&format!(":{port}\" insecure")),
            "{error}"
        );
        let error = images
            .resolve_digest(&name, &nobody)
            .await
            .expect_err(host)
            .to_string();
        assert!(error.contains("registries.conf"), "{error}");
    }
    assert_eq!(registry.asked(""), 0);
    // A registry that is listed cannot send us to one that is not.
    let elsewhere: &'static str = other.host().to_owned().leak();
    registry.door(Door::TokenAt(elsewhere));
    let error = folder
        .images(&registry.listed())
        .ensure(
            &registry.name("app:v1"),
            PullPolicy::IfNotPresent,
            &with(&registry, "user", "secret"),
        )
        .await
        .expect_err("realm")
        .to_string();
    assert!(error.contains("registries.conf"), "{error}");
}

#[tokio::test]
async fn a_redirect_does_not_lead_to_this_machine() {
    let (folder, registry, other) = (
        Folder::new(),
        Registry::start().await,
        Registry::start().await,
    );
    let built = image("x", &[tar(&[("a", "1")])]);
    registry.push("app", "v1", &built);
    other.push("app", "v1", &built);
    let port = other.host().rsplit_once(':').expect("port").1;
    let (images, name) = (folder.images(&registry.listed()), registry.name("app:v1"));
    for elsewhere in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://[::ffff:7f00:1]:{port}"),
        "http://169.254.169.254".to_owned(),
        format!("http://169.254.169.254:{port}"),
    ] {
        registry.mood(Mood::SendsTo(elsewhere.clone().leak()));
        let error = images
            .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
            .await
            .expect_err(&elsewhere)
            .to_string();
        assert!(error.contains("registries.conf"), "{elsewhere}: {error}");
    }
    assert_eq!(other.asked(""), 0);
    assert_eq!(folder.layers(), 0);
    // What the operator lists is allowed, also as where another one sends.
    registry.mood(Mood::SendsTo(format!("http://{}", other.host()).leak()));
    folder
        .images(&(registry.listed() + &other.listed()))
        .ensure(&name, PullPolicy::IfNotPresent, &Credentials::default())
        .await
        .expect("both are listed");
    assert!(other.asked("/blobs/") > 0);
}

#[tokio::test]
async fn pulls_for_tenants_leave_by_the_way_they_are_given() {
    let folder = Folder::new();
    let images = folder.images("");
    images.leave_by(kinglet_process::egress::closed());
    let error = images
        .ensure(
            "192.0.2.77/app:v1",
            PullPolicy::IfNotPresent,
            &Credentials::default(),
        )
        .await
        .expect_err("there is no way out")
        .to_string();
    assert!(error.contains("there is no node"), "{error}");
}

#[tokio::test]
async fn what_is_no_file_is_not_imported() {
    let folder = Folder::new();
    let images = folder.images("");
    let fifo = folder.0.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("fifo");
    for (path, wanted) in [
        (fifo, "a FIFO"),
        ("/dev/zero".into(), "a device"),
        (folder.0.clone(), "a directory"),
    ] {
        let import = images.import(&path, Some("x.test/a:1"));
        let error = tokio::time::timeout(std::time::Duration::from_secs(20), import)
            .await
            .expect("does not hang")
            .expect_err("refused")
            .to_string();
        assert!(error.contains(wanted), "{error}");
    }
    // A name inside the archive cannot be a sample's either.
    let manifest =
        json!([{"Config": "c.json", "RepoTags": ["samples.kinglet/helloworld:1"], "Layers": []}])
            .to_string();
    let path = folder.0.join("samples.tar");
    std::fs::write(
        &path,
        tar(&[("manifest.json", &manifest), ("c.json", "{}")]),
    )
    .expect("archive");
    let error = images.import(&path, None).await.expect_err("samples");
    assert!(error.to_string().contains("cannot be replaced"), "{error}");
    assert!(images.list().is_empty());
}
