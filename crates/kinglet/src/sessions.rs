//! Sessions with containers for the API server, from the node.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use kinglet_apiserver::{Connection, PodSessions, Session, SessionOptions, Status};
use kinglet_node::{NodeHandle, SessionError};

use crate::logs::Logs;

impl PodSessions for Logs {
    fn open(
        &self,
        namespace: &str,
        pod: &str,
        options: SessionOptions,
    ) -> BoxFuture<'static, Result<Session, Status>> {
        let (node, namespace, pod) = (self.node(), namespace.to_owned(), pod.to_owned());
        async move { open(node?, &namespace, &pod, options).await }.boxed()
    }

    fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<Connection, String>> {
        let (node, namespace, pod) = (self.node(), namespace.to_owned(), pod.to_owned());
        async move {
            let node = node.map_err(|status| status.message)?;
            let connected = node.connect(&namespace, &pod, port).await;
            connected
                .map(|stream| Box::new(stream) as Connection)
                .map_err(|error| format!("failed to connect to localhost:{port} inside namespace of pod {pod}, {error}"))
        }
        .boxed()
    }
}

async fn open(
    node: NodeHandle,
    namespace: &str,
    pod: &str,
    options: SessionOptions,
) -> Result<Session, Status> {
    let SessionOptions {
        container,
        command,
        stdin,
        tty,
    } = options;
    let opened = match command {
        Some(command) => {
            node.exec(namespace, pod, &container, command, stdin, tty)
                .await
        }
        None => node.attach(namespace, pod, &container),
    };
    let kinglet_node::Session {
        stdin: input,
        stdout,
        stderr,
        terminal,
        exit,
    } = opened.map_err(|error| refusal(&error))?;
    let resize = terminal.map(|terminal| {
        let resize = move |columns, rows| {
            // The terminal may be closed already.
            let _ = terminal.resize(columns, rows);
        };
        Box::new(resize) as Box<dyn Fn(u16, u16) + Send + Sync>
    });
    Ok(Session {
        stdin: input.filter(|_| stdin),
        stdout,
        stderr,
        resize,
        exit: exit
            .map(|exit| exit.map_err(|error| format!("failed to exec in container: {error}")))
            .boxed(),
    })
}

fn refusal(error: &SessionError) -> Status {
    match error {
        SessionError::NoPod(_) => Status::new(404, "NotFound", error.to_string()),
        SessionError::TooMany(_) => Status::new(429, "TooManyRequests", error.to_string()),
        SessionError::NotRunning(_) => Status::new(400, "BadRequest", error.to_string()),
        SessionError::Start(_) => Status::new(
            500,
            "InternalError",
            format!(
                "Internal error occurred: error executing command in container: failed to exec in container: {error}"
            ),
        ),
    }
}
