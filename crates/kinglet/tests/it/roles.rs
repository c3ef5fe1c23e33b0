//! `kinglet gateway`, `activator` and `queue` as processes of their own, on loopback. No root, no containers: the user
//! container is a server in the test.

#![expect(
    clippy::disallowed_methods,
    clippy::type_complexity,
    reason = "tests spawn peers and measure real time; a table of cases is read where it stands"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kinglet_decide::feed::Report;
use kinglet_testkit::component::{Component, queue_variables};
use kinglet_testkit::until::patiently;
use kinglet_testkit::{instance, until, web};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const START_MAX: Duration = Duration::from_secs(30);

/// Starts the component of these flags; it gives its log and its ready file the name `name`.
async fn start(
    folder: &Path,
    name: &str,
    flags: &[&str],
    variables: &BTreeMap<&str, String>,
) -> anyhow::Result<Component> {
    Component::start(command(flags, variables), folder, name).await
}

fn signal(component: &Component, signal: rustix::process::Signal) {
    let pid = i32::try_from(component.id()).expect("a process id");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the process is there");
}

fn command(flags: &[&str], variables: &BTreeMap<&str, String>) -> Command {
    let mut command = Command::new(&super::setup().binary);
    command.args(flags).env_clear().envs(variables);
    command.stdin(Stdio::null());
    command
}

fn activator_variables() -> BTreeMap<&'static str, String> {
    [("POD_NAME", "activator-x"), ("POD_IP", "127.0.0.1")]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
}

/// Answers each request with its target, after as many milliseconds as its query says.
async fn user_container() -> anyhow::Result<SocketAddr> {
    Ok(counting_container().await?.0)
}

/// The same, and how many requests have reached it.
async fn counting_container() -> anyhow::Result<(SocketAddr, Arc<AtomicU64>)> {
    let heads = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&heads);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&counted)));
        }
    });
    Ok((address, heads))
}

async fn answer(mut stream: TcpStream, heads: Arc<AtomicU64>) -> std::io::Result<()> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&seen[..end]).into_owned();
            seen.drain(..end + 4);
            heads.fetch_add(1, Ordering::SeqCst);
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let pause = target.rsplit('=').next().and_then(|text| text.parse().ok());
            tokio::time::sleep(Duration::from_millis(pause.unwrap_or(0))).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}",
                target.len()
            );
            stream.write_all(answer.as_bytes()).await?;
        }
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => seen.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Writes a feed as its writers must: whole, then renamed.
fn write_feed(path: &Path, lines: &[String]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, lines.join("\n"))?;
    std::fs::rename(beside, path)
}

fn rule(host: &str) -> String {
    format!(
        r#"{{"rule":{{"namespace":"ns","ingress":"{host}","hosts":["{host}"],"paths":[{{"splits":[{{"serviceNamespace":"ns","serviceName":"one-00001","servicePort":80,"appendHeaders":{{"Knative-Serving-Revision":"one-00001","Knative-Serving-Namespace":"ns"}}}}]}}]}}}}"#
    )
}

fn service(activators: &[&str]) -> String {
    let addresses: Vec<String> = activators.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        r#"{{"service":{{"namespace":"ns","name":"one-00001","ports":[{{"port":80,"addresses":[{}]}}]}}}}"#,
        addresses.join(",")
    )
}

