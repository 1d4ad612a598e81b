//! What is known of the catalog's state: which epoch it is in, and whether somebody is about to change it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counts changes of the catalog, by whatever session.
pub struct Definitions {
    /// The epoch that the database was opened in.
    instance: AtomicU64,
    epoch: AtomicU64,
    /// Statements that run, and may change it.
    changing: AtomicU64,
}

/// A statement that may change the catalog runs, here and on workers, as long as this is there.
pub struct Changing<'a>(&'a Definitions);

impl Definitions {
    pub fn new() -> Self {
        // A restarted server must not repeat the epochs of the one before it.
        let instance = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| u64::try_from(since.as_micros()).unwrap_or(1));
        Self {
            instance: AtomicU64::new(instance),
            epoch: AtomicU64::new(instance),
            changing: AtomicU64::new(0),
        }
    }

    /// Names this run of the server, or the part of it since the database was opened last.
    pub fn instance(&self) -> u64 {
        self.instance.load(Ordering::SeqCst)
    }

    /// The database has been opened again.
    pub fn reopened(&self) {
        self.advance();
        self.instance.store(self.epoch(), Ordering::SeqCst);
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The catalog may have been changed.
    pub fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Something that may change the catalog begins. It [advances](Definitions::advance) the epoch before its end.
    pub fn changing(&self) -> Changing<'_> {
        self.changing.fetch_add(1, Ordering::SeqCst);
        Changing(self)
    }

    /// The epoch, if nobody is changing the catalog. The same one twice means that nobody has in between.
    pub fn settled(&self) -> Option<u64> {
        // In this order: what ends between the two has advanced the epoch.
        (self.changing.load(Ordering::SeqCst) == 0).then(|| self.epoch())
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changing.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_opened_again_is_another_one() {
        let definitions = Definitions::new();
        let (instance, epoch) = (definitions.instance(), definitions.epoch());
        definitions.reopened();
        assert_ne!(definitions.instance(), instance);
        assert!(definitions.epoch() > epoch);
    }

    #[test]
    fn what_is_being_changed_is_not_settled() {
        let definitions = Definitions::new();
        let before = definitions.settled();
        assert!(before.is_some());
        let (first, second) = (definitions.changing(), definitions.changing());
        assert_eq!(definitions.settled(), None);
        definitions.advance();
        drop(first);
        assert_eq!(definitions.settled(), None);
        drop(second);
        assert!(definitions.settled() > before);
        assert_eq!(definitions.settled(), definitions.settled());
    }
}
