//! What happens in the first hour: starting in the background, wrong flags, full disks, other users of the machine.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::footprint::Footprint;
use kinglet_testkit::{Api, Setup, instance, until, web};
use serde_json::json;

use crate::{run, setup, start};

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// A folder that is removed with all below it, and a program that anybody may run.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> anyhow::Result<Self> {
        let path = instance::scratch(name);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(Self(path))
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Kinglet with a home of its own.
    fn kinglet(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&setup().binary);
        command
            .args(words)
            .env("HOME", self.join("home"))
            .env_remove("KUBECONFIG")
            .env_remove("KINGLET_DATA");
        command
    }

    fn said(&self, words: &[&str]) -> anyhow::Result<(bool, String)> {
        Ok(text(&self.kinglet(words).output()?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Success, and both outputs.
fn text(output: &Output) -> (bool, String) {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&all).into_owned(),
    )
}

/// A background process that must not outlive its test.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A tmpfs that is taken away again.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(point: PathBuf, options: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&point)?;
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "kinglet-test"])
            .arg(&point)
            .status()?;
        ensure!(status.success(), "mounting a tmpfs: {status}");
        Ok(Self(point))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn in_the_background_from_up_to_reset() {
    run(async {
        let scratch = Scratch::new("background")?;
        let (first, second) = (scratch.join("one"), scratch.join("two"));
        let (first, second) = (first.display().to_string(), second.display().to_string());
        let outcome = background_story(&scratch, &first, &second);
        // Whatever went wrong, nothing goes on running.
        for data in [&first, &second] {
            let _ = scratch.said(&["down", "--data", data]);
        }
        outcome
    });
}

fn background_story(scratch: &Scratch, first: &str, second: &str) -> anyhow::Result<()> {
    let config = scratch.join("home/.kube/config");
    let read = || std::fs::read_to_string(&config).unwrap_or_default();
    let up = |data: &str, more: &[&str]| {
        let words = [
            "up",
            "--detach",
            "--api-port",
            "0",
            "--http-port",
            "0",
            "--data",
            data,
        ];
        scratch.said(&[&words, more].concat())
    };
    let (good, said) = up(first, &[])?;
    ensure!(good && said.contains("Kinglet is up"), "{said}");
    let ours = read();
    ensure!(ours.contains("current-context: kinglet"), "{ours}");
    let mode = std::fs::metadata(Path::new(first).join("kinglet.log"))?.mode() & 0o777;
    ensure!(mode == 0o600, "the log has mode {mode:o}");

    let (good, said) = up(first, &[])?;
    ensure!(good && said.contains("already running"), "{said}");
    let (good, said) = up(first, &["--domain", "example.com"])?;
    ensure!(
        !good && said.contains("--domain localhost, not example.com"),
        "{said}"
    );

    // The second one leaves the first one's context alone, and says so in its log.
    let (good, said) = up(second, &[])?;
    ensure!(good && said.contains("two/kubeconfig"), "{said}");
    ensure!(
        read() == ours,
        "the first one's context was changed: {}",
        read()
    );
    for data in [second, first] {
        let (good, said) = scratch.said(&["down", "--data", data])?;
        ensure!(good, "{said}");
    }
    for words in [
        &["get", "ksvc"][..],
        &["describe", "ksvc"],
        &["logs", "x"],
        &["wait", "ksvc/x"],
        &["delete", "ksvc/x"],
        &["apply", "-f", &config.display().to_string()],
        &["status"],
        &["image", "ls"],
        &["image", "rm", "x"],
        &["image", "pull", "x"],
        &["down"],
    ] {
        let (good, said) = scratch.said(&[words, &["--data", first]].concat())?;
        ensure!(
            !good && said.contains("Kinglet is not running with data directory"),
            "{words:?}: {said}"
        );
    }
    let (good, said) = scratch.said(&["reset", "--yes", "--data", second])?;
    ensure!(good && read() == ours, "{said}");
    let (good, said) = scratch.said(&["reset", "--yes", "--data", first])?;
    ensure!(
        good && said.contains("Removed the context kinglet"),
        "{said}"
    );
    ensure!(!read().contains("certificate-authority-data"), "{}", read());
    Ok(())
}

