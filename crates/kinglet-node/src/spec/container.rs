//! The program of one container: what runs, as whom, with which environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SecurityContext};
use kinglet_image::ImageConfig;

use crate::spec::environment::expand;
use crate::spec::security;
use crate::wire::{Process, User};

/// The program with its environment and privileges. `environment` is complete: node, image and container.
pub(crate) fn process(
    pod: &Pod,
    container: &Container,
    image: &ImageConfig,
    environment: &[(String, String)],
) -> Result<Process, String> {
    let argv = arguments(container, image, environment);
    if argv.is_empty() {
        return Err("no command specified: neither the image nor the container has one".to_owned());
    }
    let own = container.security_context.as_ref();
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let privileged = own.and_then(|own| own.privileged) == Some(true);
    let directory = container
        .working_dir
        .as_deref()
        .filter(|path| !path.is_empty())
        .unwrap_or(&image.working_dir);
    Ok(Process {
        argv,
        env: environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        directory: PathBuf::from(if directory.is_empty() { "/" } else { directory }),
        user: user(own, of_pod, image)?,
        capabilities: if privileged {
            (0..=40).collect()
        } else {
            security::capabilities(own.and_then(|own| own.capabilities.as_ref()))?
        },
        no_new_privileges: !privileged
            && own.and_then(|own| own.allow_privilege_escalation) == Some(false),
        filter_system_calls: security::filters_system_calls(own, of_pod)?,
        oom_score_adj: 0,
    })
}

/// The program and its arguments. A command of the Pod's replaces the image's entrypoint and its arguments.
fn arguments(
    container: &Container,
    image: &ImageConfig,
    environment: &[(String, String)],
) -> Vec<String> {
    let known: BTreeMap<String, String> = environment.iter().cloned().collect();
    let expanded = |words: &[String]| {
        words
            .iter()
            .map(|word| expand(word, &known))
            .collect::<Vec<_>>()
    };
    let command = container
        .command
        .as_deref()
        .filter(|words| !words.is_empty());
    let arguments = container.args.as_deref().filter(|words| !words.is_empty());
    match (command, arguments) {
        (Some(command), arguments) => {
            [expanded(command), expanded(arguments.unwrap_or_default())].concat()
        }
        (None, Some(arguments)) => [image.entrypoint.clone(), expanded(arguments)].concat(),
        (None, None) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
    }
}

/// Who the program runs as: what the container says, else the Pod, else the image.
fn user(
    own: Option<&SecurityContext>,
    of_pod: Option<&PodSecurityContext>,
    image: &ImageConfig,
) -> Result<User, String> {
    let uid = own
        .and_then(|own| own.run_as_user)
        .or(of_pod.and_then(|pod| pod.run_as_user));
    let gid = own
        .and_then(|own| own.run_as_group)
        .or(of_pod.and_then(|pod| pod.run_as_group));
    let must_not_be_root = own
        .and_then(|own| own.run_as_non_root)
        .or(of_pod.and_then(|pod| pod.run_as_non_root))
        == Some(true);
    let image_user = image.user.split(':').next().unwrap_or("");
    if must_not_be_root
        && uid.is_none()
        && !image_user.is_empty()
        && image_user.parse::<u32>().is_err()
    {
        return Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root"
        ));
    }
    let groups = of_pod.into_iter().flat_map(|pod| {
        pod.supplemental_groups
            .iter()
            .flatten()
            .chain(&pod.fs_group)
    });
    Ok(User {
        of_image: image.user.clone(),
        groups: groups
            .map(|gid| id(*gid, "group"))
            .collect::<Result<_, _>>()?,
        uid: uid.map(|uid| id(uid, "user")).transpose()?,
        gid: gid.map(|gid| id(gid, "group")).transpose()?,
        must_not_be_root,
    })
}

/// The environment from lowest to highest: image, node, container; each name once.
pub(crate) fn environment(
    hostname: &str,
    image: &ImageConfig,
    node: &[(String, String)],
    own: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let of_image = image
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let default_path = (
        "PATH".to_owned(),
        crate::sys::execute::DEFAULT_PATH.to_owned(),
    );
    let hostname = ("HOSTNAME".to_owned(), hostname.to_owned());
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in std::iter::once(default_path)
        .chain(of_image)
        .chain([hostname])
        .chain(node.iter().cloned())
        .chain(own)
    {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => all.push((name, value)),
        }
    }
    all
}

