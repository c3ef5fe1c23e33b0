//! `exec`: a program inside the container.

use crate::probe::prober::{ANSWER_BYTES_MAX, ProbeResult, ProbeTarget, Success};
use crate::wire::Process;

pub(crate) async fn probe(target: &ProbeTarget, command: &[String]) -> ProbeResult {
    let (Some(container), Some(process)) = (&target.container, &target.process) else {
        return ProbeResult::Failure("there is no container to run a command in".to_owned());
    };
    let process = Process {
        argv: command.to_vec(),
        ..process.clone()
    };
    match target
        .engine
        .exec(container, process, ANSWER_BYTES_MAX)
        .await
    {
        Ok(output) if output.code == 0 => ProbeResult::Success(Success::default()),
        Ok(output) => ProbeResult::Failure(output.text),
        Err(error) => ProbeResult::Failure(error.to_string()),
    }
}
