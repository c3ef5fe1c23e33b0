//! `demo`: the whole story on a Kinglet of its own, with timings.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::args::{DemoArgs, Target};
use crate::client::Connection;
use crate::control::Addresses;

const STEP_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const SERVICE: &str = "/apis/serving.knative.dev/v1/namespaces/default/services";
const PODS: &str =
    "/api/v1/namespaces/default/pods?labelSelector=serving.knative.dev/service=hello";

pub(crate) async fn run(args: &DemoArgs) -> anyhow::Result<()> {
    // A random name, closed to others: anybody may write to the folder it lies in.
    let folder = tempfile::Builder::new()
        .prefix("kinglet-demo-")
        .tempdir()
        .context("making a temporary folder")?
        .keep();
    let began = Instant::now();
    let (addresses, mut child) = start(&folder).await?;
    say(
        began,
        &format!(
            "kinglet is up: API {}, services {}",
            addresses.api_url,
            addresses.http_url.as_deref().unwrap_or_default()
        ),
    );
    let outcome = tokio::select! {
        outcome = story(&addresses) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if args.keep && outcome.is_ok() {
        anstream::println!(
            "\nStill running. Look around with\n  kubectl --kubeconfig {} get ksvc,pods\nand stop it with\n  kinglet down --data {}",
            addresses.kubeconfig,
            folder.display()
        );
        return Ok(());
    }
    let stopped = Instant::now();
    stop(&mut child, &folder)
        .await
        .with_context(|| format!("its data is {}", folder.display()))?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    say(stopped, "kinglet stopped, nothing left behind");
    outcome
}

async fn start(folder: &Path) -> anyhow::Result<(Addresses, Child)> {
    let ready = folder.join("ready.json");
    let log = std::fs::File::create(folder.join("kinglet.log"))?;
    let mut child = std::process::Command::new(std::env::current_exe()?)
        .args(["up", "--api-port", "0", "--http-port", "0", "--data"])
        .arg(folder)
        .arg("--kubeconfig")
        .arg(folder.join("kubeconfig"))
        .arg("--ready-file")
        .arg(&ready)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A Ctrl-C is ours: we stop it in order.
        .process_group(0)
        .spawn()
        .context("starting kinglet")?;
    let deadline = Instant::now() + STEP_MAX;
    loop {
        if let Some(addresses) = std::fs::read(&ready)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        {
            return Ok((addresses, child));
        }
        if let Some(status) = child.try_wait()? {
            let log = std::fs::read_to_string(folder.join("kinglet.log")).unwrap_or_default();
            let _ = std::fs::remove_dir_all(folder);
            bail!(
                "{} (kinglet ended with {status})",
                crate::instance::last_words(&log)
            );
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            bail!(
                "kinglet did not serve within {} s; its log is {}",
                STEP_MAX.as_secs(),
                folder.join("kinglet.log").display()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn story(addresses: &Addresses) -> anyhow::Result<()> {
    let connection = Connection::open(&Target {
        kubeconfig: Some(PathBuf::from(&addresses.kubeconfig)),
        ..Target::default()
    })
    .await?;
    let service = json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"template": {"metadata": {"annotations": {"autoscaling.knative.dev/window": "6s"}},
            "spec": {"containers": [{"image": "samples.kinglet/helloworld", "env": [{"name": "TARGET", "value": "Kinglet"}]}]}}}
    });
    let applied = Instant::now();
    connection
        .call(
            http::Method::POST,
            SERVICE,
            "application/json",
            "application/json",
            serde_json::to_vec(&service)?,
        )
        .await?;
    until("the service to be ready", || async {
        Ok(ready(&connection.get(&format!("{SERVICE}/hello")).await?))
    })
    .await?;
    say(applied, "service hello applied and ready");
    let url = connection.get(&format!("{SERVICE}/hello")).await?["status"]["url"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let host = url.trim_start_matches("http://").to_owned();
    let gateway = addresses.http_url.as_deref().unwrap_or_default();
    anstream::println!("          {}", super::curl_line(gateway, &host));

    let asked = Instant::now();
    let answer = request(gateway, &host).await?;
    say(asked, &format!("first answer: {answer}"));
    let asked = Instant::now();
    request(gateway, &host).await?;
    say(asked, "second answer, warm");

    anstream::println!(
        "          waiting for scale to zero (window 6 s here, 60 s by default, and 30 s grace at most)"
    );
    let waited = Instant::now();
    until("the pods to be gone", || async {
        Ok(connection.get(PODS).await?["items"]
            .as_array()
            .is_some_and(Vec::is_empty))
    })
    .await?;
    say(waited, "scaled to zero: no pod, no process");

    let asked = Instant::now();
    let answer = request(gateway, &host).await?;
    say(
        asked,
        &format!("cold start, from zero to the answer: {answer}"),
    );
    Ok(())
}

fn ready(service: &Value) -> bool {
    service["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| {
            conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
}

async fn until<F: Future<Output = anyhow::Result<bool>>>(
    what: &str,
    check: impl Fn() -> F,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + STEP_MAX;
    while !check().await? {
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", STEP_MAX.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn request(gateway: &str, host: &str) -> anyhow::Result<String> {
    let address = gateway.trim_start_matches("http://").trim_end_matches('/');
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to the gateway {address}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let request = http::Request::get("/")
            .header(http::header::HOST, host)
            .body(Empty::<bytes::Bytes>::new())?;
        let answer = sender
            .send_request(request)
            .await
            .context("asking the service")?;
        let status = answer.status();
        let text = String::from_utf8_lossy(&answer.into_body().collect().await?.to_bytes())
            .trim()
            .to_owned();
        if !status.is_success() {
            bail!("the service answered {status}: {text}");
        }
        Ok(text)
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => bail!("the gateway closed the connection: {ended:?}"),
    }
}

/// Asks it to stop, and waits until the process is gone.
async fn stop(child: &mut Child, folder: &Path) -> anyhow::Result<()> {
    let _: Value = crate::control::call(
        &crate::location::control_socket(folder),
        http::Method::POST,
        "/shutdown",
        &json!({}),
    )
    .await?;
    let deadline = Instant::now() + STEP_MAX;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            bail!("kinglet (pid {}) is still stopping", child.id());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn say(since: Instant, what: &str) {
    let milliseconds = since.elapsed().as_secs_f64() * 1000.0;
    if milliseconds < 1000.0 {
        anstream::println!("{milliseconds:7.1} ms {what}")
    } else {
        anstream::println!("{:7.2} s  {what}", milliseconds / 1000.0)
    }
}
