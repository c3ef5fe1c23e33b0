//! A real etcd and kube-apiserver in a temporary folder, ended with the test.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running control plane without any controller.
pub(crate) struct Peer {
    etcd: Child,
    apiserver: Child,
    folder: PathBuf,
    port: u16,
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Peer {
    /// Starts it, or says in one line why not.
    #[expect(clippy::print_stdout, reason = "a test that is not run says so")]
    pub(crate) async fn start() -> Option<Self> {
        let Some(peers) = std::env::var_os("KINGLET_PEERS").map(PathBuf::from) else {
            println!("not run: KINGLET_PEERS does not name a folder with kube-apiserver");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("kinglet-workloads-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = folder.join("sa.key");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").stderr(Stdio::null()).status();
        assert!(made.unwrap().success(), "openssl makes a key");
        std::fs::write(folder.join("tokens.csv"), "TOKEN,admin,admin-uid,\"system:masters\"\n").unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let etcd = quiet(
            Command::new("etcd")
                .arg(format!("--data-dir={}", folder.join("etcd").display()))
                .arg(format!("--listen-client-urls=http://127.0.0.1:{client}"))
                .arg(format!("--advertise-client-urls=http://127.0.0.1:{client}"))
                .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
                .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
                .arg(format!("--initial-cluster=default=http://127.0.0.1:{peer}")),
        );
        let apiserver = quiet(
            Command::new(peers.join("kube-apiserver"))
                .arg(format!("--etcd-servers=http://127.0.0.1:{client}"))
                .arg(format!("--secure-port={port}"))
                .arg("--bind-address=127.0.0.1")
                .arg(format!("--cert-dir={}", folder.join("certs").display()))
                .arg(format!("--token-auth-file={}", folder.join("tokens.csv").display()))
                .args(["--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16"])
                .args(["--allow-privileged=true", "--service-account-issuer=https://kubernetes.default.svc"])
                .arg(format!("--service-account-key-file={}", key.display()))
                .arg(format!("--service-account-signing-key-file={}", key.display())),
        );
        let peer = Self { etcd, apiserver, folder, port };
        let client = peer.client();
        let ready = async {
            while client.apiserver_version().await.is_err() || client.list_core_api_resources("v1").await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ready).await.expect("kube-apiserver answers");
        Some(peer)
    }

    /// A client with every right.
    pub(crate) fn client(&self) -> kube::Client {
        // The first one to install it wins; the others find it there.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut config = kube::Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = Some("TOKEN".to_owned().into());
        kube::Client::try_from(config).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in [&mut self.apiserver, &mut self.etcd] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
