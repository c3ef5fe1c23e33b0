//! `image`: list, pull, import, remove, through the running Kinglet.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use http_body_util::BodyExt as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kinglet_image::{ImageSummary, ProgressEvent};
use serde_json::json;

use crate::args::ImageCommand;
use crate::control::{self, ImageList, ImageRequest, ImportRequest, PullLine};
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
        ImageCommand::Pull { image, data } => pull(&socket(data), image).await,
        ImageCommand::Import { file, name, data } => {
            let path = file
                .canonicalize()
                .with_context(|| format!("reading {}", file.display()))?;
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

async fn pull(socket: &std::path::Path, image: &str) -> anyhow::Result<()> {
    let mut answer = control::send(
        socket,
        http::Method::POST,
        "/images/pull",
        &ImageRequest {
            image: image.to_owned(),
        },
    )
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
