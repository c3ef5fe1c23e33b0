//! One object as a cache holds it: the bytes as they came, its head, and a typed copy while somebody reads it.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

use super::head::{self, Head, Words};
use crate::object::Object;

/// An object without types. Over our own API server in this process the bytes are those of the store.
pub struct DynamicObject {
    head: Arc<Head>,
    raw: Bytes,
    typed: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
    /// Whether somebody read the typed copy since the last sweep.
    touched: AtomicBool,
    /// Whether it cannot be read as the type that was asked for.
    unreadable: AtomicBool,
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
        })
    }

    /// The same with its typed copy.
    pub(super) fn with_typed<K: Object>(self, object: &Arc<K>) -> Self {
        let copy: Arc<dyn Any + Send + Sync> = object.clone();
        *self.typed.lock() = Some(copy);
        self.touched.store(true, Ordering::Relaxed);
        self
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
                let copy: Arc<dyn Any + Send + Sync> = object.clone();
                *self.typed.lock() = Some(copy);
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

    /// Drops the typed copy if nobody read it since the last time.
    pub(super) fn sweep(&self) {
        if !self.touched.swap(false, Ordering::Relaxed) {
            self.typed.lock().take();
        }
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
