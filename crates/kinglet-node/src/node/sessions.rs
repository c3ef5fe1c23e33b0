//! `kubectl exec` and `kubectl attach`: sessions with programs in running containers.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::NodeHandle;
use crate::probe::connect::connect_localhost;
use crate::session::attach::{RunningProgram, attach};
use crate::session::{Session, SessionError};
use crate::wire::Process;

impl NodeHandle {
    /// Starts a program in a running container, with its environment, directory and user.
    pub async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: Vec<String>,
        stdin: bool,
        terminal: bool,
    ) -> Result<Session, SessionError> {
        let program = self.program(namespace, pod, container)?;
        let process = Process {
            argv: command,
            ..program.process
        };
        let engine = &self.0.shared.engine;
        Ok(engine
            .open_session(&program.container, process, stdin, terminal)
            .await?)
    }

    /// Connects to the program of a running container.
    pub fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<Session, SessionError> {
        attach(&self.program(namespace, pod, container)?, container)
    }

    /// Connects to a port on the loopback of a pod, as `kubectl port-forward` does.
    pub async fn connect(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> std::io::Result<TcpStream> {
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "no container runs");
        let logs = self.logs_of(namespace, pod).ok_or_else(missing)?;
        let sandbox = {
            let logs = logs.lock();
            let mut programs = logs
                .containers
                .iter()
                .filter_map(|(_, logs)| logs.running.as_ref());
            programs.next().map(|program| Arc::clone(&program.sandbox))
        };
        connect_localhost(&sandbox.ok_or_else(missing)?, port).await
    }

    fn program(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<RunningProgram, SessionError> {
        let logs = self
            .logs_of(namespace, pod)
            .ok_or_else(|| SessionError::NoPod(pod.to_owned()))?;
        let logs = logs.lock();
        let found = logs.containers.iter().find(|(name, _)| name == container);
        found
            .and_then(|(_, logs)| logs.running.clone())
            .ok_or_else(|| SessionError::NotRunning(container.to_owned()))
    }
}
