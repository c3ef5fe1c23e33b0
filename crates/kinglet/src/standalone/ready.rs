//! Where everything is, for those who wait for it: kubeconfigs, the ready file, and the lines that `up` prints.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kinglet_cli::UpArgs;
use kinglet_cli::control::Addresses;
use kinglet_cli::{kubeconfig, location};
use kinglet_process::notify::{State, notify};
use kinglet_process::pki::Pki;
use tokio_util::sync::CancellationToken;

use crate::listeners;

/// Writes kubeconfigs and answers what the ready file says.
pub(super) fn publish(
    args: &UpArgs,
    data: &Path,
    pki: &Pki,
    api_url: &str,
    http_url: &str,
    https: Option<SocketAddr>,
) -> anyhow::Result<Addresses> {
    let entry = kubeconfig::Entry {
        server: api_url,
        ca_pem: &pki.ca_pem,
        certificate_pem: &pki.admin.certificate_pem,
        key_pem: &pki.admin.key_pem,
        data,
    };
    let own = location::own_kubeconfig(data);
    kinglet_process::private::write(&own, &kubeconfig::whole(&entry)?)?;
    let shown: PathBuf = match (&args.kubeconfig, kubeconfig::users_file()) {
        (Some(file), _) => {
            kinglet_process::private::write(file, &kubeconfig::whole(&entry)?)
                .context("writing the kubeconfig named with --kubeconfig")?;
            std::path::absolute(file).unwrap_or_else(|_| file.clone())
        }
        (None, Some(file)) => match kubeconfig::merge_into(&file, &entry, args.use_context) {
            Ok(_) => file,
            Err(error) => {
                tracing::warn!("{error:#}; use {} instead", own.display());
                own
            }
        },
        (None, None) => own,
    };
    Ok(Addresses {
        api_url: api_url.to_owned(),
        http_url: Some(http_url.to_owned()),
        https_url: https.map(|https| format!("https://{}", listeners::shown(https))),
        https_ca: Some(pki.browsers.certificate_path().display().to_string()),
        registry: None,
        domain: args.domain.clone(),
        kubeconfig: shown.display().to_string(),
        pid: std::process::id(),
    })
}

/// Says that everything serves; not to those who have stopped it meanwhile.
pub(super) fn announce(
    ready_file: Option<&Path>,
    addresses: &Addresses,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if stop.is_cancelled() {
        return Ok(());
    }
    if let Some(file) = ready_file {
        let text = serde_json::to_string(addresses).expect("strings serialize");
        kinglet_process::private::write(file, &text).context("writing the ready file")?;
    }
    println_steps(addresses);
    notify(location::notify_socket().as_deref(), State::Ready);
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "the lines that the user of `up` is waiting for"
)]
fn println_steps(addresses: &Addresses) {
    println!("{}", kinglet_cli::next_steps(addresses));
}
