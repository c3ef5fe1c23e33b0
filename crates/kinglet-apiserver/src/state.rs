//! The state that all requests share.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use kinglet_process::Tasks;
use kinglet_store::Store;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::conversion::Places;
use crate::kinds::custom::{self, Converters};
use crate::options::Options;
use crate::registry::Registry;
use crate::webhook_client::Dial;

pub(crate) struct ServerState {
    pub(crate) store: Store,
    pub(crate) registry: ArcSwap<Registry>,
    pub(crate) options: Options,
    /// Cluster IPs in use.
    pub(crate) addresses: Mutex<HashSet<[u8; 4]>>,
    /// Cancelled when the listener stops: streams to outside end, so that their connections can.
    pub(crate) closing: CancellationToken,
    /// Orders what must be decided and stored in one piece: quota, CRDs.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Owns the writes of clients outside, which go on when their client goes.
    pub(crate) writes: Tasks,
    /// How many sessions with containers may still be opened.
    pub(crate) sessions: Arc<crate::streams::Places>,
    /// How webhooks are reached, once there is a network from which to call them.
    pub(crate) dial: OnceLock<Dial>,
    /// Bounds of the conversion webhooks in use.
    pub(crate) places: Places,
    /// Counts the sets of kinds, so that watches of custom kinds hear of a new one.
    pub(crate) reloads: tokio::sync::watch::Sender<u64>,
    /// One set of kinds is made at a time, so that the newest is the last one put in place.
    pub(crate) reloading: Mutex<()>,
    /// OpenAPI documents and discovery answers, made once per registry.
    pub(crate) documents: Mutex<std::collections::HashMap<String, Bytes>>,
}

impl std::fmt::Debug for ServerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerState")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl ServerState {
    /// The time as Kubernetes writes it, to the second.
    pub(crate) fn now(&self) -> String {
        self.options
            .clock
            .now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string()
    }

    /// A random (version 4) UUID.
    pub(crate) fn uuid(&self) -> String {
        let mut b = [0u8; 16];
        (self.options.entropy)(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let hex: String = b.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "{}-{}-{}-{}-{}",
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..]
        )
    }

    /// Five letters as `generateName` appends them.
    pub(crate) fn suffix(&self) -> String {
        const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut random = [0u8; 5];
        (self.options.entropy)(&mut random);
        random
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
            .collect()
    }

    /// Serves with the CRDs now in the store.
    pub(crate) fn reload(&self) {
        let _one = self.reloading.lock();
        self.registry.store(Arc::new(Registry::new(
            custom::stored(&self.store).iter(),
            self.converters(),
        )));
        self.documents.lock().clear();
        self.reloads.send_modify(|count| *count += 1);
    }

    /// How definitions get their conversions.
    pub(crate) fn converters(&self) -> Converters<'_> {
        Converters {
            in_process: &self.options.conversions,
            places: &self.places,
        }
    }
}
