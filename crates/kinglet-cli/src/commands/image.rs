//! `image`: list, pull, import, remove, through the running Kinglet.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kinglet_image::{ImageName, ImageSummary, ProgressEvent};
use serde_json::json;

use super::docker_login;
use crate::args::{ImageCommand, PullArgs};
use crate::control::{self, ImageList, ImageRequest, ImportRequest, PullLine, PullRequest};
use crate::{location, table};

pub(crate) async fn run(command: ImageCommand) -> anyhow::Result<()> {
    let socket = |data| location::control_socket(&location::data_directory(data));
    match &command {
        ImageCommand::Ls(data) => {
            let images: ImageList =
                control::call(&socket(data), http::Method::GET, "/images", &json!({})).await?;
            crate::screen::show!("{}", show(&images));
            Ok(())
        }
        ImageCommand::Pull(args) => pull(&socket(&args.data), args).await,
        ImageCommand::Import { file, name, data } => {
            let path = archive_path(file)?;
            let request = ImportRequest {
                path,
                name: name.clone(),
            };
            let images: ImageList = control::call(
                &socket(data),
                http::Method::POST,
                "/images/import",
                &request,
            )
            .await?;
            for image in images {
                crate::screen::say!("imported {} ({})", image.reference, image.digest);
            }
            Ok(())
        }
        ImageCommand::Rm { image, data } => {
            let _: serde_json::Value = control::call(
                &socket(data),
                http::Method::POST,
                "/images/remove",
                &ImageRequest {
                    image: image.clone(),
                },
            )
            .await?;
            crate::screen::say!("removed {image}");
            Ok(())
        }
    }
}

/// The absolute path of an archive; what is no file would be read for ever, or be a disk.
fn archive_path(file: &Path) -> anyhow::Result<PathBuf> {
    let path = file
        .canonicalize()
        .with_context(|| format!("reading {}", file.display()))?;
    let meta = std::fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?;
    if !meta.is_file() {
        bail!(
            "{} is not a file; an archive is imported from a regular file",
            file.display()
        );
    }
    Ok(path)
}

fn show(images: &[ImageSummary]) -> String {
    let mut rows = vec![
        ["IMAGE", "DIGEST", "SIZE", "FROM"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for image in images {
        let digest = image.digest.trim_start_matches("sha256:");
        let from = if image.built_in { "built in" } else { "stored" };
        rows.push(vec![
            image.reference.clone(),
            digest[..digest.len().min(12)].to_owned(),
            indicatif::HumanBytes(image.bytes).to_string(),
            from.to_owned(),
        ]);
    }
    table::align(&rows)
}

async fn pull(socket: &Path, args: &PullArgs) -> anyhow::Result<()> {
    let image = &args.image;
    let request = PullRequest {
        image: image.clone(),
        docker_config: docker_config(args)?,
        ca_pem: args.ca.as_deref().map(authority).transpose()?,
    };
    let mut answer = control::send(socket, http::Method::POST, "/images/pull", &request)
        .await?
        .into_body();
    let mut bars = Bars::default();
    let mut buffer = Vec::new();
    while let Some(frame) = answer.frame().await {
        let Ok(data) = frame
            .context("reading the progress of the pull")?
            .into_data()
        else {
            continue;
        };
        buffer.extend_from_slice(&data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            match serde_json::from_slice(&line).context("reading the progress of the pull")? {
                PullLine::Failed { error } => bail!("{error}"),
                PullLine::Progress(ProgressEvent::Done { digest }) => {
                    bars.all.clear()?;
                    crate::screen::say!("{image} is here ({digest})");
                    return Ok(());
                }
                PullLine::Progress(event) => bars.show(event),
            }
        }
    }
    bail!("the running Kinglet went away during the pull")
}

/// The text of `--ca`, which must be certificates.
fn authority(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("reading --ca {}", file.display()))?;
    match kinglet_process::tls::authorities(text.as_bytes()) {
        Ok(_) => Ok(text),
        Err(message) => bail!("--ca {}: {message}", file.display()),
    }
}

/// The credentials for an image's registry as a docker `config.json`: from `--creds`, else from `docker login`.
fn docker_config(args: &PullArgs) -> anyhow::Result<Option<serde_json::Value>> {
    let name = ImageName::parse(&args.image)?;
    let (username, password) = match args.creds.as_deref() {
        Some("-") => {
            let mut line = String::new();
            std::io::stdin()
                .read_line(&mut line)
                .context("reading credentials from standard input")?;
            split_credentials(line.trim_end_matches(['\r', '\n']))?
        }
        Some(creds) => split_credentials(creds)?,
        None => match docker_login::stored(&name)? {
            Some(pair) => pair,
            None => return Ok(None),
        },
    };
    let auth = json!({"username": username, "password": password});
    Ok(Some(json!({ "auths": { name.registry: auth } })))
}

fn split_credentials(creds: &str) -> anyhow::Result<(String, String)> {
    match creds.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok((user.to_owned(), password.to_owned()))
        }
        _ => bail!("--creds takes USER:PASS"),
    }
}

