//! What each command does.

mod apply;
mod delete;
mod demo;
mod describe;
mod docker_login;
mod get;
mod image;
mod logs;
mod manifests;
mod status;
mod wait;

use std::io::Write as _;

use clap::CommandFactory as _;

use crate::args::{Arguments, Command};
use crate::control::Addresses;
use crate::instance;

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => instance::detach(&args).await,
        Command::Attach(_) | Command::Gateway(_) | Command::Activator(_) | Command::Queue(_) => {
            anyhow::bail!("this is composed by the program itself")
        }
        Command::Down(args) => instance::down(&args).await,
        Command::Reset(args) => instance::reset(&args).await,
        Command::Status(args) => status::run(&args).await,
        Command::Demo(args) => demo::run(&args).await,
        Command::Image(command) => image::run(command).await,
        Command::Apply(args) => apply::run(&args).await,
        Command::Get(args) => get::run(&args).await,
        Command::Describe(args) => describe::run(&args).await,
        Command::Delete(args) => delete::run(&args).await,
        Command::Logs(args) => logs::run(&args).await,
        Command::Wait(args) => wait::run(&args).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "kinglet", &mut script);
            Ok(std::io::stdout()
                .write_all(&script)
                .map_err(crate::screen::Unwritten)?)
        }
        Command::Version => {
            crate::screen::say!("kinglet {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// The few lines that `up` ends with: commands that work when pasted.
pub fn next_steps(addresses: &Addresses) -> String {
    let mut lines = vec![
        format!("Kinglet is up (pid {}).", addresses.pid),
        format!("  Kubernetes API   {}", addresses.api_url),
    ];
    if let Some(url) = &addresses.http_url {
        lines.push(format!(
            "  Services         {url} by Host header, domain {}",
            addresses.domain
        ));
    }
    if let Some(url) = &addresses.https_url {
        lines.push(format!(
            "  Services, https  {url}{}",
            https_words(addresses)
        ));
    }
    lines.push(format!("  Kubeconfig       {}", addresses.kubeconfig));
    lines.push(String::new());
    lines.push("Try it:".to_owned());
    let (tool, flags) = tool(addresses, kubectl_is_here());
    let service = r#"{"apiVersion":"serving.knative.dev/v1","kind":"Service","metadata":{"name":"hello","namespace":"default"},"spec":{"template":{"spec":{"containers":[{"image":"samples.kinglet/helloworld"}]}}}}"#;
    lines.push(format!("  echo '{service}' | {tool} apply {flags} -f -"));
    lines.push(format!("  {tool} get ksvc -A {flags}"));
    if let Some(url) = &addresses.http_url {
        lines.push(format!(
            "  {}",
            curl_line(url, &format!("hello.default.{}", addresses.domain))
        ));
    }
    lines.join("\n")
}

/// Where certificates come from, and what is to be trusted.
pub(crate) fn https_words(addresses: &Addresses) -> String {
    match &addresses.https_ca {
        Some(file) if std::path::Path::new(file).exists() => {
            format!(", certificates signed by {file} (curl --cacert, or let browsers trust it)")
        }
        _ => ", with certificates of Secrets; `external-domain-tls: Enabled` in config-network makes one for every host"
            .to_owned(),
    }
}

/// The program for commands to paste, and the flags that lead it here: kubectl where there is one, else our own.
fn tool(addresses: &Addresses, kubectl: bool) -> (&'static str, String) {
    let users = crate::kubeconfig::users_file()
        .is_some_and(|path| path.display().to_string() == addresses.kubeconfig);
    let program = if kubectl { "kubectl" } else { "kinglet" };
    (
        program,
        if users {
            "--context kinglet".to_owned()
        } else {
            format!("--kubeconfig {}", addresses.kubeconfig)
        },
    )
}

fn kubectl_is_here() -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join("kubectl").is_file())
    })
}

/// A curl command that works whether or not the host name resolves.
pub(crate) fn curl_line(http_url: &str, host: &str) -> String {
    let authority = http_url.trim_start_matches("http://").trim_end_matches('/');
    let (address, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    if port == "80" {
        format!("curl --resolve {host}:80:{address} http://{host}")
    } else {
        format!("curl --resolve {host}:{port}:{address} http://{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_steps_work_when_pasted() {
        let addresses = Addresses {
            api_url: "https://127.0.0.1:6443".to_owned(),
            http_url: Some("http://127.0.0.1:8080".to_owned()),
            https_url: Some("https://127.0.0.1:8443".to_owned()),
            https_ca: None,
            registry: None,
            domain: "localhost".to_owned(),
            kubeconfig: "/tmp/k".to_owned(),
            pid: 7,
        };
        let text = next_steps(&addresses);
        assert!(text.contains("apply --kubeconfig /tmp/k -f -") && text.contains("curl --resolve hello.default.localhost:8080:127.0.0.1 http://hello.default.localhost:8080"), "{text}");
        assert!(
            text.contains("https://127.0.0.1:8443, with certificates of Secrets"),
            "{text}"
        );
        let signed = Addresses {
            https_ca: Some("/proc/self/exe".to_owned()),
            ..addresses.clone()
        };
        assert!(next_steps(&signed).contains("signed by /proc/self/exe (curl --cacert"));
        assert_eq!(tool(&addresses, false).0, "kinglet");
        assert_eq!(
            curl_line("http://127.0.0.1:80", "a.b.localhost"),
            "curl --resolve a.b.localhost:80:127.0.0.1 http://a.b.localhost"
        );
    }
}
