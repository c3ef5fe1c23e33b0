//! Archives of every kind, and such as lie.

use std::path::PathBuf;

use kinglet_image::{Credentials, ImageError, PullPolicy};
use serde_json::json;

use crate::content::{Built, Folder, digest, gzip, image, list, tar};

fn archive(folder: &Folder, files: &[(&str, &[u8])]) -> PathBuf {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        builder
            .append_data(&mut header, path, *content)
            .expect("append");
    }
    let path = folder.0.join("archive.tar");
    std::fs::write(&path, builder.into_inner().expect("tar")).expect("write");
    path
}

fn layout(folder: &Folder, top: &Built, others: &[&Built], name: Option<&str>) -> PathBuf {
    let annotations = name.map_or(
        json!({}),
        |name| json!({"org.opencontainers.image.ref.name": name}),
    );
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": top.media_type, "digest": top.digest(), "size": top.manifest.len(), "annotations": annotations}]}).to_string();
    let mut files = vec![
        (
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ),
        ("index.json".to_owned(), index.into_bytes()),
    ];
    for built in others.iter().chain([&top]) {
        let blobs = built
            .blobs
            .iter()
            .map(|(digest, blob)| (digest.clone(), blob.clone()))
            .chain([(built.digest(), built.manifest.clone())]);
        files.extend(
            blobs.map(|(digest, blob)| (format!("blobs/{}", digest.replace(':', "/")), blob)),
        );
    }
    let files: Vec<_> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    archive(folder, &files)
}

#[tokio::test]
async fn docker_save() {
    let folder = Folder::new();
    let config = json!({"config": {"Entrypoint": ["/app"], "WorkingDir": "/w"}}).to_string();
    let manifest = json!([{"Config": "abc.json", "RepoTags": ["kn.local/hello:1", "hello:2"], "Layers": ["1/layer.tar", "2/layer.tar"]}]).to_string();
    let (one, two) = (tar(&[("a", "1")]), tar(&[("b", "2")]));
    let path = archive(
        &folder,
        &[
            ("1/layer.tar", &one),
            ("2/layer.tar", &two),
            ("abc.json", config.as_bytes()),
            ("manifest.json", manifest.as_bytes()),
        ],
    );
    let images = folder.images("");
    let rows = images.import(&path, None).await.expect("import");
    assert_eq!(
        rows.iter()
            .map(|row| row.reference.as_str())
            .collect::<Vec<_>>(),
        ["kn.local/hello:1", "docker.io/library/hello:2"]
    );
    assert_eq!(folder.scratch(), 0);
    // By tag without a network, by digest as Knative writes it, after a restart.
    let nobody = Credentials::default();
    assert_eq!(
        images
            .resolve_digest("hello:2", &nobody)
            .await
            .expect("digest"),
        format!("index.docker.io/library/hello@{}", rows[0].digest)
    );
    let images = folder.images("");
    let ready = images
        .ensure("kn.local/hello:1", PullPolicy::Always, &nobody)
        .await
        .expect("by tag");
    assert_eq!(
        (
            ready.config.entrypoint.as_slice(),
            ready.config.working_dir.as_str()
        ),
        (&["/app".to_owned()][..], "/w")
    );
    assert_eq!(
        std::fs::read_to_string(ready.layers[0].join("b")).expect("topmost"),
        "2"
    );
    images
        .ensure(
            &format!("index.docker.io/library/hello@{}", rows[0].digest),
            PullPolicy::IfNotPresent,
            &nobody,
        )
        .await
        .expect("by digest");
    let named = images
        .import(&path, Some("other.test/app"))
        .await
        .expect("named");
    assert_eq!(named[0].reference, "other.test/app:latest");
}

