//! Images as they are in the wild, and as somebody means harm, started for real.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use kinglet_node::LogOptions;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::world::World;

/// One entry of a layer.
enum Entry<'a> {
    File(&'a str, &'a str, u32, u64),
    Directory(&'a str, u32, u64),
    Link(&'a str, &'a str),
}

fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        match *entry {
            Entry::File(path, text, mode, uid) => {
                header.set_mode(mode);
                header.set_uid(uid);
                header.set_size(text.len() as u64);
                builder
                    .append_data(&mut header, path, text.as_bytes())
                    .expect("file");
            }
            Entry::Directory(path, mode, uid) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(mode);
                header.set_uid(uid);
                builder
                    .append_data(&mut header, path, std::io::empty())
                    .expect("directory");
            }
            Entry::Link(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                builder
                    .append_link(&mut header, path, target)
                    .expect("link");
            }
        }
    }
    builder.into_inner().expect("tar")
}

/// Imports busybox with further layers on top.
async fn import(world: &World, name: &str, config: &Value, layers: &[Vec<u8>]) {
    let base = std::fs::read(world.scratch.path().join("parts/layer.tar")).expect("busybox");
    let all: Vec<&Vec<u8>> = std::iter::once(&base).chain(layers).collect();
    let diff_ids: Vec<String> = all
        .iter()
        .map(|layer| {
            let hex: String = Sha256::digest(layer)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("sha256:{hex}")
        })
        .collect();
    let config = json!({"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let names: Vec<String> = (0..all.len())
        .map(|number| format!("{number}.tar"))
        .collect();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": names}]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, path, bytes)
            .expect("member");
    };
    add("manifest.json", manifest.to_string().as_bytes());
    add("config.json", config.to_string().as_bytes());
    for (name, layer) in names.iter().zip(&all) {
        add(name, layer);
    }
    let path: PathBuf = world.scratch.path().join("odd.tar");
    std::fs::write(&path, builder.into_inner().expect("tar")).expect("archive");
    world.images.import(&path, None).await.expect("import");
}

/// Runs a script in the image and gives what it said.
async fn run(world: &World, pod: &str, container: Value) -> String {
    let mut container = container;
    container["name"] = json!("c");
    world
        .create(
            pod,
            json!({"restartPolicy": "Never", "containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]}),
        )
        .await;
    let ended = |pod: &Pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    world.wait(pod, "ended", ended).await;
    world.logs(pod, LogOptions::default()).await
}

pub(crate) async fn links() {
    let world = World::new("links").await;
    let config = json!({"Env": ["PATH=/bin"], "WorkingDir": "/work"});
    let layers = [layer(&[
        Entry::Link("etc/resolv.conf", "../run/missing/resolv.conf"),
        Entry::Link("etc/hostname", "/three"),
        Entry::Link("three", "two/hops"),
        Entry::Link("two", "/nowhere"),
        Entry::Link("etc/hosts", "../../../../../../../../hosts"),
        Entry::Directory("var", 0o755, 0),
        Entry::Link("var/run", "/run"),
        Entry::Link("work", "/made/by/kinglet"),
    ])];
    import(&world, "odd/links:1", &config, &layers).await;
    let script = "test -s /run/missing/resolv.conf && echo resolver; cat /nowhere/hops; head -1 /hosts; pwd; touch /var/run/x/file && ls /run/x";
    let log = run(
        &world,
        "links",
        json!({"image": "odd/links:1", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "v", "mountPath": "/var/run/x"}]}),
    )
    .await;
    assert_eq!(
        log, "resolver\nlinks\n# Kubernetes-managed hosts file.\n/made/by/kinglet\nfile\n",
        "{log}"
    );
    world.close().await;
}

pub(crate) async fn same_layer_twice() {
    let world = World::new("twice").await;
    let empty = layer(&[]);
    let marker = layer(&[Entry::File("marker", "once", 0o644, 0)]);
    let layers = [empty.clone(), marker.clone(), empty, marker];
    import(
        &world,
        "odd/twice:1",
        &json!({"Env": ["PATH=/bin"], "Cmd": ["cat", "/marker"]}),
        &layers,
    )
    .await;
    assert_eq!(
        run(&world, "twice", json!({"image": "odd/twice:1"})).await,
        "once\n"
    );
    world.close().await;
}

pub(crate) async fn image_volumes() {
    let world = World::new("imagevol").await;
    let config = json!({"Env": ["PATH=/bin"], "User": "1234", "Volumes": {"/data": {}, "/linked": {}, "/missing/here": {}}});
    let layers = [layer(&[
        Entry::Directory("data", 0o750, 1234),
        Entry::File("data/seed", "seed", 0o640, 1234),
        Entry::Directory("real", 0o777, 0),
        Entry::Link("linked", "real"),
    ])];
    import(&world, "odd/volumes:1", &config, &layers).await;
    let script = "cat /data/seed; echo; echo more >> /data/seed && touch /data/new /linked/new && stat -c '%a %u' /data; ls -d /missing/here; touch /x 2>/dev/null || echo readonly; ls /real";
    for (pod, read_only) in [("rw", false), ("ro", true)] {
        let container = json!({"image": "odd/volumes:1", "command": ["sh", "-c", script], "securityContext": {"readOnlyRootFilesystem": read_only}});
        assert_eq!(
            run(&world, pod, container).await,
            "seed\n750 1234\n/missing/here\nreadonly\nnew\n",
            "{pod}"
        );
    }
    world.close().await;
}

/// An image whose working directory is not in any layer, as `WORKDIR` of a builder that keeps no empty layers.
pub(crate) async fn missing_working_directory() {
    let world = World::new("workdir").await;
    let config = json!({"Env": ["PATH=/bin"], "User": "1234", "WorkingDir": "/srv/made"});
    let layers = [layer(&[Entry::Directory("etc", 0o755, 0)])];
    import(&world, "odd/workdir:1", &config, &layers).await;
    for (pod, read_only) in [("rw", false), ("ro", true)] {
        let container = json!({"image": "odd/workdir:1", "command": ["sh", "-c", "pwd; touch /x 2>/dev/null || echo readonly"], "securityContext": {"readOnlyRootFilesystem": read_only}});
        assert_eq!(
            run(&world, pod, container).await,
            "/srv/made\nreadonly\n",
            "{pod}"
        );
    }
    world.close().await;
}