#[test]
fn a_disk_that_cannot_be_written_is_one_sentence() {
    run(async {
        let scratch = Scratch::new("disk")?;
        let kubeconfig = scratch.join("kubeconfig").display().to_string();
        for (name, options, expected) in [
            ("full", "size=400k", "full"),
            ("read-only", "ro", "Read-only file system"),
        ] {
            let disk = Mounted::tmpfs(scratch.join(name), options)?;
            let data = disk.0.join("data").display().to_string();
            let mut up = scratch.kinglet(&["up", "--api-port", "0", "--http-port", "0"]);
            up.args(["--data", &data, "--kubeconfig", &kubeconfig]);
            let (good, said) = text(&up.output()?);
            let errors = said.lines().filter(|line| line.starts_with("Error: "));
            ensure!(
                !good && said.contains(expected) && said.contains(&data) && errors.count() == 1,
                "{name}: {said}"
            );
            ensure!(!said.contains("Kinglet is up"), "{name}: {said}");
        }
        Ok(())
    });
}

#[test]
fn without_root_nothing_is_left_behind() {
    run(async {
        let scratch = Scratch::new("no-root")?;
        let open = scratch.join("open");
        std::fs::create_dir(&open)?;
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o1777))?;
        let program = scratch.join("kinglet");
        std::fs::copy(&setup().binary, &program)?;
        for words in [&["up"][..], &["up", "--detach"], &["demo"]] {
            let mut command = as_nobody(&program);
            command.args(words).env("HOME", &open).env("TMPDIR", &open);
            let (good, said) = text(&command.output()?);
            ensure!(
                !good && said.contains("needs root") && said.lines().count() == 1,
                "{words:?}: {said}"
            );
            ensure!(
                std::fs::read_dir(&open)?.count() == 0,
                "{words:?} left something"
            );
        }
        Ok(())
    });
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program);
    command
}

/// Another user of the machine owns links with every name that we are going to write, and swaps them all the time.
#[test]
fn another_user_redirects_no_file_of_ours() {
    run(async {
        let scratch = Scratch::new("races")?;
        let (open, victim) = (scratch.join("open"), scratch.join("victim"));
        std::fs::create_dir(&open)?;
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o1777))?;
        std::fs::write(&victim, "precious")?;
        let swap = format!(
            "cd {open} && echo begun > begun && while :; do for f in ready.json kubeconfig kubeconfig.new kubeconfig.lock; do ln -sf {victim} $f 2>/dev/null; done; done",
            open = open.display(),
            victim = victim.display()
        );
        let mut attacker = as_nobody(Path::new("/bin/sh"));
        let attacker = Background(attacker.args(["-c", &swap]).spawn()?);
        until("the attacker", Duration::from_secs(30), || async {
            Ok(open.join("kubeconfig").is_symlink().then_some(()))
        })
        .await?;
        let data = scratch.join("data");
        let mut up = scratch.kinglet(&["up", "--api-port", "0", "--http-port", "0", "--data"]);
        up.arg(&data)
            .arg("--kubeconfig")
            .arg(open.join("kubeconfig"))
            .arg("--ready-file")
            .arg(open.join("ready.json"));
        let log = std::fs::File::create(scratch.join("log"))?;
        let mut kinglet = Background(up.stdout(log.try_clone()?).stderr(log).spawn()?);
        let ended = until("kinglet to serve", Duration::from_secs(60), || {
            let ended = kinglet.0.try_wait().ok().flatten().is_some();
            let ready =
                std::fs::symlink_metadata(open.join("ready.json")).is_ok_and(|meta| meta.is_file());
            async move { Ok((ended || ready).then_some(ended)) }
        })
        .await?;
        let log = std::fs::read_to_string(scratch.join("log"))?;
        drop(attacker);
        ensure!(!ended, "{log}");
        for name in ["ready.json", "kubeconfig"] {
            let meta = std::fs::symlink_metadata(open.join(name))?;
            ensure!(
                meta.is_file() && meta.uid() == 0 && meta.mode() & 0o777 == 0o600,
                "{name} is a file of root's only: {meta:?}"
            );
        }
        ensure!(std::fs::read_to_string(&victim)? == "precious");
        instance::terminate(kinglet.0.id());
        let status = kinglet.0.wait()?;
        ensure!(status.success(), "{status}: {log}");

        // A data directory that he made himself, or a link to one of the admin's, is refused.
        let planted = open.join("planted");
        let mut mkdir = as_nobody(Path::new("/bin/mkdir"));
        ensure!(mkdir.arg(&planted).status()?.success());
        let link = open.join("link");
        let mut ln = as_nobody(Path::new("/bin/ln"));
        ensure!(ln.arg("-s").arg(&data).arg(&link).status()?.success());
        for data in [planted, link] {
            let data = data.display().to_string();
            for detach in [&[][..], &["--detach"]] {
                let words = ["up", "--api-port", "0", "--http-port", "0", "--data", &data];
                let (good, said) = scratch.said(&[&words, detach].concat())?;
                ensure!(
                    !good && said.contains("belongs to user 65534"),
                    "{data}: {said}"
                );
            }
        }
        Ok(())
    });
}

