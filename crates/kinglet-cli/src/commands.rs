//! What each command does.

mod apply;
mod delete;
mod demo;
mod describe;
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
        Command::Attach(_) => anyhow::bail!("attach is composed by the program itself"),
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
            Ok(std::io::stdout().write_all(&script)?)
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
        lines.push(format!("  Services         {url} by Host header, domain {}", addresses.domain));
    }
    lines.push(format!("  Kubeconfig       {}", addresses.kubeconfig));
    lines.push(String::new());
    lines.push("Try it:".to_owned());
    let flag = if crate::kubeconfig::users_file().is_some_and(|path| path.display().to_string() == addresses.kubeconfig) {
        "--context kinglet".to_owned()
    } else {
        format!("--kubeconfig {}", addresses.kubeconfig)
    };
    lines.push(format!("  kubectl {flag} get ksvc -A"));
    lines.push(format!("  kubectl {flag} apply -f - <<< '{{\"apiVersion\":\"serving.knative.dev/v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"hello\",\"namespace\":\"default\"}},\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{{\"image\":\"samples.kinglet/helloworld\"}}]}}}}}}}}'"));
    if let Some(url) = &addresses.http_url {
        lines.push(format!("  {}", curl_line(url, &format!("hello.default.{}", addresses.domain))));
    }
    lines.join("\n")
}

/// A curl command that works whether or not the host name resolves.
pub(crate) fn curl_line(http_url: &str, host: &str) -> String {
    let authority = http_url.trim_start_matches("http://").trim_end_matches('/');
    let (address, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    if port == "80" { format!("curl --resolve {host}:80:{address} http://{host}") } else { format!("curl --resolve {host}:{port}:{address} http://{host}:{port}") }
}
