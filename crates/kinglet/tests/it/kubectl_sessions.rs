//! The real kubectl talks to containers: exec, attach, run, cp and port-forward, over both of its protocols; and deletes a
//! Service in every way.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use kinglet_testkit::kubectl::{expect, program};
use kinglet_testkit::until;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

use crate::cases::import_busybox;
use crate::{READY_MAX, not_run, run, start};

/// Which protocol kubectl speaks: WebSockets, or SPDY as those before 1.30.
const PROTOCOLS: [&str; 2] = ["true", "false"];

/// Runs kubectl with something to read.
fn say(
    config: &Path,
    websockets: &str,
    input: &[u8],
    arguments: &[&str],
) -> anyhow::Result<Output> {
    let mut child = Command::new(program().context("no kubectl")?)
        .arg("--kubeconfig")
        .arg(config)
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("KUBECACHEDIR", config.with_extension("kubectl-cache"))
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let input = input.to_vec();
    // The other end may close before it has read everything.
    #[expect(clippy::disallowed_methods, reason = "joined below")]
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output()?;
    let _ = writer.join();
    Ok(output)
}

#[test]
fn kubectl_talks_to_containers() {
    run(async {
        if program().is_none() {
            return not_run("there is no kubectl (cargo xtask peers builds one)");
        }
        let (instance, api) = start().await?;
        import_busybox(&instance.data)?;
        let config = Path::new(&instance.ready.kubeconfig);
        let serve = "mkdir -p /tmp /six; printf hi > /tmp/index.html; printf six > /six/index.html; httpd -p [::1]:8086 -h /six; exec httpd -f -p 127.0.0.1:8080 -h /tmp";
        let cat = |name: &str| json!({"name": name, "image": "cases.local/busybox:1", "command": ["cat"], "stdin": true, "stdinOnce": true});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talks", "namespace": "default"},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                {"name": "c", "image": "cases.local/busybox:1", "command": ["sh", "-c", serve]},
                cat("cat-true"),
                cat("cat-false"),
            ]},
        });
        api.create("/api/v1/namespaces/default/pods", &pod).await?;
        expect(
            config,
            &[
                "wait",
                "--for=condition=Ready",
                "pod/talks",
                "--timeout=60s",
            ],
        )?;
        let config = config.to_owned();
        tokio::task::spawn_blocking(move || sessions(&config)).await??;
        let config = Path::new(&instance.ready.kubeconfig);
        forwards(config).await?;
        vanished(config).await
    });
}

/// A pod with users of its own starts below a data directory that only root enters, asks for the default AppArmor profile,
/// and stays on a node whose NoExecute taint it tolerates; others leave.
#[test]
fn pods_with_their_own_users_and_tolerations() {
    run(async {
        if program().is_none() {
            return not_run("there is no kubectl (cargo xtask peers builds one)");
        }
        let (instance, api) = start().await?;
        let mode = std::fs::metadata(&instance.data)?.permissions().mode();
        ensure!(mode & 0o077 == 0, "the data directory is closed: {mode:o}");
        import_busybox(&instance.data)?;
        let config = Path::new(&instance.ready.kubeconfig);
        for (name, users, tolerations) in [
            (
                "mapped",
                false,
                json!([{"key": "away", "operator": "Exists"}]),
            ),
            ("plain", true, json!([])),
        ] {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "hostUsers": users, "tolerations": tolerations, "terminationGracePeriodSeconds": 1,
                    "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
                    "containers": [{"name": "c", "image": "cases.local/busybox:1", "command": ["sleep", "1000000"]}],
                },
            });
            api.create("/api/v1/namespaces/default/pods", &pod).await?;
        }
        let wait = |name| ["wait", "--for=condition=Ready", name, "--timeout=60s"];
        for name in ["pod/mapped", "pod/plain"] {
            expect(config, &wait(name))?;
        }
        let map = |name| expect(config, &["exec", name, "--", "cat", "/proc/self/uid_map"]);
        let first = |map: String| map.split_whitespace().nth(1).map(str::to_owned);
        ensure!(first(map("plain")?).as_deref() == Some("0"), "no map");
        let mapped = first(map("mapped")?);
        ensure!(
            mapped.as_deref().is_some_and(|id| id != "0"),
            "root of the pod is nobody on the host: {mapped:?}"
        );
        let nodes = api.get("/api/v1/nodes").await?;
        let node = nodes["items"][0]["metadata"]["name"]
            .as_str()
            .context("a node")?;
        expect(config, &["taint", "node", node, "away=now:NoExecute"])?;
        expect(
            config,
            &["wait", "--for=delete", "pod/plain", "--timeout=60s"],
        )?;
        let left = expect(config, &["get", "pods", "-o", "name"])?;
        ensure!(left.trim() == "pod/mapped", "{left}");
        expect(config, &["taint", "node", node, "away-"])?;
        Ok(())
    });
}