/// Loopback is no border: without credentials nothing is told and nothing done.
#[test]
fn another_user_gets_no_answer() {
    run(async {
        let (instance, _api) = start().await?;
        let scratch = Scratch::new("other-user")?;
        let program = scratch.join("kinglet");
        std::fs::copy(&setup().binary, &program)?;
        // As if an administrator had opened folder and socket to everybody.
        let socket = instance.data.join("control.sock");
        std::fs::set_permissions(&instance.data, PermissionsExt::from_mode(0o755))?;
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666))?;
        for words in [&["status"][..], &["down"], &["image", "ls"]] {
            let mut command = as_nobody(&program);
            command.args(words).arg("--data").arg(&instance.data);
            let (good, said) = text(&command.output()?);
            ensure!(
                !good && said.contains("talking to the running Kinglet"),
                "{words:?}: {said}"
            );
        }
        for name in [
            "kubeconfig",
            "user.kubeconfig",
            "ready.json",
            "pki",
            "pki/ca.key",
        ] {
            let path = instance.data.join(name);
            let mode = std::fs::metadata(&path)
                .with_context(|| name.to_owned())?
                .mode();
            ensure!(mode & 0o077 == 0, "{name} is open to others: {mode:o}");
            let mut cat = as_nobody(Path::new("/bin/cat"));
            ensure!(
                !cat.arg(&path).output()?.status.success(),
                "{name} was read"
            );
        }
        let anonymous = scratch.join("anonymous");
        std::fs::write(
            &anonymous,
            json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": instance.ready.api_url, "insecure-skip-tls-verify": true}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}]})
            .to_string(),
        )?;
        std::fs::set_permissions(&anonymous, PermissionsExt::from_mode(0o644))?;
        for what in ["secrets", "pods", "ksvc"] {
            let mut command = as_nobody(&program);
            command
                .args(["get", what, "-A", "--kubeconfig"])
                .arg(&anonymous);
            let (good, said) = text(&command.output()?);
            ensure!(
                !good && (said.contains("Unauthorized") || said.contains("Forbidden")),
                "{what}: {said}"
            );
        }
        ensure!(std::fs::metadata(&socket)?.uid() != NOBODY);
        instance.stop().await
    });
}

