//! A real Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager. No kubelet, no scheduler: ours play those.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::instance::{scratch, terminate};
use crate::{Api, until};

const START_MAX: Duration = Duration::from_secs(60);
const TOKEN: &str = "tests-only";

/// A running control plane; ends with its guard.
pub struct Cluster {
    children: Vec<Child>,
    folder: PathBuf,
    /// Port of the manager, should there be one.
    manager: u16,
    /// Kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
}

/// The folder with the real programs, when they were built and etcd is installed.
pub fn programs() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("KINGLET_PEERS")?);
    let built =
        folder.join("kube-apiserver").is_file() && folder.join("kube-controller-manager").is_file();
    (built && etcd().is_some()).then_some(folder)
}

fn etcd() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .chain(["/usr/bin".into()])
        .map(|folder| folder.join("etcd"))
        .find(|file| file.is_file())
}

impl Cluster {
    /// Starts everything on free ports and waits until Pods could be made.
    pub async fn start() -> anyhow::Result<Self> {
        let mut cluster = Self::without_manager().await?;
        cluster.manage().await?;
        Ok(cluster)
    }

    /// Only etcd and kube-apiserver: who tests our own controllers plays the manager.
    pub async fn without_manager() -> anyhow::Result<Self> {
        let programs = programs().context(
            "the real control plane is not built (cargo xtask peers) or etcd is not installed",
        )?;
        let folder = scratch("cluster");
        std::fs::create_dir_all(&folder)?;
        let [client, peer, api, manager] = free_ports()?;
        let mut cluster = Self {
            children: Vec::new(),
            kubeconfig: folder.join("kubeconfig"),
            folder,
            manager,
        };
        let folder = cluster.folder.display().to_string();
        std::fs::write(
            cluster.folder.join("tokens.csv"),
            format!("{TOKEN},admin,admin-uid,\"system:masters\"\n"),
        )?;
        let key = Command::new("openssl")
            .args(["genrsa", "-out", &format!("{folder}/sa.key"), "2048"])
            .stderr(Stdio::null())
            .status()
            .context("running openssl")?;
        if !key.success() {
            bail!("openssl genrsa failed: {key}");
        }
        let server = format!("https://127.0.0.1:{api}");
        std::fs::write(
            &cluster.kubeconfig,
            json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": true}}],
                "users": [{"name": "u", "user": {"token": TOKEN}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]})
            .to_string(),
        )?;
        cluster.spawn(
            &etcd().context("etcd")?,
            &[
                format!("--data-dir={folder}/etcd"),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        )?;
        cluster.spawn(
            &programs.join("kube-apiserver"),
            &[
                format!("--etcd-servers=http://127.0.0.1:{client}"),
                format!("--secure-port={api}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--cert-dir={folder}/certs"),
                format!("--token-auth-file={folder}/tokens.csv"),
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--allow-privileged=true".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={folder}/sa.key"),
                format!("--service-account-signing-key-file={folder}/sa.key"),
            ],
        )?;
        until("the real API server", START_MAX, || async {
            Api::open(&cluster.kubeconfig)
                .await?
                .get("/api/v1/namespaces/default")
                .await
                .map(Some)
        })
        .await
        .with_context(|| cluster.logs())?;
        Ok(cluster)
    }

    /// Adds kube-controller-manager. It notices kinds that are there already at once, later ones after half a minute.
    pub async fn manage(&mut self) -> anyhow::Result<()> {
        let programs = programs().context("the real control plane was there a moment ago")?;
        let (folder, kubeconfig, manager) = (
            self.folder.display().to_string(),
            self.kubeconfig.display().to_string(),
            self.manager,
        );
        self.spawn(
            &programs.join("kube-controller-manager"),
            &[
                format!("--kubeconfig={kubeconfig}"),
                format!("--authentication-kubeconfig={kubeconfig}"),
                format!("--authorization-kubeconfig={kubeconfig}"),
                "--use-service-account-credentials=true".to_owned(),
                format!("--service-account-private-key-file={folder}/sa.key"),
                format!("--root-ca-file={folder}/certs/apiserver.crt"),
                "--leader-elect=false".to_owned(),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={manager}"),
            ],
        )?;
        let access = Api::open(&self.kubeconfig).await?;
        until("the default ServiceAccount", START_MAX, || async {
            access
                .find("/api/v1/namespaces/default/serviceaccounts/default")
                .await
        })
        .await
        .with_context(|| self.logs())?;
        Ok(())
    }

    fn spawn(&mut self, program: &Path, arguments: &[String]) -> anyhow::Result<()> {
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let log = std::fs::File::create(self.folder.join(format!("{name}.log")))?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        self.children.push(child);
        Ok(())
    }

    fn logs(&self) -> String {
        let mut text = String::new();
        for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
            let log = std::fs::read_to_string(self.folder.join(format!("{name}.log")))
                .unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            text.push_str(&format!(
                "{name}: {}\n",
                lines[lines.len().saturating_sub(5)..].join("\n")
            ));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            terminate(child.id());
            let patience = std::time::Instant::now() + Duration::from_secs(5);
            while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < patience {
                #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_ports() -> anyhow::Result<[u16; 4]> {
    // All held at once, so that they differ.
    let held = (0..4)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<Vec<_>, _>>()?;
    let ports = held
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    ports
        .try_into()
        .map_err(|_| anyhow::anyhow!("four ports were asked for"))
}