fn sessions(config: &Path) -> anyhow::Result<()> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for websockets in PROTOCOLS {
        let script = "echo out; echo err >&2; exit 3";
        let said = say(
            config,
            websockets,
            b"",
            &["exec", "talks", "-c", "c", "--", "sh", "-c", script],
        )?;
        ensure!(said.status.code() == Some(3), "{said:?}");
        ensure!(
            text(&said.stdout) == "out\n" && text(&said.stderr).starts_with("err\n"),
            "{said:?}"
        );
        let much = vec![b'x'; 500_000];
        let said = say(
            config,
            websockets,
            &much,
            &["exec", "-i", "talks", "-c", "c", "--", "cat"],
        )?;
        ensure!(
            said.status.success() && said.stdout == much,
            "{} bytes came back: {}",
            said.stdout.len(),
            text(&said.stderr)
        );
        let said = say(
            config,
            websockets,
            b"",
            &["exec", "talks", "-c", "c", "--", "/none"],
        )?;
        ensure!(
            !said.status.success() && text(&said.stderr).contains("no such file or directory"),
            "{said:?}"
        );
        let name = format!("once-{websockets}");
        let said = say(
            config,
            websockets,
            b"piped\n",
            &[
                "run",
                &name,
                "-i",
                "--rm",
                "--restart=Never",
                "--image=cases.local/busybox:1",
                "--pod-running-timeout=1m",
                "--",
                "sh",
                "-c",
                "cat; exit 5",
            ],
        )?;
        ensure!(
            said.status.code() == Some(5) && text(&said.stdout).contains("piped"),
            "{said:?}"
        );
        let cat = format!("cat-{websockets}");
        let said = say(
            config,
            websockets,
            b"attached\n",
            &["attach", "-i", "talks", "-c", &cat],
        )?;
        ensure!(
            said.status.success() && text(&said.stdout).contains("attached"),
            "{said:?}"
        );
        on_a_terminal(config, websockets)?;
    }
    Ok(())
}

/// `kubectl exec -it` on a terminal that `script` makes: the program has one as well, with what is typed and its own end.
fn on_a_terminal(config: &Path, websockets: &str) -> anyhow::Result<()> {
    let kubectl = program().context("no kubectl")?;
    let inside =
        "test -t 0 && test -t 1 && test -t 2 && echo terminal; read line; echo got:$line; exit 4";
    let command = format!(
        "{} --kubeconfig {} exec -it talks -c c -- sh -c '{inside}'",
        kubectl.display(),
        config.display()
    );
    let mut script = Command::new("script")
        .args(["-q", "-e", "-c", &command, "/dev/null"])
        .env_remove("KUBECONFIG")
        .env("SHELL", "/bin/sh")
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("running script")?;
    let mut typed = script.stdin.take().context("stdin")?;
    typed.write_all(b"typed\n")?;
    let said = script.wait_with_output()?;
    drop(typed);
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(
        said.status.code() == Some(4) && text.contains("terminal") && text.contains("got:typed"),
        "{said:?}"
    );
    Ok(())
}