#[test]
fn logs_of_what_does_not_run_say_why() {
    run(async {
        let (instance, api) = start().await?;
        let services = serving("default", "services");
        let missing = sample_service("missing", "default", "nosuchsample");
        let mut crashing = sample_service("crashing", "default", "helloworld");
        crashing["spec"]["template"]["spec"]["containers"][0]["command"] =
            json!(["/sample", "nosuchname"]);
        let mut unready = sample_service("unready", "default", "helloworld");
        unready["spec"]["template"]["metadata"]["annotations"] =
            json!({"serving.knative.dev/progress-deadline": "5s"});
        unready["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
            json!({"httpGet": {"path": "/", "port": 9999}});
        for service in [&missing, &crashing, &unready] {
            api.create(&services, service).await?;
        }
        for name in ["missing", "crashing", "unready"] {
            api.condition(
                &format!("{services}/{name}"),
                "Ready",
                "False",
                Duration::from_secs(60),
            )
            .await?;
        }
        let logs = |name: &str| -> anyhow::Result<String> {
            let mut command = Command::new(&setup().binary);
            command.args(["logs", &format!("ksvc/{name}"), "--data"]);
            Ok(text(&command.arg(&instance.data).output()?).1)
        };
        let mut command = Command::new(&setup().binary);
        command.args(["logs", "crashing", "--data"]);
        let said = text(&command.arg(&instance.data).output()?).1;
        ensure!(
            said.contains("pods \"crashing\" not found, but a Service of that name is there: write `kinglet logs ksvc/crashing`"),
            "{said}"
        );
        let said = logs("missing")?;
        ensure!(
            said.contains("RevisionMissing") && said.contains("nosuchsample"),
            "{said}"
        );
        let said = logs("unready")?;
        ensure!(said.contains("RevisionMissing"), "{said}");
        // The last words of the program, and the condition.
        until("the log of the crashing one", crate::READY_MAX, || async {
            let said = logs("crashing")?;
            ensure!(
                said.contains("usage: sample NAME") && said.contains("RevisionMissing"),
                "{said}"
            );
            Ok(Some(()))
        })
        .await?;
        instance.stop().await
    });
}

/// A machine of its own as far as the network goes, with a web server that has port 80 on every address, as distributions
/// install them.
const BESIDE_A_WEB_SERVER: &str = r#"
set -e
ip link set lo up
mkdir "$1/www" && echo theirs > "$1/www/index.html"
busybox httpd -f -p 80 -h "$1/www" & web=$!
trap 'kill $web; "$0" down --data "$1/data" >&2' EXIT
"$0" up --detach --api-port 0 --data "$1/data" --kubeconfig "$1/kubeconfig"
echo '{"apiVersion":"serving.knative.dev/v1","kind":"Service","metadata":{"name":"hello","namespace":"default"},
  "spec":{"template":{"spec":{"containers":[{"image":"samples.kinglet/helloworld"}]}}}}' > "$1/service.json"
"$0" apply -f "$1/service.json" --data "$1/data"
"$0" wait ksvc/hello --data "$1/data"
busybox wget -qO- http://127.0.0.1/
busybox wget -qO- --header 'Host: hello.default.localhost' http://127.0.0.1:8080/
bridge=$(ip -4 -o addr | sed -n 's/.* kb[0-9a-f]* .*inet \([0-9.]*\).*/\1/p')
busybox wget -qO- --header 'Host: hello.default.svc.cluster.local' "http://$bridge/"
"#;

#[test]
fn a_web_server_may_have_port_80() {
    run(async {
        let scratch = Scratch::new("web-server")?;
        let mut command = Command::new("unshare");
        command
            .args(["--net", "sh", "-c", BESIDE_A_WEB_SERVER])
            .arg(&setup().binary)
            .arg(&scratch.0)
            .env("HOME", scratch.join("home"));
        let (good, said) = text(&command.output()?);
        ensure!(
            good && said.contains("theirs") && said.matches("Hello World!").count() == 2,
            "{said}"
        );
        Ok(())
    });
}

/// What a start makes on the host goes again with a start that fails, or that somebody stops before it is done.
#[test]
fn a_start_that_does_not_come_to_its_end_leaves_nothing() {
    run(async {
        let scratch = Scratch::new("half-way")?;
        let data = scratch.join("data");
        let up = || {
            let mut up = scratch.kinglet(&["up", "--api-port", "0", "--http-port", "0"]);
            up.arg("--data").arg(&data);
            up
        };
        let nothing_left = || {
            let left = Footprint::of_stopped(&data).left_behind();
            ensure!(left.is_empty(), "{}", left.join("; "));
            Ok(())
        };
        let mut failing = up();
        failing.args(["--ready-file", "/nonexistent/ready.json"]);
        let (good, said) = text(&failing.output()?);
        ensure!(
            !good && said.contains("/nonexistent/ready.json") && !said.contains("Kinglet is up"),
            "{said}"
        );
        nothing_left()?;
        for milliseconds in [200, 400, 800] {
            let log = scratch.join(&format!("log-{milliseconds}"));
            let file = std::fs::File::create(&log)?;
            let mut kinglet = Background(up().stdout(file.try_clone()?).stderr(file).spawn()?);
            // Any moment will do: what counts is that it ends in order, and with nothing left.
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            instance::terminate(kinglet.0.id());
            let status = kinglet.0.wait()?;
            let said = std::fs::read_to_string(&log)?;
            // Before the program is loaded, a signal ends it as any other.
            ensure!(
                status.success() || said.is_empty(),
                "after {milliseconds} ms: {status}: {said}"
            );
            nothing_left()?;
        }
        Ok(())
    });
}