fn revision(queues: &[&str]) -> String {
    let pods: Vec<String> = queues
        .iter()
        .enumerate()
        .map(|(number, address)| format!(r#"{{"name":"pod-{number}","address":"{address}"}}"#))
        .collect();
    format!(
        r#"{{"revision":{{"namespace":"ns","name":"one-00001","timeoutSeconds":30,"containerConcurrency":10,"pods":[{}]}}}}"#,
        pods.join(",")
    )
}

fn in_runtime<F: Future<Output = anyhow::Result<()>>>(test: F) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    if let Err(error) = runtime.block_on(test) {
        panic!("{error:#}");
    }
}

#[test]
fn a_gateway_shows_the_certificates_of_its_feed() {
    in_runtime(async {
        let folder = instance::scratch("roles-tls");
        std::fs::create_dir_all(&folder)?;
        let now = kinglet_process::Clock::system().now();
        let pki = kinglet_process::pki::Pki::open(&folder.join("pki"), now)?;
        let made = pki.server(&["one.test".to_owned()], &[], now)?;
        let certificate = serde_json::json!({"certificate": {"namespace": "ns", "name": "s",
            "tls.crt": made.certificate_pem, "tls.key": made.key_pem}});
        let (user, _) = counting_container().await?;
        let secured = rule("one.test").replacen(
            r#""paths":"#,
            r#""httpOption":"Redirected","tls":[{"secretNamespace":"ns","secretName":"s"}],"paths":"#,
            1,
        );
        let routes = folder.join("routes");
        let backend = service(&[&user.to_string()]);
        write_feed(
            &routes,
            &[certificate.to_string(), secured, backend.clone()],
        )?;
        let routes_flag = routes.display().to_string();
        let flags = [
            "gateway",
            "--http-port",
            "0",
            "--local-port",
            "0",
            "--status-port",
            "0",
            "--drain",
            "0s",
            "--feed",
            &routes_flag,
        ];
        let gateway = start(&folder, "gateway", &flags, &BTreeMap::new()).await?;
        for port in ["https", "localHttps"] {
            let got = web::get_tls(gateway.address(port), "one.test", "/x", &pki.ca_pem).await?;
            ensure!(
                (got.status, got.body.as_str()) == (200, "/x"),
                "{port}: {got:?}"
            );
        }
        let got = web::get(gateway.address("http"), "one.test", "/x").await?;
        let told = got.headers.get("location").map(|told| told.as_bytes());
        ensure!(
            (got.status, told) == (301, Some(&b"https://one.test/x"[..])),
            "{got:?}"
        );
        // Written with the umask of a careless operator.
        gateway.logs("the feed holds private keys").await?;
        write_feed(&routes, &[rule("one.test"), backend])?;
        signal(&gateway, rustix::process::Signal::HUP);
        until("plain http to be served", START_MAX, || async {
            let got = web::get(gateway.address("http"), "one.test", "/x").await?;
            Ok((got.status == 200).then_some(()))
        })
        .await?;
        let got = web::get_tls(gateway.address("https"), "one.test", "/x", &pki.ca_pem).await;
        ensure!(got.is_err(), "a certificate that is gone is shown: {got:?}");
        let log = std::fs::read_to_string(gateway.log())?;
        ensure!(!log.contains("PRIVATE KEY"), "a key in the log");
        drop(gateway);
        std::fs::remove_dir_all(&folder)?;
        Ok(())
    });
}

#[test]
fn components_forward_follow_their_feed_and_drain() {
    in_runtime(async {
        let folder = instance::scratch("roles");
        std::fs::create_dir_all(&folder)?;
        let (user, heads) = counting_container().await?;
        let quiet = [
            "queue",
            "--admin-port",
            "0",
            "--stat-port",
            "0",
            "--quiet",
            "300ms",
        ];
        let mut queue = start(&folder, "queue", &quiet, &queue_variables(user.port())).await?;
        let revisions = folder.join("revisions");
        write_feed(&revisions, &[revision(&[queue.address("http")])])?;
        let revisions = revisions.display().to_string();
        let flags = [
            "activator",
            "--http-port",
            "0",
            "--h2c-port",
            "0",
            "--profiling-port",
            "0",
            "--drain",
            "300ms",
            "--feed",
            &revisions,
        ];
        let mut activator = start(&folder, "activator", &flags, &activator_variables()).await?;
        let routes = folder.join("routes");
        let backend = service(&[activator.address("http")]);
        write_feed(&routes, &[rule("one.test"), backend.clone()])?;
        let routes_flag = routes.display().to_string();
        let flags = [
            "gateway",
            "--http-port",
            "0",
            "--local-port",
            "0",
            "--status-port",
            "0",
            "--drain",
            "300ms",
            "--feed",
            &routes_flag,
        ];
        let mut gateway = start(&folder, "gateway", &flags, &BTreeMap::new()).await?;
        let http = gateway.address("http").to_owned();
        let status = gateway.address("status").to_owned();

        let got = web::get(&http, "one.test", "/first").await?;
        ensure!(
            (got.status, got.body.as_str()) == (200, "/first"),
            "{got:?}"
        );
        ensure!(web::get(&http, "two.test", "/").await?.status == 404);
        let ready = web::get(&status, "gateway", "/ready").await?;
        ensure!(ready.status == 200, "{ready:?}");

        // A changed feed, and one that cannot be read.
        write_feed(&routes, &[rule("one.test"), rule("two.test"), backend])?;
        signal(&gateway, rustix::process::Signal::HUP);
        until("the new route", START_MAX, || async {
            let got = web::get(&http, "two.test", "/").await?;
            Ok((got.status == 200).then_some(()))
        })
        .await?;
        write_feed(&routes, &["nonsense".to_owned()])?;
        signal(&gateway, rustix::process::Signal::HUP);
        gateway.logs("line 1 of the feed").await?;
        ensure!(web::get(&http, "two.test", "/").await?.status == 200);

        // Each ends with its last request, and says meanwhile that it goes.
        let slow =
            |gateway: String| async move { web::get(&gateway, "one.test", "/slow?ms=1500").await };
        let heads_before = heads.load(Ordering::SeqCst);
        let asked = tokio::spawn(slow(http.clone()));
        until("the request is at the container", START_MAX, || async {
            Ok((heads.load(Ordering::SeqCst) > heads_before).then_some(()))
        })
        .await?;
        signal(&gateway, rustix::process::Signal::TERM);
        until("the gateway to say so", START_MAX, || async {
            let answer = web::get(&status, "gateway", "/ready").await;
            Ok(answer
                .map_or(true, |answer| answer.status == 503)
                .then_some(()))
        })
        .await?;
        signal(&activator, rustix::process::Signal::TERM);
        signal(&queue, rustix::process::Signal::TERM);
        let got = asked.await??;
        ensure!(
            (got.status, got.body.as_str()) == (200, "/slow?ms=1500"),
            "{got:?}"
        );
        for component in [&mut gateway, &mut activator, &mut queue] {
            let ended = component.ended().await?;
            ensure!(ended.success(), "{}: {ended}", component.log().display());
        }
        std::fs::remove_dir_all(folder)?;
        Ok(())
    });
}

#[test]
fn what_a_component_cannot_start_with_is_named() -> anyhow::Result<()> {
    let folder = instance::scratch("roles-refused");
    std::fs::create_dir_all(&folder)?;
    let bad = folder.join("bad");
    std::fs::write(&bad, "{\"service\":{\"namespace\":\"ns\"}}")?;
    let bad = bad.display().to_string();
    let missing = folder.join("none").display().to_string();
    let mut numbers = queue_variables(1);
    numbers.insert("CONTAINER_CONCURRENCY", "many".to_owned());
    let mut unset = queue_variables(1);
    unset.remove("SERVING_REVISION");
    let none = BTreeMap::new();
    let cases: [(&[&str], &BTreeMap<&str, String>, &[&str]); 8] = [
        (
            &["queue"],
            &none,
            &[
                "environment variable USER_PORT is not set",
                "SERVING_POD_IP",
            ],
        ),
        (
            &["queue"],
            &unset,
            &["environment variable SERVING_REVISION is not set"],
        ),
        (
            &["queue"],
            &numbers,
            &["CONTAINER_CONCURRENCY is \"many\"", "whole number"],
        ),
        (&["gateway"], &none, &["--feed"]),
        (
            &["gateway", "--feed", &missing],
            &none,
            &["reading the feed", &missing],
        ),
        (
            &["gateway", "--feed", &bad],
            &none,
            &["line 1 of the feed", "missing field `name`"],
        ),
        (
            &["activator", "--feed", &bad],
            &none,
            &["--pod-name", "--pod-ip"],
        ),
        (
            &["activator", "--feed", &bad, "--drain", "soon"],
            &none,
            &["--drain", "no duration"],
        ),
    ];
    for (flags, variables, words) in cases {
        let output = command(flags, variables).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{flags:?}: {output:?}");
        for word in words {
            ensure!(said.contains(word), "{flags:?}: no {word} in {said}");
        }
        ensure!(said.starts_with("Error: "), "{flags:?}: {said}");
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// A second signal ends at once, and fails.
#[test]
fn a_second_signal_does_not_wait() {
    in_runtime(async {
        let folder = instance::scratch("roles-twice");
        std::fs::create_dir_all(&folder)?;
        let user = user_container().await?;
        let flags = ["queue", "--admin-port", "0", "--stat-port", "0"];
        let mut queue = start(&folder, "queue", &flags, &queue_variables(user.port())).await?;
        signal(&queue, rustix::process::Signal::TERM);
        let http = queue.address("http").to_owned();
        until("probes to be refused", START_MAX, || async {
            let probe = http::Request::get("/")
                .header("host", "a")
                .header("k-network-probe", "probe")
                .header("k-network-hash", "h")
                .body(http_body_util::Full::default())?;
            Ok((web::send(&http, probe).await?.status == 503).then_some(()))
        })
        .await?;
        signal(&queue, rustix::process::Signal::INT);
        let ended = queue.ended().await?;
        ensure!(ended.code() == Some(1), "{ended}");
        std::fs::remove_dir_all(folder)?;
        Ok(())
    });
}

/// A client as they are: idempotent requests, sent again where the connection fails, and nothing else forgiven.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<anyhow::Result<Duration>>>,
}

impl Load {
    /// `clients` of them, each asking for the next answer as soon as it has one.
    pub(crate) fn start(gateway: &str, host: &str, path: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let clients = (0..clients)
            .map(|_| {
                let (gateway, stop, answered) =
                    (gateway.to_owned(), stop.clone(), answered.clone());
                let (host, path) = (host.to_owned(), path.to_owned());
                tokio::spawn(async move {
                    let mut longest = Duration::ZERO;
                    while !stop.load(Ordering::Relaxed) {
                        let began = Instant::now();
                        loop {
                            match web::get(&gateway, &host, &path).await {
                                Ok(got) => {
                                    ensure!(got.status == 200, "{got:?}");
                                    break;
                                }
                                Err(error) => {
                                    ensure!(began.elapsed() < patiently(START_MAX), "{error:#}");
                                    tokio::time::sleep(Duration::from_millis(20)).await;
                                }
                            }
                        }
                        longest = longest.max(began.elapsed());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(longest)
                })
            })
            .collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits for `more` answers.
    pub(crate) async fn answers(&self, more: u64) -> anyhow::Result<()> {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        until("answers", START_MAX, || async {
            if self
                .clients
                .iter()
                .any(tokio::task::JoinHandle::is_finished)
            {
                return Ok(Some(())); // `end` says why
            }
            Ok((self.answered.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
        .await
    }

    /// The longest that any of them waited for its answer.
    pub(crate) async fn end(self) -> anyhow::Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for client in self.clients {
            longest = longest.max(client.await??);
        }
        Ok(longest)
    }
}

#[test]
fn any_one_of_them_may_be_killed_under_load() {
    in_runtime(async {
        let folder = instance::scratch("roles-killed");
        std::fs::create_dir_all(&folder)?;
        let user = user_container().await?;
        let queue_flags = ["queue", "--admin-port", "0", "--stat-port", "0"];
        let mut queues = Vec::new();
        for name in ["queue-0", "queue-1"] {
            queues.push(start(&folder, name, &queue_flags, &queue_variables(user.port())).await?);
        }
        let feed = folder.join("feed");
        let feed_flag = feed.display().to_string();
        let flags = [
            "activator",
            "--http-port",
            "0",
            "--h2c-port",
            "0",
            "--profiling-port",
            "0",
            "--feed",
            &feed_flag,
        ];
        let pods = revision(&[queues[0].address("http"), queues[1].address("http")]);
        write_feed(&feed, std::slice::from_ref(&pods))?;
        let mut activators = Vec::new();
        for name in ["activator-0", "activator-1"] {
            activators.push(start(&folder, name, &flags, &activator_variables()).await?);
        }
        let both = service(&[activators[0].address("http"), activators[1].address("http")]);
        write_feed(&feed, &[rule("one.test"), both, pods])?;
        let flags = |port: &str| {
            [
                "gateway",
                "--local-port",
                "0",
                "--status-port",
                "0",
                "--feed",
                &feed_flag,
                "--http-port",
                port,
            ]
            .map(str::to_owned)
        };
        let start_gateway = async |port: &str| {
            let flags = flags(port);
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            start(&folder, "gateway", &flags, &BTreeMap::new()).await
        };
        let gateway = start_gateway("0").await?;
        let http = gateway.address("http").to_owned();
        let port = http.rsplit(':').next().context("a port")?.to_owned();

        let load = Load::start(&http, "one.test", "/x?ms=5", 8);
        load.answers(200).await?;
        // Dropping one kills it.
        drop(activators.remove(0));
        load.answers(200).await?;
        drop(queues.remove(0));
        load.answers(200).await?;
        drop(gateway);
        let _gateway = start_gateway(&port).await?;
        load.answers(200).await?;
        let longest = load.end().await?;
        ensure!(longest < patiently(Duration::from_secs(10)), "{longest:?}");
        std::fs::remove_dir_all(folder)?;
        Ok(())
    });
}

/// An activator says by its kubelet probe whether it has its autoscaler, and tells it of requests that wait.
#[test]
fn an_activator_is_ready_with_its_autoscaler_and_tells_it_who_waits() {
    in_runtime(async {
        let folder = instance::scratch("roles-autoscaler");
        std::fs::create_dir_all(&folder)?;
        let feed = folder.join("feed");
        write_feed(&feed, &[revision(&[])])?;
        let feed = feed.display().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let autoscaler = listener.local_addr()?;
        drop(listener);
        let address = autoscaler.to_string();
        let flags = [
            "activator",
            "--http-port",
            "0",
            "--h2c-port",
            "0",
            "--profiling-port",
            "0",
            "--feed",
            &feed,
            "--autoscaler",
            &address,
        ];
        let activator = start(&folder, "activator", &flags, &activator_variables()).await?;
        let http = activator.address("http").to_owned();
        let probe = || async {
            let probe = http::Request::get("/")
                .header("host", "a")
                .header("user-agent", "kube-probe/1.34")
                .body(http_body_util::Full::default())?;
            web::send(&http, probe).await
        };
        let got = probe().await?;
        ensure!(got.status == 500, "{got:?}");
        ensure!(
            got.body.contains("connection has not yet been established"),
            "{got:?}"
        );

        let (reports, mut heard) = tokio::sync::mpsc::channel(64);
        let tasks = kinglet_process::Tasks::new();
        let listener = TcpListener::bind(autoscaler).await?;
        tokio::spawn(kinglet_dataplane::stats::serve(
            listener,
            reports,
            |_| true,
            tasks.clone(),
        ));
        until("the activator to be ready", START_MAX, || async {
            Ok((probe().await?.status == 200).then_some(()))
        })
        .await?;
        let waits = {
            let http = http.clone();
            tokio::spawn(
                async move { web::get(&http, "one-00001.ns.svc.cluster.local", "/").await },
            )
        };
        let report = tokio::time::timeout(patiently(START_MAX), heard.recv()).await?;
        let Some(Report::Stat {
            revision,
            source,
            stat,
        }) = report
        else {
            bail!("{report:?}");
        };
        ensure!(revision.to_string() == "ns/one-00001", "{revision}");
        ensure!(source.pod.as_ref() == "activator-x", "{source:?}");
        ensure!(stat.average_concurrent_requests > 0.0, "{stat:?}");
        waits.abort();
        tasks.shutdown(Duration::from_secs(1)).await;
        until("the activator to notice", START_MAX, || async {
            Ok((probe().await?.status == 500).then_some(()))
        })
        .await?;
        std::fs::remove_dir_all(folder)?;
        Ok(())
    });
}

#[test]
fn a_queue_proxy_logs_requests_as_it_is_told() {
    in_runtime(async {
        let folder = instance::scratch("roles-log");
        std::fs::create_dir_all(&folder)?;
        let user = user_container().await?;
        let flags = ["queue", "--admin-port", "0", "--stat-port", "0"];
        let mut variables = queue_variables(user.port());
        let log = r#"{"enableRequestLog":true,"requestLogTemplate":"said {{.Request.Method}} {{.Request.RequestURI}} {{.Response.Code}} {{.Revision.Name}}"}"#;
        variables.insert("OBSERVABILITY_CONFIG", log.to_owned());
        let queue = start(&folder, "queue", &flags, &variables).await?;
        web::get(queue.address("http"), "one.test", "/path?a=b").await?;
        queue.logs("said GET /path?a=b 200 one-00001\n").await?;
        let bad = r#"{"enableRequestLog":true,"requestLogTemplate":"{{.Request"}"#;
        variables.insert("OBSERVABILITY_CONFIG", bad.to_owned());
        let output = command(&flags, &variables).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(said.contains("OBSERVABILITY_CONFIG"), "{said}");
        std::fs::remove_dir_all(folder)?;
        Ok(())
    });
}

/// A value of a page in Prometheus' format, of the series that begins so.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(series))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn prometheus_and_the_profiler_are_answered_where_they_are_asked_for() {
    in_runtime(async {
        let folder = instance::scratch("roles-metrics");
        std::fs::create_dir_all(&folder)?;
        let user = user_container().await?;
        let flags = [
            "queue",
            "--admin-port",
            "0",
            "--stat-port",
            "0",
            "--metrics-port",
            "0",
            "--profiling-port",
            "0",
        ];
        let mut variables = queue_variables(user.port());
        let observability =
            r#"{"requestMetrics":{"protocol":"prometheus"},"runtime":{"profiling":"enabled"}}"#;
        variables.insert("OBSERVABILITY_CONFIG", observability.to_owned());
        let queue = start(&folder, "queue", &flags, &variables).await?;
        let revisions = folder.join("revisions");
        write_feed(&revisions, &[revision(&[queue.address("http")])])?;
        let revisions = revisions.display().to_string();
        let flags = [
            "activator",
            "--http-port",
            "0",
            "--h2c-port",
            "0",
            "--profiling-port",
            "0",
            "--metrics-protocol",
            "prometheus",
            "--metrics-port",
            "0",
            "--feed",
            &revisions,
        ];
        let activator = start(&folder, "activator", &flags, &activator_variables()).await?;
        for _ in 0..3 {
            let host = "one-00001.ns.svc.cluster.local";
            let got = web::get(activator.address("http"), host, "/x").await?;
            ensure!(got.status == 200, "{got:?}");
        }
        let get = r#"{http_request_method="GET",http_response_status_code="200"}"#;
        let whole = format!("http_server_request_duration_seconds_count{get}");
        let container = format!("kn_serving_invocation_duration_seconds_count{get}");
        for (component, series) in [
            (&queue, vec![whole.as_str(), container.as_str()]),
            (&activator, vec![whole.as_str()]),
        ] {
            // A response is counted when its last byte is passed on, which its client may have before.
            until("three requests to be counted", START_MAX, || async {
                let page = web::get(component.address("metrics"), "m", "/metrics")
                    .await?
                    .body;
                for name in &series {
                    ensure!(value(&page, name) == Some(3.0), "{name}: {page}");
                }
                Ok(Some(()))
            })
            .await?;
        }
        let page = web::get(queue.address("metrics"), "m", "/metrics")
            .await?
            .body;
        ensure!(
            value(&page, "kn_serving_queue_depth") == Some(0.0),
            "{page}"
        );
        ensure!(page.contains(r#"kn_revision_name="one-00001""#), "{page}");
        let page = web::get(activator.address("metrics"), "m", "/metrics")
            .await?
            .body;
        let series = r#"kn_revision_request_active{k8s_namespace_name="ns","#;
        ensure!(value(&page, series) == Some(0.0), "{page}");

        let profile = async |component: &Component, path: &str| {
            let at = component.address("profiling").to_owned();
            web::get(&at, "p", &format!("/debug/pprof/{path}")).await
        };
        let words = profile(&queue, "cmdline").await?;
        ensure!(words.body.contains("queue\0--admin-port"), "{words:?}");
        ensure!(profile(&queue, "profile").await?.status == 501);
        ensure!(profile(&queue, "heap").await?.status == 404);
        ensure!(profile(&activator, "cmdline").await?.status == 404);
        std::fs::remove_dir_all(folder)?;
        Ok(())
    });
}
