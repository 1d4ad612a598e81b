//! Putting the record batches of several streams back into the result's order.

use std::collections::VecDeque;

/// What streams have yielded of one result, until it is its turn.
///
/// Each stream yields batches in the result's order, with gaps: those that the others have. So the one with the next batch
/// never waits behind another batch of its own, and it is enough that a stream of which nothing is here may always be read:
/// the next batch then comes, however little else is kept.
#[derive(Debug)]
pub(crate) struct Reorder<T> {
    next: u64,
    bytes: usize,
    bytes_max: usize,
    streams: Vec<VecDeque<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    index: u64,
    bytes: usize,
    item: T,
}

/// A batch that has been there already, or is not in its stream's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfOrder;

impl<T> Reorder<T> {
    /// For so many streams, of a result whose batches before `next` have been taken. Keeps about `bytes_max` bytes, and a
    /// batch of each stream.
    pub(crate) fn new(streams: usize, next: u64, bytes_max: usize) -> Self {
        Self {
            next,
            bytes: 0,
            bytes_max,
            streams: (0..streams).map(|_| VecDeque::new()).collect(),
        }
    }

    /// Whether there is room for a batch of this stream.
    pub(crate) fn has_room(&self, stream: usize) -> bool {
        self.bytes < self.bytes_max || self.streams.get(stream).is_some_and(VecDeque::is_empty)
    }

    /// Takes a batch of a stream in.
    ///
    /// # Errors
    /// It cannot be this one's turn any more.
    pub(crate) fn push(&mut self, stream: usize, index: u64, bytes: usize, item: T) -> Result<(), OutOfOrder> {
        let queue = self.streams.get_mut(stream).ok_or(OutOfOrder)?;
        let index_min = queue.back().map_or(self.next, |last| last.index + 1);
        if index < index_min || index == u64::MAX {
            return Err(OutOfOrder);
        }
        self.bytes += bytes;
        queue.push_back(Entry { index, bytes, item });
        Ok(())
    }

    /// The result's next batch, if it is here.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let next = self.next;
        let is_next = |queue: &&mut VecDeque<Entry<T>>| queue.front().is_some_and(|first| first.index == next);
        let entry = self.streams.iter_mut().find(is_next)?.pop_front()?;
        self.bytes -= entry.bytes;
        self.next += 1;
        Some(entry.item)
    }

    /// The place of the result's next batch.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Nothing waits for its turn.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.iter().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[test]
    fn what_cannot_have_its_turn_is_refused() {
        let mut reorder = Reorder::new(2, 5, 100);
        assert_eq!(reorder.push(0, 4, 1, 'a'), Err(OutOfOrder));
        assert_eq!(reorder.push(0, u64::MAX, 1, 'a'), Err(OutOfOrder));
        assert_eq!(reorder.push(2, 5, 1, 'a'), Err(OutOfOrder));
        reorder.push(0, 6, 1, 'b').unwrap();
        assert_eq!(reorder.push(0, 6, 1, 'b'), Err(OutOfOrder));
        assert_eq!(reorder.pop(), None);
        reorder.push(1, 5, 1, 'a').unwrap();
        assert_eq!(
            (reorder.pop(), reorder.pop(), reorder.pop()),
            (Some('a'), Some('b'), None)
        );
        assert!(reorder.is_empty());
        assert_eq!(reorder.next(), 7);
    }

    #[test]
    fn full_it_has_room_for_the_first_of_each() {
        let mut reorder = Reorder::new(2, 0, 10);
        reorder.push(0, 1, 100, 'b').unwrap();
        assert!(!reorder.has_room(0));
        assert!(reorder.has_room(1));
        reorder.push(1, 0, 100, 'a').unwrap();
        assert!(!reorder.has_room(1));
        assert_eq!(reorder.pop(), Some('a'));
        assert_eq!(reorder.pop(), Some('b'));
        assert!(reorder.has_room(0) && reorder.has_room(1));
    }

    proptest! {
        /// Streams take turns in any way at a result, are read in any order, ahead of each other as far as the bound lets
        /// them: the order comes out, nothing is ever stuck, and no more is kept than may be.
        #[test]
        fn any_interleaving_becomes_the_order(
            owners in proptest::collection::vec((0_usize..5, 1_usize..40), 0..200),
            reads in proptest::collection::vec(any::<Index>(), 1..50),
            bytes_max in 0_usize..120,
        ) {
            let mut streams = vec![VecDeque::new(); 5];
            for (index, (owner, bytes)) in owners.iter().enumerate() {
                streams[*owner].push_back((index as u64, *bytes));
            }
            let bytes_most = bytes_max + 5 * 40;
            let mut reorder = Reorder::new(streams.len(), 0, bytes_max);
            let mut out = Vec::new();
            let mut reads = reads.iter().cycle();
            while out.len() < owners.len() {
                let readable: Vec<_> = (0..streams.len())
                    .filter(|stream| !streams[*stream].is_empty() && reorder.has_room(*stream))
                    .collect();
                prop_assert!(!readable.is_empty(), "stuck after {:?}", out.last());
                let stream = *reads.next().unwrap().get(&readable);
                let (index, bytes) = streams[stream].pop_front().unwrap();
                reorder.push(stream, index, bytes, index).unwrap();
                prop_assert!(reorder.bytes <= bytes_most);
                out.extend(std::iter::from_fn(|| reorder.pop()));
            }
            prop_assert!(reorder.is_empty());
            prop_assert_eq!(reorder.bytes, 0);
            prop_assert!(out.into_iter().eq(0..owners.len() as u64));
        }
    }
}
