//! Requests per second through the gateway, through nginx, and directly.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kinglet_testkit::api::{sample_service, serving};
use kinglet_testkit::load::percentile;
use kinglet_testkit::{instance, until, web};
use serde_json::json;

use super::{annotated, start};

const CONNECTIONS: u32 = 32;

/// One of the ways to the container.
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) address: String,
    pub(super) host: String,
    pub(super) rates: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Way {
    pub(super) fn new(name: &'static str, address: String, host: &str) -> Self {
        Self {
            name,
            address,
            host: host.to_owned(),
            rates: Vec::new(),
            p50: Vec::new(),
            p99: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, (rate, p50, p99): (f64, f64, f64)) {
        self.rates.push(rate);
        self.p50.push(p50);
        self.p99.push(p99);
    }
}

pub(crate) async fn run(seconds: u32, rounds: u32) -> anyhow::Result<()> {
    require_programs()?;
    let (kinglet, api) = start().await?;
    let services = serving("default", "services");
    let host = "hello.default.localhost";
    api.create(&services, &annotated(sample_service("hello", "default", "helloworld"), &json!({"autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/max-scale": "1"}))).await?;
    api.condition(
        &format!("{services}/hello"),
        "Ready",
        "True",
        Duration::from_secs(60),
    )
    .await?;
    let pods = api.get("/api/v1/namespaces/default/pods").await?;
    let container = format!(
        "{}:8080",
        pods["items"][0]["status"]["podIP"]
            .as_str()
            .context("the pod has an address")?
    );
    let folder = instance::scratch("nginx");
    let nginx = nginx(&folder, &container)?;
    let nginx_address = format!("127.0.0.1:{}", nginx.port);
    until("nginx", Duration::from_secs(10), || async {
        Ok((web::get(&nginx_address, host, "/").await?.status == 200).then_some(()))
    })
    .await?;
    let mut ways = [
        ("gateway", kinglet.gateway().to_owned()),
        ("nginx", nginx_address.clone()),
        ("container", container),
    ]
    .map(|(name, address)| Way::new(name, address, host));
    for _ in 0..rounds {
        for way in &mut ways {
            let measured = wrk(way, seconds)?;
            way.add(measured);
        }
    }
    drop(nginx);
    let _ = std::fs::remove_dir_all(folder);
    report(&ways, seconds, rounds);
    kinglet.stop().await
}

pub(super) fn require_programs() -> anyhow::Result<()> {
    for (program, package) in [("wrk", "wrk"), ("nginx", "nginx-light")] {
        if !Path::new("/usr/bin").join(program).exists()
            && !Path::new("/usr/sbin").join(program).exists()
        {
            bail!("{program} is not installed: apt-get install {package}");
        }
    }
    Ok(())
}

fn report(ways: &[Way; 3], seconds: u32, rounds: u32) {
    println!(
        "requests per second, {CONNECTIONS} connections, keep-alive HTTP/1.1, {rounds} runs of {seconds} s taking turns (median):"
    );
    for way in ways {
        println!(
            "  {:<10} {:>8.0}/s  p50 {:.2} ms  p99 {:.2} ms",
            way.name,
            percentile(&way.rates, 50.0),
            percentile(&way.p50, 50.0),
            percentile(&way.p99, 50.0)
        );
    }
    println!(
        "  gateway / nginx = {:.2}",
        percentile(&ways[0].rates, 50.0) / percentile(&ways[1].rates, 50.0)
    );
}

pub(super) struct Nginx {
    child: Child,
    pub(super) port: u16,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        instance::terminate(self.child.id());
        let _ = self.child.wait();
    }
}

/// A plain proxy before `container`.
pub(super) fn nginx(folder: &Path, container: &str) -> anyhow::Result<Nginx> {
    let upstream = format!("upstream container {{ server {container}; keepalive 64; }}");
    let location = "proxy_pass http://container; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;";
    start_nginx(folder, &upstream, location)
}

/// A server that answers by itself.
pub(super) fn serving_nginx(folder: &Path) -> anyhow::Result<Nginx> {
    start_nginx(folder, "", "return 200 \"Hello World!\\n\";")
}

fn start_nginx(folder: &Path, upstream: &str, location: &str) -> anyhow::Result<Nginx> {
    std::fs::create_dir_all(folder)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let config = folder.join("nginx.conf");
    std::fs::write(
        &config,
        format!(
            "daemon off; master_process on; worker_processes 2; user root; pid {folder}/pid; error_log {folder}/error.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n\
               {upstream}\n\
               server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ {location} }} }} }}\n",
            folder = folder.display()
        ),
    )?;
    let child = Command::new("nginx")
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting nginx")?;
    Ok(Nginx { child, port })
}

/// Rate, p50 and p99 in milliseconds.
pub(super) fn wrk(way: &Way, seconds: u32) -> anyhow::Result<(f64, f64, f64)> {
    let output = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{CONNECTIONS}"),
            &format!("-d{seconds}s"),
            "--latency",
            "-H",
            &format!("Host: {}", way.host),
            &format!("http://{}/", way.address),
        ])
        .output()
        .context("running wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "{}: {text}",
        way.name
    );
    let field = |label: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(label))
            .map(|rest| rest.trim().to_owned())
    };
    let rate = field("Requests/sec:")
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("reading wrk: {text}"))?;
    let latency = |label: &str| {
        field(label)
            .and_then(|text| milliseconds(&text))
            .unwrap_or(f64::NAN)
    };
    Ok((rate, latency("50%"), latency("99%")))
}

fn milliseconds(text: &str) -> Option<f64> {
    for (unit, factor) in [("us", 1e-3), ("ms", 1.0), ("s", 1e3)] {
        if let Some(number) = text
            .strip_suffix(unit)
            .and_then(|number| number.parse::<f64>().ok())
        {
            return Some(number * factor);
        }
    }
    None
}
