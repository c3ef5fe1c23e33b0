//! The lock and the atomics of the breaker. Under `kinglet_loom` they are loom's, which tries the orders in which threads may
//! reach them. tokio's own channels stay as they are: they do not depend on this crate's lock, and tokio checks them itself.

#[cfg(not(kinglet_loom))]
mod chosen {
    pub(crate) use parking_lot::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

#[cfg(kinglet_loom)]
mod chosen {
    pub(crate) use loom::sync::MutexGuard;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

    /// loom's lock, called as parking_lot's.
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("a model that panics ends")
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }
}

pub(super) use chosen::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