/// A `config.json` of docker that names a helper which is not here is common and no reason to fail.
#[test]
fn what_docker_login_stored_is_read() {
    run(async {
        let (instance, _api) = start().await?;
        let scratch = Scratch::new("docker-login")?;
        let folder = scratch.join("docker");
        std::fs::create_dir(&folder)?;
        let pull = |config: &str, image: &str| -> anyhow::Result<(bool, String)> {
            std::fs::write(folder.join("config.json"), config)?;
            let mut command = scratch.kinglet(&["image", "pull", image, "--data"]);
            command.arg(&instance.data).env("DOCKER_CONFIG", &folder);
            Ok(text(&command.output()?))
        };
        let sample = "samples.kinglet/helloworld";
        let (good, said) = pull(r#"{"credsStore": "kinglet-test-none"}"#, sample)?;
        ensure!(
            good && said.contains("docker-credential-kinglet-test-none, which is not in PATH"),
            "{said}"
        );
        let (good, said) = pull(r#"{"auths": "#, sample)?;
        ensure!(!good && said.contains("config.json"), "{said}");
        let ca = scratch.join("ca.pem");
        std::fs::write(
            &ca,
            "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n",
        )?;
        let mut command = scratch.kinglet(&["image", "pull", sample, "--ca"]);
        command.arg(&ca).arg("--data").arg(&instance.data);
        let (good, said) = text(&command.output()?);
        ensure!(!good && said.contains("ca.pem"), "{said}");
        instance.stop().await
    });
}

/// A disk that fills up while Kinglet runs: writes are refused in words, what was acknowledged stays, reading and serving
/// go on, and it heals when there is room again.
#[test]
fn a_disk_that_fills_up_under_a_running_instance() {
    run(async {
        const MAPS: &str = "/api/v1/namespaces/default/configmaps";
        let scratch = Scratch::new("fills-up")?;
        let disk = Mounted::tmpfs(scratch.join("disk"), "size=64m")?;
        let setup = Setup {
            data: Some(disk.0.join("data")),
            ..setup()
        };
        let mut instance = setup.start().await?;
        let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
        let services = serving("default", "services");
        let hello = sample_service("hello", "default", "helloworld");
        api.create(&services, &hello).await?;
        api.condition(
            &format!("{services}/hello"),
            "Ready",
            "True",
            crate::READY_MAX,
        )
        .await?;
        let map = |name: &str| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
                "data": {"k": "x".repeat(100_000)}})
        };
        let fill = disk.0.join("fill");
        let filled = Command::new("dd")
            .args(["if=/dev/zero", "bs=4k"])
            .arg(format!("of={}", fill.display()))
            .output()?;
        ensure!(!filled.status.success(), "the disk is not full");

        // The journal of the store has some room of its own: some writes may still succeed, and then they count.
        let mut acknowledged = Vec::new();
        let refusal = loop {
            let name = format!("map-{}", acknowledged.len());
            match api.create(MAPS, &map(&name)).await {
                // What the journal has room for counts.
                Ok(_) => {
                    acknowledged.push(name);
                    ensure!(acknowledged.len() < 200, "a full disk takes everything");
                }
                Err(error) => break format!("{error:#}"),
            }
        };
        ensure!(refusal.contains("full"), "{refusal}");
        let path = format!("{MAPS}/map-{}", acknowledged.len());
        ensure!(
            api.find(&path).await?.is_none(),
            "what was refused is not there"
        );
        let answer = web::get(instance.gateway(), "hello.default.localhost", "/").await?;
        ensure!(answer.status == 200, "{answer:?}");

        std::fs::remove_file(&fill)?;
        until("writes again", Duration::from_secs(60), || {
            let (api, map) = (api.clone(), map("healed"));
            async move { Ok(Some(api.apply(MAPS, &map).await?)) }
        })
        .await?;
        acknowledged.push("healed".to_owned());
        instance.kill();
        let instance = setup.start().await?;
        let api = Api::open(Path::new(&instance.ready.kubeconfig)).await?;
        for name in acknowledged {
            let found = api.find(&format!("{MAPS}/{name}")).await?;
            ensure!(found.is_some(), "{name} was acknowledged and is lost");
        }
        instance.stop().await
    });
}
