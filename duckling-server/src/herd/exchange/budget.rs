//! How much memory and disk all exchanges of a duckling take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes taken, of bytes there are.
#[derive(Debug)]
struct Account {
    taken: AtomicU64,
    most: AtomicU64,
    max: u64,
}

impl Account {
    fn new(max: u64) -> Self {
        Self {
            taken: AtomicU64::new(0),
            most: AtomicU64::new(0),
            max,
        }
    }

    fn try_take(&self, bytes: u64) -> bool {
        let taken = self
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| {
                taken.checked_add(bytes).filter(|taken| *taken <= self.max)
            })
            .ok();
        if let Some(before) = taken {
            self.most.fetch_max(before + bytes, Ordering::Relaxed);
        }
        taken.is_some()
    }
}

/// The bounds, and what is taken of them.
#[derive(Debug)]
pub struct Budget {
    memory: Account,
    disk: Account,
}

/// What is taken, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Of memory, now.
    pub memory_bytes: u64,
    /// The most that it has been.
    pub memory_bytes_most: u64,
    /// Of disk, now.
    pub disk_bytes: u64,
}

impl Budget {
    pub fn new(memory_bytes_max: u64, disk_bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            memory: Account::new(memory_bytes_max),
            disk: Account::new(disk_bytes_max),
        })
    }

    /// Takes memory, if there is so much.
    pub fn memory(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        self.memory.try_take(bytes).then(|| Charge {
            budget: Arc::clone(self),
            bytes,
            is_disk: false,
        })
    }

    /// Takes disk, if there is so much.
    pub fn disk(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        self.disk.try_take(bytes).then(|| Charge {
            budget: Arc::clone(self),
            bytes,
            is_disk: true,
        })
    }

    pub fn disk_bytes_max(&self) -> u64 {
        self.disk.max
    }

    pub fn taken(&self) -> Taken {
        Taken {
            memory_bytes: self.memory.taken.load(Ordering::Acquire),
            memory_bytes_most: self.memory.most.load(Ordering::Relaxed),
            disk_bytes: self.disk.taken.load(Ordering::Acquire),
        }
    }
}

/// Something taken; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
    is_disk: bool,
}

impl Charge {
    /// Takes more of the same; whether there was so much.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.account().try_take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    fn account(&self) -> &Account {
        if self.is_disk {
            &self.budget.disk
        } else {
            &self.budget.memory
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account().taken.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
