//! Which failures were warned of already.
//!
//! An object that cannot be reconciled as it is fails at each of its wake-ups with the same words. Those are said once, and
//! again when they change or after a reconcile that succeeded.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::object::Key;

/// The last failure of each key. As many as objects that cannot be reconciled: a reconcile that succeeds, as that of a
/// deleted object does, takes its key away.
#[derive(Default)]
pub(crate) struct Warnings(Mutex<HashMap<Key, String>>);

impl Warnings {
    /// Records a failure; `false` when the one before had the same words.
    pub(crate) fn is_news(&self, key: &Key, words: String) -> bool {
        let before = self.0.lock().insert(key.clone(), words.clone());
        before != Some(words)
    }

    pub(crate) fn succeeded(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_news_once() {
        let warnings = Warnings::default();
        let (a, b) = (Key::new("ns", "a"), Key::new("ns", "b"));
        let is_news = |key, words: &str| warnings.is_news(key, words.to_owned());
        assert!(is_news(&a, "no such revision"));
        assert!(!is_news(&a, "no such revision"));
        assert!(is_news(&b, "no such revision"), "another object");
        assert!(is_news(&a, "no such domain"), "other words");
        warnings.succeeded(&a);
        assert!(is_news(&a, "no such domain"), "after a success");
        assert!(!is_news(&b, "no such revision"));
    }
}
