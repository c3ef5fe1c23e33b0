//! Programs that somebody talks to: exec and attach, with pipes and with terminals.

use std::time::Duration;

use kinglet_node::{Session, SessionError, StartError};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{World, processes_with, until};

/// A session ends within seconds; this is for a machine that is busy.
const SESSION_MAX: Duration = Duration::from_secs(30);

/// Writes all input, then reads until the end.
async fn talk(session: Session, input: &[u8]) -> (Result<i32, StartError>, String, String) {
    let Session {
        stdin,
        stdout,
        stderr,
        exit,
        ..
    } = session;
    let write = async {
        if let Some(mut stdin) = stdin {
            stdin.write_all(input).await.expect("input");
            let _ = stdin.shutdown().await;
        }
    };
    let read = |from: Option<kinglet_node::Source>| async move {
        let mut text = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut text).await;
        }
        String::from_utf8_lossy(&text).into_owned()
    };
    let whole = async { tokio::join!(exit, read(stdout), read(stderr), write) };
    let (code, out, errors, ()) = tokio::time::timeout(SESSION_MAX, whole)
        .await
        .expect("the session ends");
    (code, out, errors)
}

fn words(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

/// Reads until `text` was seen.
async fn read_until(from: &mut kinglet_node::Source, text: &str) -> String {
    let mut seen = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(text) {
            let count = from.read(&mut buffer).await.expect("read");
            assert!(count > 0, "ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
    };
    let came = tokio::time::timeout(SESSION_MAX, read).await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(came.is_ok(), "{text:?} did not come: {seen:?}");
    seen
}

pub(crate) async fn exec() {
    let world = World::new("exec-session").await;
    for (name, users) in [("plain", true), ("mapped", false)] {
        let security = json!({"runAsUser": 1000});
        world
            .create(
                name,
                json!({"hostUsers": users, "containers": [
                    {"name": "c", "command": ["sleep", "1000000"], "env": [{"name": "A", "value": "b"}]},
                    {"name": "u", "command": ["sleep", "1000000"], "securityContext": security},
                ]}),
            )
            .await;
        world.ready(name).await;
        let open = |container: &'static str, script: &'static str, stdin, terminal| {
            let node = world.node.clone();
            async move {
                let opened = node
                    .exec("default", name, container, words(script), stdin, terminal)
                    .await;
                opened.unwrap_or_else(|error| panic!("{name} {container} {script}: {error}"))
            }
        };
        let (code, out, errors) = talk(
            open("c", "echo $A; echo no >&2; exit 7", false, false).await,
            b"",
        )
        .await;
        assert_eq!(
            (code.expect("code"), out.as_str(), errors.as_str()),
            (7, "b\n", "no\n")
        );
        // All of the input, and its end.
        let (code, out, _) = talk(
            open("c", "wc -c; cat", true, false).await,
            &vec![b'x'; 300_000],
        )
        .await;
        assert_eq!((code.expect("code"), out.trim()), (0, "300000"));
        // A program that does not read its input.
        let (code, _, _) = talk_without_writing(open("c", "exit 3", true, false).await).await;
        assert_eq!(code.expect("code"), 3);
        // Whoever it runs as owns its streams.
        let (_, out, _) = talk(
            open(
                "u",
                "id -u; cat < /dev/stdin; echo x > /dev/stdout",
                true,
                false,
            )
            .await,
            b"in\n",
        )
        .await;
        assert_eq!(out, "1000\nin\nx\n");
        for container in ["c", "u"] {
            terminal(open(container, "echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo tty; read line; echo \"<$line>\"; echo size; busybox stty size; exit 5", true, true).await).await;
        }
    }
    let missing = world
        .node
        .exec(
            "default",
            "plain",
            "c",
            vec!["/none".to_owned()],
            false,
            false,
        )
        .await
        .expect("opens");
    let (code, ..) = talk(missing, b"").await;
    let error = code.expect_err("no such program").to_string();
    assert!(error.contains("no such file"), "{error}");
    let error = world
        .node
        .exec("default", "plain", "none", words("true"), false, false)
        .await
        .expect_err("no such container");
    assert!(matches!(error, SessionError::NotRunning(_)), "{error}");
    // Nobody listens any more: the program ends.
    for terminal in [false, true] {
        let session = world
            .node
            .exec(
                "default",
                "plain",
                "c",
                words("sleep 98711 & sleep 98711"),
                true,
                terminal,
            )
            .await
            .expect("opens");
        until("it runs", || processes_with("98711") >= 2).await;
        drop(session);
        until("it is gone", || processes_with("98711") == 0).await;
    }
    world.close().await;
}

async fn talk_without_writing(session: Session) -> (Result<i32, StartError>, String, String) {
    let Session {
        stdin,
        stdout,
        stderr,
        terminal,
        exit,
    } = session;
    let outcome = talk(
        Session {
            stdin: None,
            stdout,
            stderr,
            terminal,
            exit,
        },
        b"",
    )
    .await;
    drop(stdin);
    outcome
}

async fn terminal(session: Session) {
    let Session {
        stdin,
        stdout,
        terminal,
        exit,
        ..
    } = session;
    let (mut stdin, mut stdout) = (stdin.expect("stdin"), stdout.expect("stdout"));
    let talk = async {
        let seen = read_until(&mut stdout, "tty\r\n").await;
        assert!(seen.starts_with("xterm\r\n"), "{seen:?}");
        terminal.expect("terminal").resize(123, 45).expect("resize");
        stdin.write_all(b"hello\n").await.expect("input");
        let seen = read_until(&mut stdout, "45 123").await;
        assert!(seen.contains("<hello>\r\n"), "{seen:?}");
    };
    let (code, ()) = tokio::time::timeout(SESSION_MAX, async { tokio::join!(exit, talk) })
        .await
        .expect("the session ends");
    assert_eq!(code.expect("code"), 5);
}

pub(crate) async fn attach() {
    let world = World::new("attach").await;
    world
        .create(
            "talks",
            json!({"restartPolicy": "Never", "containers": [
                {"name": "once", "stdin": true, "stdinOnce": true, "command": ["sh", "-c", "cat; echo end; exit 4"]},
                {"name": "again", "stdin": true, "command": ["cat"]},
                {"name": "term", "stdin": true, "tty": true, "command": ["sh"]},
                {"name": "quiet", "command": ["sh", "-c", "cat; sleep 1000000"]},
            ]}),
        )
        .await;
    world.ready("talks").await;
    let open = |container: &str| {
        world
            .node
            .attach("default", "talks", container)
            .expect("opens")
    };
    let (_, out, _) = talk(open("once"), b"words\n").await;
    assert_eq!(out, "words\nend\n");
    for _ in 0..2 {
        // The container's input stays open for the next client.
        let Session {
            stdin,
            stdout,
            exit,
            ..
        } = open("again");
        let (mut stdin, mut stdout) = (stdin.expect("stdin"), stdout.expect("stdout"));
        let talk = async {
            stdin.write_all(b"echoed\n").await.expect("input");
            read_until(&mut stdout, "echoed\n").await;
        };
        tokio::select! {
            () = talk => {}
            _ = exit => panic!("the container has ended"),
        }
    }
    let Session {
        stdin,
        stdout,
        exit,
        terminal,
        ..
    } = open("term");
    let (mut stdin, mut stdout) = (stdin.expect("stdin"), stdout.expect("stdout"));
    terminal.expect("terminal").resize(99, 33).expect("resize");
    let talk = async {
        stdin
            .write_all(b"busybox stty size; tty\n")
            .await
            .expect("input");
        read_until(&mut stdout, "33 99").await;
        stdin.write_all(b"exit 6\n").await.expect("input");
        let mut rest = Vec::new();
        let _ = stdout.read_to_end(&mut rest).await;
    };
    let whole = async { tokio::join!(exit, talk) };
    let (_, ()) = tokio::time::timeout(SESSION_MAX, whole)
        .await
        .expect("ends");
    assert!(open("quiet").stdin.is_none());
    let pod = world
        .wait("talks", "has their exit codes", |pod| {
            code(pod, "once") == Some(4) && code(pod, "term") == Some(6)
        })
        .await;
    assert_eq!(code(&pod, "again"), None);
    let options = kinglet_node::LogOptions {
        container: Some("once".to_owned()),
        ..Default::default()
    };
    assert_eq!(world.logs("talks", options).await, "words\nend\n");
    assert!(world.node.attach("default", "talks", "once").is_err());
    world.close().await;
}

fn code(pod: &k8s_openapi::api::core::v1::Pod, name: &str) -> Option<i32> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().flatten();
    let container = all.find(|status| status.name == name)?;
    Some(container.state.as_ref()?.terminated.as_ref()?.exit_code)
}

pub(crate) async fn ports() {
    let world = World::new("ports").await;
    let serve = "printf hi > /tmp/index.html; exec httpd -f -p 127.0.0.1:8080 -h /tmp";
    world
        .create(
            "web",
            json!({"containers": [{"name": "c", "command": ["sh", "-c", serve],
                "readinessProbe": {"exec": {"command": ["sh", "-c", "busybox wget -qO- 127.0.0.1:8080"]}, "periodSeconds": 1}}]}),
        )
        .await;
    world.ready("web").await;
    let mut stream = world
        .node
        .connect("default", "web", 8080)
        .await
        .expect("connects");
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answer");
    assert!(answer.ends_with("hi"), "{answer}");
    let error = world
        .node
        .connect("default", "web", 81)
        .await
        .expect_err("nobody");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    world.close().await;
}
