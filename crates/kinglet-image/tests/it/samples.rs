//! The samples inside the binary: no network, any tag, any digest, before and after a restart or an upgrade.

use kinglet_image::builtin::{BuiltinFile, BuiltinImage};
use kinglet_image::{Credentials, ImageConfig, ImageError, PullPolicy};

use crate::content::Folder;
use crate::registry::Registry;

static V1: [BuiltinFile; 1] = [BuiltinFile {
    path: "sample",
    mode: 0o755,
    bytes: b"program 1",
}];
static V2: [BuiltinFile; 1] = [BuiltinFile {
    path: "sample",
    mode: 0o755,
    bytes: b"program 2",
}];

const CONF: &str = "[[registry]]\nprefix=\"gcr.io/knative-samples/helloworld-go\"\nlocation=\"samples.kinglet/helloworld\"";

fn builtin(files: &'static [BuiltinFile]) -> Vec<BuiltinImage> {
    let config = |name: &str| ImageConfig {
        entrypoint: vec!["/sample".to_owned(), name.to_owned()],
        ..ImageConfig::default()
    };
    ["helloworld", "autoscale"]
        .map(|name| BuiltinImage {
            name,
            files,
            config: config(name),
        })
        .to_vec()
}

#[tokio::test]
async fn every_tag_and_digest_is_the_same_image() {
    let folder = Folder::new();
    let (images, nobody) = (
        folder.images_with(CONF, builtin(&V1)),
        Credentials::default(),
    );
    let first = images
        .ensure("samples.kinglet/helloworld", PullPolicy::Always, &nobody)
        .await
        .expect("sample");
    assert_eq!(
        std::fs::read(first.layers[0].join("sample")).expect("program"),
        b"program 1"
    );
    let strange = format!("samples.kinglet/helloworld@sha256:{}", "0".repeat(64));
    for name in [
        "samples.kinglet/helloworld:v7",
        "gcr.io/knative-samples/helloworld-go",
        "gcr.io/knative-samples/helloworld-go:x",
        &strange,
    ] {
        for policy in [
            PullPolicy::Never,
            PullPolicy::IfNotPresent,
            PullPolicy::Always,
        ] {
            let ready = images.ensure(name, policy, &nobody).await.expect(name);
            assert_eq!(
                (&ready.digest, &ready.layers),
                (&first.digest, &first.layers),
                "{name}"
            );
        }
    }
    let other = images
        .ensure("samples.kinglet/autoscale", PullPolicy::Never, &nobody)
        .await
        .expect("sample");
    assert_eq!(
        (&other.layers, folder.layers()),
        (&first.layers, 1),
        "one program, one layer"
    );
    assert_ne!(other.digest, first.digest);
    let error = images
        .ensure("samples.kinglet/helloworl", PullPolicy::Always, &nobody)
        .await
        .expect_err("unknown");
    assert!(
        matches!(error, ImageError::NoSample { .. })
            && error.to_string().contains("samples.kinglet/autoscale"),
        "{error}"
    );
}

#[tokio::test]
async fn a_digest_resolved_through_a_rewrite_is_found_after_restart_and_upgrade() {
    let (folder, nobody) = (Folder::new(), Credentials::default());
    let images = folder.images_with(CONF, builtin(&V1));
    let resolved = images
        .resolve_digest("gcr.io/knative-samples/helloworld-go", &nobody)
        .await
        .expect("digest");
    assert!(
        resolved.starts_with("gcr.io/knative-samples/helloworld-go@sha256:"),
        "{resolved}"
    );
    for (conf, files) in [(CONF, &V1), ("", &V1), (CONF, &V2), ("", &V2)] {
        let images = folder.images_with(conf, builtin(files));
        let ready = images
            .ensure(&resolved, PullPolicy::IfNotPresent, &nobody)
            .await
            .expect("by digest");
        assert_eq!(
            std::fs::read(ready.layers[0].join("sample")).expect("program"),
            b"program 1"
        );
    }
    // A newer binary brings a newer sample to tags, and to digests that are not here any more.
    let images = folder.images_with(CONF, builtin(&V2));
    let ready = images
        .ensure(
            "gcr.io/knative-samples/helloworld-go",
            PullPolicy::IfNotPresent,
            &nobody,
        )
        .await
        .expect("tag");
    assert_eq!(
        std::fs::read(ready.layers[0].join("sample")).expect("program"),
        b"program 2"
    );
    let fresh = Folder::new();
    let ready = fresh
        .images_with(CONF, builtin(&V2))
        .ensure(&resolved, PullPolicy::IfNotPresent, &nobody)
        .await
        .expect("unknown digest");
    assert_eq!(
        std::fs::read(ready.layers[0].join("sample")).expect("program"),
        b"program 2"
    );
}

#[tokio::test]
async fn samples_are_listed_and_stay() {
    let folder = Folder::new();
    let images = folder.images_with(CONF, builtin(&V1));
    let names: Vec<_> = images
        .list()
        .into_iter()
        .map(|row| (row.reference, row.built_in))
        .collect();
    assert_eq!(
        names,
        [
            ("samples.kinglet/helloworld".to_owned(), true),
            ("samples.kinglet/autoscale".to_owned(), true)
        ]
    );
    let error = images
        .remove("samples.kinglet/helloworld")
        .await
        .expect_err("built in");
    assert!(error.to_string().contains("cannot be removed"), "{error}");
    images
        .ensure(
            "gcr.io/knative-samples/helloworld-go:v1",
            PullPolicy::Never,
            &Credentials::default(),
        )
        .await
        .expect("alias");
    assert!(
        images
            .list()
            .iter()
            .any(|row| row.reference == "gcr.io/knative-samples/helloworld-go:v1" && row.built_in)
    );
    images
        .remove("gcr.io/knative-samples/helloworld-go:v1")
        .await
        .expect("an alias goes");
    assert_eq!(images.list().len(), 2);
}

#[tokio::test]
async fn a_sample_never_reaches_the_network() {
    let (folder, registry) = (Folder::new(), Registry::start().await);
    let conf = format!(
        "[[registry]]\nprefix=\"x.test\"\nlocation=\"samples.kinglet\"\n[[registry.mirror]]\nlocation=\"{}\"",
        registry.host()
    );
    let images = folder.images_with(&conf, builtin(&V1));
    images
        .ensure(
            "x.test/helloworld",
            PullPolicy::Always,
            &Credentials::default(),
        )
        .await
        .expect("sample");
    images
        .resolve_digest("x.test/helloworld:v1", &Credentials::default())
        .await
        .expect("digest");
    assert_eq!(registry.asked(""), 0);
}