/// A client that is killed, whatever it has sent and however little the program says, takes the program with it.
async fn vanished(config: &Path) -> anyhow::Result<()> {
    const INPUT: &[u8] = &[0; 64 << 10];
    const BLOCKED_AFTER: std::time::Duration = std::time::Duration::from_secs(2);
    for (websockets, marks) in PROTOCOLS
        .into_iter()
        .zip([["98721", "98722"], ["98723", "98724"]])
    {
        for (mark, floods) in marks.into_iter().zip([false, true]) {
            let mut client = tokio::process::Command::new(program().context("no kubectl")?)
                .arg("--kubeconfig")
                .arg(config)
                .args(["exec", "-i", "talks", "-c", "c", "--", "sleep", mark])
                .env_remove("KUBECONFIG")
                .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
                .stdin(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?;
            let running = async || anyhow::Ok(sleeping(mark).then_some(()));
            until("the program runs", READY_MAX, running).await?;
            let mut input = client.stdin.take().context("stdin")?;
            // Until nobody takes any more.
            while floods
                && tokio::time::timeout(BLOCKED_AFTER, input.write_all(INPUT))
                    .await
                    .is_ok_and(|written| written.is_ok())
            {}
            ensure!(sleeping(mark), "it does not mind");
            client.kill().await?;
            let gone = async || anyhow::Ok((!sleeping(mark)).then_some(()));
            until("the program is gone", READY_MAX, gone).await?;
        }
    }
    Ok(())
}

/// Whether `sleep MARK` runs, in whatever container.
fn sleeping(mark: &str) -> bool {
    let line = format!("sleep\0{mark}\0");
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|text| text == line.as_bytes())
        })
}

/// A running `kubectl port-forward`.
struct Forward {
    kubectl: tokio::process::Child,
    /// Where it listens.
    address: String,
    /// It ends when it cannot say what it handles.
    _said: tokio::process::ChildStdout,
}

async fn forward(config: &Path, websockets: &str, port: &str) -> anyhow::Result<Forward> {
    let mut kubectl = tokio::process::Command::new(program().context("no kubectl")?)
        .arg("--kubeconfig")
        .arg(config)
        .args(["port-forward", "--address=127.0.0.1", "pod/talks", port])
        .env_remove("KUBECONFIG")
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = BufReader::new(kubectl.stdout.take().context("stdout")?);
    let mut line = String::new();
    tokio::time::timeout(READY_MAX, said.read_line(&mut line)).await??;
    // Forwarding from 127.0.0.1:PORT -> 8080
    let address = line.split(' ').nth(2).context("an address")?.to_owned();
    Ok(Forward {
        kubectl,
        address,
        _said: said.into_inner(),
    })
}

/// Ports of the pod's loopback, IPv4 and IPv6, over both protocols; one that nobody listens on is told.
async fn forwards(config: &Path) -> anyhow::Result<()> {
    let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
    for websockets in PROTOCOLS {
        for (port, said) in [(":8080", "hi"), (":8086", "six")] {
            if said == "six" && !has_ipv6 {
                continue;
            }
            let mut forward = forward(config, websockets, port).await?;
            for _ in 0..3 {
                let mut stream = tokio::net::TcpStream::connect(&forward.address).await?;
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
                let mut answer = String::new();
                let read = stream.read_to_string(&mut answer);
                tokio::time::timeout(READY_MAX, read).await??;
                ensure!(answer.ends_with(said), "{port}: {answer:?}");
            }
            forward.kubectl.kill().await?;
        }
        let mut forward = forward(config, websockets, ":8099").await?;
        let _stream = tokio::net::TcpStream::connect(&forward.address).await?;
        let mut lines = BufReader::new(forward.kubectl.stderr.take().context("stderr")?).lines();
        let line = tokio::time::timeout(READY_MAX, lines.next_line())
            .await??
            .context("it says why not")?;
        ensure!(
            line.contains("an error occurred forwarding")
                && line.contains("error forwarding port 8099 to pod talks")
                && line.contains("connection refused"),
            "{line}"
        );
        forward.kubectl.kill().await?;
    }
    Ok(())
}

