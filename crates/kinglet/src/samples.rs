//! The sample programs inside this binary, as images.

use kinglet_image::builtin::BuiltinFile;
use kinglet_image::{BuiltinImage, ImageConfig};

/// The static multi-call program that the build script made.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sample"));

static FILES: [BuiltinFile; 3] = [
    BuiltinFile {
        path: "sample",
        mode: 0o755,
        bytes: PROGRAM,
    },
    BuiltinFile {
        path: "etc/passwd",
        mode: 0o644,
        bytes:
            b"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
    },
    BuiltinFile {
        path: "etc/group",
        mode: 0o644,
        bytes: b"root:x:0:\nnonroot:x:65532:\n",
    },
];

/// `samples.kinglet/NAME`
const NAMES: [&str; 6] = [
    "helloworld",
    "autoscale",
    "grpc-ping",
    "websocket",
    "event-display",
    "event-display-with-reply",
];

/// All samples; they run as an ordinary user.
pub(crate) fn images() -> Vec<BuiltinImage> {
    NAMES
        .iter()
        .map(|name| BuiltinImage {
            name,
            files: &FILES,
            config: ImageConfig {
                entrypoint: vec!["/sample".to_owned(), (*name).to_owned()],
                user: "65532:65532".to_owned(),
                working_dir: "/".to_owned(),
                ..ImageConfig::default()
            },
        })
        .collect()
}
