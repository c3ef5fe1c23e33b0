//! One object as a cache holds it: the bytes as they came, its head, and a typed copy while somebody reads it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::head::{self, Head, Words};
use crate::object::Object;

/// JSON of the objects that have typed copies; past it, those that nobody reads are dropped within seconds. A copy is about
/// four times as large: 16 MiB at 4 MiB, a quarter of the idle memory budget, and the objects of a hundred Services.
pub(crate) const TYPED_BYTES_MAX: usize = 4 << 20;

/// How much JSON has typed copies.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    bytes: AtomicUsize,
    crowded: Notify,
}

impl Copies {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether there are more than there should be.
    pub(crate) fn too_many(&self) -> bool {
        self.bytes() > TYPED_BYTES_MAX
    }

    /// Waits until there are.
    pub(crate) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    fn made(&self, bytes: usize) {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before <= TYPED_BYTES_MAX && before + bytes > TYPED_BYTES_MAX {
            self.crowded.notify_one();
        }
    }

    fn dropped(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// An object without types. Over our own API server in this process the bytes are those of the store.
pub struct DynamicObject {
    head: Arc<Head>,
    raw: Bytes,
    typed: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
    /// Whether somebody read the typed copy since the last sweep.
    touched: AtomicBool,
    /// Whether it cannot be read as the type that was asked for.
    unreadable: AtomicBool,
    /// Counts the typed copies.
    copies: Arc<Copies>,
}

impl Drop for DynamicObject {
    fn drop(&mut self) {
        self.set_typed(None);
    }
}

impl std::fmt::Debug for DynamicObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.head.key, self.head.version)
    }
}

impl DynamicObject {
    pub(super) fn read(raw: Bytes, words: &Words) -> Result<Self, serde_json::Error> {
        Ok(Self {
            head: Arc::new(head::read(&raw, words)?),
            raw,
            typed: Mutex::new(None),
            touched: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            copies: Arc::clone(&words.copies),
        })
    }

    /// The same with its typed copy.
    pub(super) fn with_typed<K: Object>(self, object: &Arc<K>) -> Self {
        self.set_typed(Some(object.clone()));
        self.touched.store(true, Ordering::Relaxed);
        self
    }

    /// Puts a typed copy in the place of the one there is.
    fn set_typed(&self, copy: Option<Arc<dyn Any + Send + Sync>>) {
        let made = copy.is_some();
        let before = std::mem::replace(&mut *self.typed.lock(), copy);
        match (before.is_some(), made) {
            (false, true) => self.copies.made(self.raw.len()),
            (true, false) => self.copies.dropped(self.raw.len()),
            _ => {}
        }
    }

    /// Its metadata.
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// The JSON as the API server gave it, with every field.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The JSON, read.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap_or_default()
    }

    /// The typed copy; it is made when it is asked for and kept while it is read now and then. Nothing when the object does
    /// not fit the type.
    pub fn typed<K: Object>(&self) -> Option<Arc<K>> {
        self.touched.store(true, Ordering::Relaxed);
        let known = self.typed.lock().clone();
        if let Some(copy) = known.and_then(|copy| copy.downcast::<K>().ok()) {
            return Some(copy);
        }
        if self.unreadable.load(Ordering::Relaxed) {
            return None;
        }
        match parse::<K>(&self.raw) {
            Ok(object) => {
                let object = Arc::new(object);
                self.set_typed(Some(object.clone()));
                Some(object)
            }
            Err(error) => {
                // One object that cannot be read must not blind us to the others.
                tracing::warn!(kind = %K::kind(&()), key = %self.head.key, error = %error, "an object could not be read and is left out");
                self.unreadable.store(true, Ordering::Relaxed);
                None
            }
        }
    }

    /// Drops the typed copy if nobody read it since the last time. Gives the bytes of JSON that it stood for.
    pub(super) fn sweep(&self) -> usize {
        if self.touched.swap(false, Ordering::Relaxed) || !self.has_typed() {
            return 0;
        }
        self.set_typed(None);
        self.raw.len()
    }

    pub(super) fn has_typed(&self) -> bool {
        self.typed.lock().is_some()
    }
}

/// Reads an object without what no controller looks at.
pub(crate) fn parse<K: Object>(raw: &[u8]) -> Result<K, serde_json::Error> {
    let mut object: K = serde_json::from_slice(raw)?;
    object.meta_mut().managed_fields = None;
    Ok(object)
}
