//! `kinglet attach`: our controllers, binder, node and gateway over somebody else's API server.
//!
//! What a controller sees must not depend on who serves the API; this shape proves it against a real control plane.
//! The cluster's own controllers make Pods of Deployments, endpoints and garbage; there is no admission of ours, so
//! objects must come complete, as the webhook would leave them.

use anyhow::Context as _;
use kinglet_cli::AttachArgs;
use kinglet_cli::control::Addresses;
use kinglet_image::Images;
use kinglet_node::Node;
use kinglet_process::{Clock, Supervisor, Tasks, logging};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::standalone::{
    API_STOP_MAX, Ending, MACHINE_STOP_MAX, failed, make_private, registries, stop_machine,
    watch_components, watch_signals,
};
use crate::start::{self, MachineOptions, Outside};
use crate::{bootstrap, listeners, samples};

/// Runs until SIGTERM or Ctrl-C.
pub(crate) async fn run(args: &AttachArgs) -> anyhow::Result<()> {
    logging::start(
        &args.log,
        std::io::IsTerminal::is_terminal(&std::io::stderr()),
    );
    let stop = CancellationToken::new();
    watch_signals(&stop)?;
    let supervisor = Supervisor::new();
    watch_components(&supervisor, &stop);
    Node::preflight()?;
    let data = std::path::absolute(&args.data)?;
    make_private(&data)?;
    // Nothing is on the host yet that would have to be taken away.
    let prepared = tokio::select! {
        prepared = Prepared::new(args) => prepared?,
        () = stop.cancelled() => return Ok(()),
    };
    let Prepared {
        client,
        server,
        http_listener,
    } = prepared;
    let http_address = http_listener.local_addr()?;
    let https = listeners::bind_https(args.listen, None, Some(args.http_port)).await?;
    let https_address = https.as_ref().map(TcpListener::local_addr).transpose()?;

    let (own_client, own_data) = (client.clone(), data.clone());
    let tasks = Tasks::new().supervised_by(&supervisor);
    let options = MachineOptions {
        client,
        clock: Clock::system(),
        tasks: tasks.child(),
        images: Images::open(
            &data.join("images"),
            registries(args.registries.as_deref(), &data)?,
            samples::images(),
        )?,
        data,
        domain: args.domain.clone(),
        // Service addresses are the cluster's: its `kubernetes` Service says where the API is.
        network: kinglet_node::NetworkOptions {
            gateway_port: listeners::moved_gateway_port(http_address)?,
            gateway_https: listeners::https_port_inside(https_address)?,
            ..kinglet_node::NetworkOptions::default()
        },
        // The cluster publishes its own CA in every namespace.
        ca_pem: None,
        browsers: None,
        parts: kinglet_workloads::Parts::BINDER,
        apart: None,
    };
    let outside = Outside {
        http: http_listener,
        https,
    };
    let machine = start::start(options, outside, &stop).await?;
    // What was made on the host is taken away also when the rest of the start fails.
    let announced = async {
        bootstrap::endpoints(
            &own_client,
            machine.node.gateway_ip(),
            &machine.activators(),
            None,
        )
        .await?;

        if let Some(file) = &args.ready_file {
            let addresses = Addresses {
                api_url: server.to_string(),
                http_url: Some(format!("http://{}", listeners::shown(http_address))),
                https_url: https_address
                    .map(|https| format!("https://{}", listeners::shown(https))),
                https_ca: None,
                registry: None,
                domain: args.domain.clone(),
                kubeconfig: args.kubeconfig.display().to_string(),
                pid: std::process::id(),
            };
            let text = serde_json::to_string(&addresses).expect("strings serialize");
            kinglet_process::private::write(file, &text).context("writing the ready file")?;
        }
        anyhow::Ok(())
    };
    let announced = tokio::select! {
        announced = announced => announced,
        () = stop.cancelled() => Ok(()),
    };
    let mut stop_max = MACHINE_STOP_MAX;
    if announced.is_ok() {
        let ending = Ending {
            stop,
            supervisor: supervisor.clone(),
        };
        stop_max = ending.wait().await;
        tracing::info!("stopping: finishing requests under way");
    }
    supervisor.begin_stop();
    stop_machine(&machine, &own_data, stop_max).await;
    tasks.shutdown(API_STOP_MAX).await;
    announced?;
    supervisor
        .fault()
        .map_or(Ok(()), |fault| Err(failed(&fault)))
}

/// What can be asked for and refused before anything is made on the host.
struct Prepared {
    client: kube::Client,
    server: http::Uri,
    http_listener: TcpListener,
}

impl Prepared {
    async fn new(args: &AttachArgs) -> anyhow::Result<Self> {
        let file = Kubeconfig::read_from(&args.kubeconfig)
            .with_context(|| format!("reading {}", args.kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .context("the kubeconfig names no cluster that can be used")?;
        let server = config.cluster_url.clone();
        let client = kube::Client::try_from(config)?;
        let version = client
            .apiserver_version()
            .await
            .with_context(|| format!("asking {server} for its version"))?;
        tracing::info!(%server, version = version.git_version, "attached");
        let http_listener =
            listeners::bind(args.listen, args.http_port, "gateway", "--http-port").await?;
        bootstrap::definitions_through(&client).await?;
        bootstrap::run(&client)
            .await
            .context("preparing the first objects")?;
        Ok(Self {
            client,
            server,
            http_listener,
        })
    }
}