#[tokio::test]
async fn an_oci_layout_also_of_several_platforms() {
    let folder = Folder::new();
    let (amd, arm) = (
        image("amd64", &[gzip(&tar(&[("a", "amd")]))]),
        image("arm64", &[gzip(&tar(&[("a", "arm")]))]),
    );
    let both = list(&[("unknown", &arm), ("arm64", &arm), ("amd64", &amd)]);
    let (images, nobody) = (folder.images(""), Credentials::default());
    let rows = images
        .import(
            &layout(&folder, &both, &[&amd, &arm], Some("x.test/app:v1")),
            None,
        )
        .await
        .expect("import");
    assert_eq!(
        (rows[0].reference.as_str(), &rows[0].digest),
        ("x.test/app:v1", &both.digest())
    );
    let ready = images
        .ensure("x.test/app:v1", PullPolicy::Never, &nobody)
        .await
        .expect("here");
    assert_eq!(
        ready.config.cmd,
        [if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        }]
    );

    let path = layout(&folder, &amd, &[], None);
    let error = images
        .import(&path, None)
        .await
        .expect_err("no name")
        .to_string();
    assert!(error.contains("kinglet image import FILE NAME"), "{error}");
    images
        .import(&path, Some("x.test/app:v2"))
        .await
        .expect("named");
}

#[tokio::test]
async fn a_layout_that_lies_poisons_nothing() {
    let folder = Folder::new();
    let mut built = image("x", &[tar(&[("a", "true")])]);
    *built.blobs.get_mut(&built.layer(0)).expect("layer") = tar(&[("a", "false")]);
    let images = folder.images("");
    let error = images
        .import(&layout(&folder, &built, &[], Some("x.test/app:v1")), None)
        .await
        .expect_err("lies")
        .to_string();
    assert!(error.contains("has the digest"), "{error}");
    assert_eq!(
        (folder.layers(), folder.scratch(), images.list().len()),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_root_file_system() {
    let folder = Folder::new();
    let path = folder.0.join("root.tar.gz");
    std::fs::write(
        &path,
        gzip(&tar(&[("bin/sh", "#!"), ("etc/passwd", "root")])),
    )
    .expect("write");
    let images = folder.images("");
    let rows = images
        .import(&path, Some("debian:mine"))
        .await
        .expect("import");
    assert_eq!(rows[0].digest, digest(&std::fs::read(&path).expect("read")));
    let ready = images
        .ensure("debian:mine", PullPolicy::Never, &Credentials::default())
        .await
        .expect("here");
    assert!(ready.layers[0].join("bin/sh").is_file() && ready.config.env[0].starts_with("PATH="));
}

#[tokio::test]
async fn what_is_no_archive() {
    let folder = Folder::new();
    let images = folder.images("");
    let file = |name: &str, content: &[u8]| {
        let path = folder.0.join(name);
        std::fs::write(&path, content).expect("write");
        path
    };
    let blob =
        json!([{"Config": "../../../etc/passwd", "RepoTags": ["a:1"], "Layers": []}]).to_string();
    for (path, name, wanted) in [
        (folder.0.join("absent"), None, "No such file"),
        (file("empty", b""), Some("a:1"), "empty"),
        (
            file("text", b"hello, I am not a tar"),
            Some("a:1"),
            "not a tar archive",
        ),
        (
            file("cut", &gzip(&tar(&[("a", "1")]))[..20]),
            Some("a:1"),
            "damaged",
        ),
        (folder.0.clone(), Some("a:1"), "directory"),
        (
            archive(&folder, &[("manifest.json", b"{}")]),
            None,
            "manifest.json",
        ),
    ] {
        let error = images.import(&path, name).await.expect_err(wanted);
        assert!(matches!(error, ImageError::Archive { .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let error = images
        .import(
            &archive(&folder, &[("manifest.json", blob.as_bytes())]),
            None,
        )
        .await
        .expect_err("escapes")
        .to_string();
    assert!(
        error.contains("leads outside") || error.contains("has no"),
        "{error}"
    );
    let digest = format!("a@sha256:{}", "0".repeat(64));
    for name in ["UPPER", digest.as_str(), "samples.kinglet/helloworld"] {
        assert!(
            matches!(
                images
                    .import(&file("ok", &tar(&[("a", "1")])), Some(name))
                    .await,
                Err(ImageError::InvalidName { .. })
            ),
            "{name}"
        );
    }
    assert_eq!((folder.layers(), folder.scratch()), (0, 0));
}