#[test]
fn services_are_deleted_with_and_without_their_children() {
    const CONFIGURATION: &str =
        "/apis/serving.knative.dev/v1/namespaces/default/configurations/hello";
    const SERVICE: &str = "/apis/serving.knative.dev/v1/namespaces/default/services/hello";
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    run(async {
        if program().is_none() {
            return not_run("there is no kubectl (cargo xtask peers builds one)");
        }
        let (instance, api) = start().await?;
        let config = Path::new(&instance.ready.kubeconfig);
        let service = json!({
            "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hello", "namespace": "default"},
            "spec": {"template": {"spec": {"containers": [{"image": "samples.kinglet/helloworld"}]}}},
        });
        let services = "/apis/serving.knative.dev/v1/namespaces/default/services";
        api.create(services, &service).await?;
        expect(
            config,
            &[
                "wait",
                "--for=condition=Ready",
                "ksvc/hello",
                "--timeout=60s",
            ],
        )?;
        let deployment = api.get(DEPLOYMENTS).await?["items"][0]["metadata"]["uid"].clone();
        expect(
            config,
            &[
                "delete",
                "ksvc",
                "hello",
                "--cascade=orphan",
                "--timeout=60s",
            ],
        )?;
        let orphan = api.get(CONFIGURATION).await?;
        ensure!(
            orphan["metadata"]["ownerReferences"].is_null(),
            "{}",
            orphan["metadata"]
        );
        ensure!(
            orphan["metadata"]["deletionTimestamp"].is_null(),
            "{}",
            orphan["metadata"]
        );
        // A successor does not own what lives on, and says so as Knative does.
        api.create(services, &service).await?;
        until(
            "the new Service says whose it is not",
            READY_MAX,
            || async {
                let conditions = api.get(SERVICE).await?["status"]["conditions"].to_string();
                ensure!(
                    conditions.contains(
                        "There is an existing Configuration \\\"hello\\\" that we do not own."
                    ),
                    "{conditions}"
                );
                Ok(Some(()))
            },
        )
        .await?;
        let all = api.get(DEPLOYMENTS).await?;
        let uids: Vec<_> = all["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| &one["metadata"]["uid"])
            .collect();
        ensure!(
            uids == [&deployment],
            "the Deployment lives on and is the only one: {uids:?}"
        );
        expect(
            config,
            &[
                "delete",
                "ksvc",
                "hello",
                "--cascade=foreground",
                "--timeout=60s",
            ],
        )?;
        ensure!(
            api.get(CONFIGURATION).await?["metadata"]["name"] == "hello",
            "it was not the Service's"
        );
        expect(
            config,
            &[
                "delete",
                "route/hello",
                "configuration/hello",
                "--cascade=foreground",
                "--timeout=60s",
            ],
        )?;
        until("the Deployment is gone", READY_MAX, || async {
            let left = api.get(DEPLOYMENTS).await?["items"].to_string();
            ensure!(left == "[]", "{left}");
            Ok(Some(()))
        })
        .await?;
        // With its children, this time.
        api.create(services, &service).await?;
        expect(
            config,
            &[
                "wait",
                "--for=condition=Ready",
                "ksvc/hello",
                "--timeout=60s",
            ],
        )?;
        expect(
            config,
            &[
                "delete",
                "ksvc",
                "hello",
                "--cascade=foreground",
                "--timeout=60s",
            ],
        )?;
        let left = expect(
            config,
            &[
                "get",
                "configurations,routes,revisions,deployments,pods",
                "-o",
                "name",
            ],
        )?;
        ensure!(
            left.is_empty(),
            "foreground deletion leaves nothing: {left}"
        );
        Ok(())
    });
}
