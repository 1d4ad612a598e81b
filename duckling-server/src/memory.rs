//! The memory of the process, and how it is divided.

use crate::config::Limits;

/// The program itself, its threads and what each of them has at hand.
const PROGRAM_BYTES: u64 = 96 << 20;

/// The share of exchanges. It comes out of memory that DuckDB could have had.
const EXCHANGE_SHARE: u64 = 10;
/// The share of results that wait for their readers.
const RESULTS_SHARE: u64 = 16;
/// The share of what is on its way between the others, uncounted: batches that are divided, encoded, sent and received.
const UNCOUNTED_SHARE: u64 = 16;
/// The share of what has been freed, and the allocator cannot give back.
const FREED_SHARE: u64 = 32;
/// What one stream is read ahead: a quarter of the share of results, so that several have room.
const READ_AHEAD_SHARE: u64 = 64;
/// The least that a stream is read ahead: two messages.
const READ_AHEAD_BYTES_MIN: u64 = 4 << 20;

/// Lowers the limit of exchanges to their share of what DuckDB has.
pub fn bound_exchanges(database_bytes: u64, limits: &mut Limits) {
    limits.exchange_memory_bytes = limits.exchange_memory_bytes.min(database_bytes / EXCHANGE_SHARE);
}

/// Divides the memory of a process: the limits are lowered to their shares, and what is left is DuckDB's, half of it at
/// least.
pub fn divide(process_bytes: u64, limits: &mut Limits) -> u64 {
    let share = |of: u64| usize::try_from(process_bytes / of).unwrap_or(usize::MAX);
    bound_exchanges(process_bytes, limits);
    limits.results_bytes_max = limits.results_bytes_max.min(share(RESULTS_SHARE));
    limits.transaction_buffer_bytes = limits.transaction_buffer_bytes.min(share(RESULTS_SHARE));
    let read_ahead = (process_bytes / READ_AHEAD_SHARE).max(READ_AHEAD_BYTES_MIN);
    limits.read_ahead_bytes = limits
        .read_ahead_bytes
        .min(usize::try_from(read_ahead).unwrap_or(usize::MAX));
    let others = PROGRAM_BYTES
        + limits.exchange_memory_bytes
        + limits.results_bytes_max as u64
        + process_bytes / UNCOUNTED_SHARE
        + process_bytes / FREED_SHARE;
    process_bytes.saturating_sub(others).max(process_bytes / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    proptest! {
        #[test]
        fn the_shares_are_no_more_than_the_whole(process in 400 * MIB..1024 * 1024 * MIB) {
            let mut limits = Limits::default();
            let database = divide(process, &mut limits);
            let all = database + PROGRAM_BYTES + limits.exchange_memory_bytes + limits.results_bytes_max as u64;
            prop_assert!(all <= process);
            prop_assert!(database >= process / 2);
        }

        #[test]
        fn limits_are_only_lowered(process: u64) {
            let (mut limits, defaults) = (Limits::default(), Limits::default());
            prop_assert!(divide(process, &mut limits) <= process);
            prop_assert!(limits.exchange_memory_bytes <= defaults.exchange_memory_bytes);
            prop_assert!(limits.results_bytes_max <= defaults.results_bytes_max);
            prop_assert!(limits.read_ahead_bytes <= defaults.read_ahead_bytes);
            prop_assert!(limits.transaction_buffer_bytes <= defaults.transaction_buffer_bytes);
        }
    }
}