/// The signal that asks a program of this image to end.
pub(crate) fn stop_signal(image: &ImageConfig) -> i32 {
    const SIGTERM: i32 = 15;
    let Some(text) = image.stop_signal.as_deref() else {
        return SIGTERM;
    };
    let name = text.trim().trim_start_matches("SIG");
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => SIGTERM,
        "WINCH" => 28,
        "PWR" => 30,
        number => number
            .parse()
            .ok()
            .filter(|number| (1..=64).contains(number))
            .unwrap_or(SIGTERM),
    }
}

pub(crate) fn id(value: i64, what: &str) -> Result<u32, String> {
    i32::try_from(value)
        .ok()
        .and_then(|id| u32::try_from(id).ok())
        .ok_or_else(|| format!("{what} id {value} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::security::DEFAULT_CAPABILITY_NUMBERS;
    use serde_json::json;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: vec!["/app".to_owned()],
            cmd: vec!["serve".to_owned()],
            env: vec!["A=image".to_owned(), "PATH=/bin".to_owned()],
            user: "web".to_owned(),
            working_dir: "/srv".to_owned(),
            stop_signal: Some("SIGQUIT".to_owned()),
            volumes: Vec::new(),
        }
    }

    fn of(container: serde_json::Value, pod: serde_json::Value) -> Result<Process, String> {
        let pod: Pod = serde_json::from_value(json!({"spec": pod})).expect("pod");
        let container: Container = serde_json::from_value(container).expect("container");
        process(
            &pod,
            &container,
            &image(),
            &[("A".to_owned(), "1".to_owned())],
        )
    }

    #[test]
    fn command_and_arguments_as_kubernetes_combines_them() {
        let argv = |container| of(container, json!({"containers": []})).map(|process| process.argv);
        let words = |text: &str| Ok(text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(argv(json!({"name": "c"})), words("/app serve"));
        assert_eq!(
            argv(json!({"name": "c", "args": ["x$(A)"]})),
            words("/app x1")
        );
        assert_eq!(argv(json!({"name": "c", "command": ["sh"]})), words("sh"));
        assert_eq!(
            argv(json!({"name": "c", "command": ["sh"], "args": ["-c"]})),
            words("sh -c")
        );
    }

    #[test]
    fn users_and_privileges() {
        let process = of(
            json!({"name": "c", "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"}}}),
            json!({"containers": [], "securityContext": {"runAsUser": 8, "runAsGroup": 9, "fsGroup": 10, "supplementalGroups": [11]}}),
        )
        .expect("process");
        assert_eq!(
            (process.user.uid, process.user.gid, process.user.groups),
            (Some(7), Some(9), vec![11, 10])
        );
        assert_eq!(process.capabilities, vec![10]);
        assert!(process.no_new_privileges && process.filter_system_calls);
        let plain = of(json!({"name": "c"}), json!({"containers": []})).expect("process");
        assert_eq!(plain.capabilities.len(), DEFAULT_CAPABILITY_NUMBERS.len());
        assert!(!plain.no_new_privileges && plain.filter_system_calls);
        assert_eq!(plain.directory, PathBuf::from("/srv"));
        let refused = of(
            json!({"name": "c", "securityContext": {"runAsNonRoot": true}}),
            json!({"containers": []}),
        );
        assert!(
            refused
                .expect_err("a name says nothing")
                .contains("non-numeric user (web)")
        );
        assert!(
            of(
                json!({"name": "c", "securityContext": {"capabilities": {"add": ["FLY"]}}}),
                json!({"containers": []})
            )
            .is_err()
        );
    }

    #[test]
    fn later_variables_win_and_stand_once() {
        let all = environment(
            "pod",
            &image(),
            &[("N".to_owned(), "node".to_owned())],
            vec![("A".to_owned(), "own".to_owned())],
        );
        let text: Vec<String> = all
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(text, ["PATH=/bin", "A=own", "HOSTNAME=pod", "N=node"]);
    }

    #[test]
    fn signals_of_images() {
        assert_eq!(stop_signal(&image()), 3);
        assert_eq!(
            stop_signal(&ImageConfig {
                stop_signal: Some("37".to_owned()),
                ..image()
            }),
            37
        );
        assert_eq!(stop_signal(&ImageConfig::default()), 15);
    }
}