/// One bar per layer; silent without a terminal.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    layers: HashMap<String, ProgressBar>,
}

impl Bars {
    fn show(&mut self, event: ProgressEvent) {
        match event {
            ProgressEvent::Asking { source } => {
                let _ = self.all.println(format!("asking {source}"));
            }
            ProgressEvent::SourceFailed { source, message } => {
                let _ = self.all.println(format!("{source}: {message}"));
            }
            ProgressEvent::LayerStarted { layer, bytes_total } => {
                let style = ProgressStyle::with_template(
                    "{prefix:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}",
                )
                .expect("the template is constant");
                let bar = self.all.add(
                    ProgressBar::new(bytes_total).with_style(style).with_prefix(
                        layer
                            .trim_start_matches("sha256:")
                            .chars()
                            .take(12)
                            .collect::<String>(),
                    ),
                );
                self.layers.insert(layer, bar);
            }
            ProgressEvent::LayerBytes { layer, bytes } => {
                if let Some(bar) = self.layers.get(&layer) {
                    bar.set_position(bytes);
                }
            }
            ProgressEvent::LayerDone { layer } => {
                if let Some(bar) = self.layers.get(&layer) {
                    bar.finish();
                }
            }
            ProgressEvent::Done { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(creds: Option<&str>) -> PullArgs {
        PullArgs {
            image: "registry.example.com:5000/team/app:1".to_owned(),
            creds: creds.map(str::to_owned),
            ca: None,
            data: crate::args::DataArgs::default(),
        }
    }

    #[test]
    fn credentials_of_the_command_line() {
        let config = docker_config(&args(Some("me:s3:cret"))).expect("parses");
        assert_eq!(
            config,
            Some(
                json!({"auths": {"registry.example.com:5000": {"username": "me", "password": "s3:cret"}}})
            )
        );
        for bad in ["me", ":x", "me:", ""] {
            let error = docker_config(&args(Some(bad))).expect_err(bad).to_string();
            assert!(error.contains("USER:PASS"), "{error}");
        }
    }

    #[test]
    fn a_certificate_authority_that_is_none_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("ca.pem");
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&file, text).expect("file");
            let error = authority(&file).expect_err("none").to_string();
            assert!(error.contains("ca.pem"), "{error}");
        }
        let error = format!(
            "{:#}",
            authority(Path::new("/nonexistent/ca")).expect_err("none")
        );
        assert!(error.contains("/nonexistent/ca"), "{error}");
    }

    #[test]
    fn only_regular_files_are_archives() {
        for path in ["/dev/zero", "/dev", "/proc/self/fd"] {
            assert!(archive_path(Path::new(path)).is_err(), "{path}");
        }
    }
}
