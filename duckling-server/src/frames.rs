//! HTTP/2's frames ([RFC 9113](https://www.rfc-editor.org/rfc/rfc9113), sections 4 to 6), as large as a client takes them.
//!
//! Most clients take 16 KiB, and HTTP/2's side here, the crate h2, goes through all its queues for each frame. So it is told
//! that every client takes large ones ([`Opening`]), and what it writes is cut on the way to the network ([`FrameCutter`]): heads are added,
//! and what is between them is not copied.

use std::io::{self, IoSlice};
use std::task::{Poll, ready};

use bytes::Bytes;

/// What HTTP/2's side is told that a client takes.
const LARGE_FRAME_BYTES: u32 = 512 * 1024;

/// What each client takes (section 4.2).
const FRAME_BYTES_DEFAULT: u32 = 16 * 1024;

/// What a client of HTTP/2 begins with (section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's head (section 4.1): length of the payload in 3 bytes, type, flags, and stream in 4.
const HEAD_BYTES: usize = 9;
type Head = [u8; HEAD_BYTES];

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;
const CONTINUATION: u8 = 0x9;

/// Of DATA and HEADERS.
const END_STREAM: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A setting (section 6.5.1): which, in 2 bytes, and its value, in 4.
const SETTING_BYTES: usize = 6;
const MAX_FRAME_SIZE: [u8; 2] = [0, 5];

/// Settings of a client that are looked at, at most; there are six kinds in the RFC.
const OPENING_SETTINGS_MAX: usize = 64;

/// What a client says first: the preface, and its settings.
#[derive(Default)]
pub struct Opening {
    bytes: Vec<u8>,
}

impl Opening {
    /// Bytes that are still to come before more is known: 0 when it is complete, or is none of HTTP/2.
    pub fn missing(&self) -> usize {
        let begun = self.bytes.len().min(PREFACE.len());
        if self.bytes[..begun] != PREFACE[..begun] {
            return 0;
        }
        let settings = self.head().filter(is_settings).map_or(0, |head| payload_of(&head));
        (PREFACE.len() + HEAD_BYTES + settings).saturating_sub(self.bytes.len())
    }

    /// Adds bytes, no more than are missing.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What HTTP/2's side is to read in its place, and the payload of frames that the client takes.
    pub fn finish(mut self) -> (Bytes, usize) {
        let mut taken = FRAME_BYTES_DEFAULT;
        if self.missing() == 0
            && let Some(head) = self.head().filter(is_settings)
        {
            let settings = self.bytes[PREFACE.len() + HEAD_BYTES..].chunks_exact(SETTING_BYTES);
            for setting in settings.filter(|setting| setting.starts_with(&MAX_FRAME_SIZE)) {
                taken = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            }
            // What is not allowed is refused.
            if (FRAME_BYTES_DEFAULT..LARGE_FRAME_BYTES).contains(&taken) {
                // The last one counts.
                self.bytes.extend(MAX_FRAME_SIZE);
                self.bytes.extend(LARGE_FRAME_BYTES.to_be_bytes());
                set_payload(&mut self.bytes[PREFACE.len()..], payload_of(&head) + SETTING_BYTES);
            }
        }
        (self.bytes.into(), taken.max(FRAME_BYTES_DEFAULT) as usize)
    }

    /// That of the frame behind the preface.
    fn head(&self) -> Option<Head> {
        self.bytes.get(PREFACE.len()..)?.first_chunk().copied()
    }
}

/// Whether a frame has settings, and not too many of them.
fn is_settings(head: &Head) -> bool {
    let bytes = payload_of(head);
    head[3..] == [SETTINGS, 0, 0, 0, 0, 0]
        && bytes.is_multiple_of(SETTING_BYTES)
        && bytes <= OPENING_SETTINGS_MAX * SETTING_BYTES
}

fn payload_of(head: &Head) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

/// `bytes` is less than 16 MiB.
fn set_payload(head: &mut [u8], bytes: usize) {
    let [.., high, middle, low] = bytes.to_be_bytes();
    head[..3].copy_from_slice(&[high, middle, low]);
}

/// Cuts frames as they are written.
pub struct FrameCutter {
    frame_bytes_max: usize,
    place: Place,
    /// A head of which a part has been written.
    begun: Head,
    begun_bytes: usize,
}

/// Where what is written has come to.
#[derive(Default, Clone, Copy)]
struct Place {
    /// That of the frame, or of the next one as far as it is known.
    head: Head,
    head_bytes: usize,
    /// Bytes of the frame's payload that are still to come.
    payload: usize,
    /// Of these, the ones before the next head.
    piece: usize,
}

/// What is written in one go.
enum Piece<'a> {
    Head(Head),
    Payload(&'a [u8]),
}

/// Pieces that are given to the system in one call, at most: it takes 1,024. A large frame has 32 heads and as many pieces, and
/// HTTP/2's side up to 64 parts.
const PIECES_MAX: usize = 256;

impl Default for FrameCutter {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_DEFAULT as usize,
            place: Place::default(),
            begun: Head::default(),
            begun_bytes: HEAD_BYTES,
        }
    }
}

impl FrameCutter {
    /// Frames are to have that much payload from here on, at most.
    pub fn set_frame_bytes_max(&mut self, bytes: usize) {
        self.frame_bytes_max = bytes;
    }

    /// Gives the frames in `parts` to `write`, as far as it takes them: how many bytes of `parts` are done with.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn poll_write(
        &mut self,
        parts: &[IoSlice<'_>],
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_finish(&mut write))?;
            let (mut place, mut source) = (self.place, Source::new(parts));
            let mut pieces = Vec::with_capacity(2 * parts.len());
            while pieces.len() < PIECES_MAX
                && let Some(piece) = place.next(&mut source, self.frame_bytes_max, usize::MAX)
            {
                pieces.push(piece);
            }
            if pieces.is_empty() {
                // The beginning of a head, or nothing.
                self.place = place;
                return Poll::Ready(Ok(source.taken));
            }
            let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece.bytes())).collect();
            let written = ready!(write(&slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let done = self.written(parts, written);
            // A part of a head that was added is nothing of `parts`.
            if done > 0 {
                return Poll::Ready(Ok(done));
            }
        }
    }

    /// That many bytes were written of what `parts` are cut into: how many of `parts` are done with.
    fn written(&mut self, parts: &[IoSlice<'_>], mut written: usize) -> usize {
        let mut source = Source::new(parts);
        while written > 0
            && let Some(piece) = self.place.next(&mut source, self.frame_bytes_max, written)
        {
            let bytes = piece.bytes().len().min(written);
            written -= bytes;
            if let Piece::Head(head) = piece {
                self.begun = head;
                self.begun_bytes = bytes;
            }
        }
        source.taken
    }

    /// Whether [`FrameCutter::poll_finish`] has something to do.
    pub fn has_begun_head(&self) -> bool {
        self.begun_bytes < HEAD_BYTES
    }

    /// Gives `write` the rest of a head of which it has taken a part.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn poll_finish(
        &mut self,
        mut write: impl FnMut(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while self.has_begun_head() {
            let written = ready!(write(&[IoSlice::new(&self.begun[self.begun_bytes..])]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun_bytes += written;
        }
        Poll::Ready(Ok(()))
    }
}

impl Place {
    /// What is to be written next of `source`, with `payload_max` bytes of payload at most.
    fn next<'a>(
        &mut self,
        source: &mut Source<'a, '_>,
        frame_bytes_max: usize,
        payload_max: usize,
    ) -> Option<Piece<'a>> {
        if self.piece > 0 {
            let payload = source.take(self.piece.min(payload_max))?;
            self.piece -= payload.len();
            self.payload -= payload.len();
            return Some(Piece::Payload(payload));
        }
        if self.payload == 0 {
            while self.head_bytes < HEAD_BYTES {
                let part = source.take(HEAD_BYTES - self.head_bytes)?;
                self.head[self.head_bytes..][..part.len()].copy_from_slice(part);
                self.head_bytes += part.len();
            }
            self.head_bytes = 0;
            self.payload = payload_of(&self.head);
        }
        Some(Piece::Head(self.next_head(frame_bytes_max)))
    }

    /// That of the next frame that is written.
    fn next_head(&mut self, frame_bytes_max: usize) -> Head {
        let (kind, flags) = (self.head[3], self.head[4]);
        // HTTP/2's side pads nothing and has no priorities, and makes no large frames of other kinds.
        let end = match kind {
            DATA if flags & PADDED == 0 => END_STREAM,
            HEADERS if flags & (PADDED | PRIORITY) == 0 => END_HEADERS,
            CONTINUATION => END_HEADERS,
            _ => {
                self.piece = self.payload;
                return self.head;
            }
        };
        self.piece = self.payload.min(frame_bytes_max);
        let mut head = self.head;
        set_payload(&mut head, self.piece);
        if self.piece < self.payload {
            head[4] &= !end;
        }
        if kind == HEADERS {
            self.head[3] = CONTINUATION;
            self.head[4] &= END_HEADERS;
        }
        head
    }
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Head(head) => head,
            Self::Payload(payload) => payload,
        }
    }
}

/// Reads slices one after the other.
struct Source<'a, 'b> {
    /// The first of them from `at` on.
    parts: &'a [IoSlice<'b>],
    at: usize,
    taken: usize,
}

impl<'a, 'b> Source<'a, 'b> {
    fn new(parts: &'a [IoSlice<'b>]) -> Self {
        Self { parts, at: 0, taken: 0 }
    }

    /// The next bytes that are together, up to so many, which are not 0; `None` at the end.
    fn take(&mut self, bytes_max: usize) -> Option<&'a [u8]> {
        loop {
            let part = self.parts.first()?;
            let rest = &part[self.at..];
            if rest.is_empty() {
                self.parts = &self.parts[1..];
                self.at = 0;
                continue;
            }
            let bytes = rest.len().min(bytes_max);
            self.at += bytes;
            self.taken += bytes;
            return Some(&rest[..bytes]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Frame = (Head, Vec<u8>);

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Frame {
        let mut head = [0, 0, 0, kind, flags, 0, 0, 0, 7];
        set_payload(&mut head, payload.len());
        (head, payload.to_vec())
    }

    fn joined(frames: &[Frame]) -> Vec<u8> {
        frames
            .iter()
            .flat_map(|(head, payload)| head.iter().chain(payload).copied())
            .collect()
    }

    fn split(mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk() {
            let (payload, rest) = rest.split_at(payload_of(head));
            frames.push((*head, payload.to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty(), "a part of a frame is left");
        frames
    }

    /// What frames come to for who reads them: pieces of DATA and of a list of headers belong together.
    fn meaning(frames: &[Frame]) -> Vec<(u8, u8, Vec<u8>)> {
        let mut meaning: Vec<(u8, u8, Vec<u8>)> = Vec::new();
        for (head, payload) in frames {
            let (kind, flags) = (head[3], head[4]);
            match meaning.last_mut() {
                // Where one piece of DATA ends and the next begins means nothing, but where the stream ends.
                Some((DATA, last_flags, bytes))
                    if kind == DATA && (flags | *last_flags) & PADDED == 0 && *last_flags == 0 =>
                {
                    *last_flags = flags;
                    bytes.extend(payload);
                }
                Some((HEADERS, last_flags, bytes)) if kind == CONTINUATION && *last_flags & END_HEADERS == 0 => {
                    *last_flags |= flags;
                    bytes.extend(payload);
                }
                _ => meaning.push((kind, flags, payload.clone())),
            }
        }
        meaning
    }

    /// What arrives if `bytes` are written in slices of such lengths, of which the system takes such lengths.
    fn written(cutter: &mut FrameCutter, bytes: &[u8], slices: &[usize], taken: &[usize]) -> Vec<u8> {
        let mut arrived = Vec::new();
        let mut taken = taken.iter().copied().cycle();
        let mut lengths = slices.iter().copied().cycle();
        let mut write = |parts: &[IoSlice<'_>]| {
            let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            let count = taken.next().unwrap().min(all.len());
            if count == 0 {
                return Poll::Pending;
            }
            arrived.extend(&all[..count]);
            Poll::Ready(Ok(count))
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut parts = Vec::new();
            let mut later = rest;
            for _ in 0..4 {
                let (part, others) = later.split_at(lengths.next().unwrap().min(later.len()));
                parts.push(IoSlice::new(part));
                later = others;
            }
            if let Poll::Ready(count) = cutter.poll_write(&parts, &mut write) {
                let count = count.unwrap();
                rest = &rest[count..];
            }
        }
        while cutter.poll_finish(&mut write).is_pending() {}
        arrived
    }

    fn frames() -> impl Strategy<Value = Vec<Frame>> {
        let payload = (any::<u8>(), prop_oneof![0..40_usize, 100..1000_usize]);
        let kinds = prop_oneof![
            Just((DATA, 0)),
            Just((DATA, END_STREAM)),
            Just((DATA, PADDED)),
            Just((HEADERS, END_HEADERS)),
            Just((HEADERS, END_HEADERS | END_STREAM)),
            Just((SETTINGS, 0)),
            Just((SETTINGS, END_STREAM)),
        ];
        let frame = (kinds, payload).prop_map(|((kind, flags), (seed, length))| {
            let payload: Vec<u8> = (0..length).map(|at| seed.wrapping_add(at.to_le_bytes()[0])).collect();
            frame(kind, flags, &payload)
        });
        proptest::collection::vec(frame, 0..12)
    }

    fn lengths(max: usize) -> impl Strategy<Value = Vec<usize>> {
        let length = prop_oneof![1..12_usize, 1..max];
        (proptest::collection::vec(0..max, 0..4), length).prop_map(|(mut lengths, one)| {
            lengths.push(one);
            lengths
        })
    }

    proptest! {
        #[test]
        fn what_is_cut_means_the_same(
            frames in frames(),
            frame_bytes_max in 1..300_usize,
            slices in lengths(700),
            taken in lengths(3000),
        ) {
            let mut cutter = FrameCutter::default();
            cutter.set_frame_bytes_max(frame_bytes_max);
            let arrived = split(&written(&mut cutter, &joined(&frames), &slices, &taken));
            for (head, payload) in &arrived {
                let is_cut = matches!(head[3], DATA | HEADERS | CONTINUATION) && head[4] & PADDED == 0;
                prop_assert!(payload.len() <= frame_bytes_max || !is_cut, "{:?}", head);
                prop_assert_eq!(head[8], 7);
            }
            prop_assert_eq!(meaning(&arrived), meaning(&frames));
        }
    }

    #[test]
    fn a_frame_that_is_taken_stays_as_it_is() {
        let frames = [
            frame(HEADERS, END_HEADERS, b"status"),
            frame(DATA, 0, &[1; 100]),
            frame(DATA, 0, &[]),
            frame(HEADERS, END_HEADERS | END_STREAM, b"trailers"),
        ];
        let mut cutter = FrameCutter::default();
        assert_eq!(split(&written(&mut cutter, &joined(&frames), &[1000], &[1000])), frames);
    }

    #[test]
    fn a_head_that_is_written_in_part_is_known() {
        let mut cutter = FrameCutter::default();
        let bytes = joined(&[frame(DATA, END_STREAM, &[])]);
        let mut arrived = Vec::new();
        let mut write = |count: usize, parts: &[IoSlice<'_>]| {
            arrived.extend_from_slice(&parts[0][..count]);
            Poll::Ready(Ok(count))
        };
        let taken = cutter.poll_write(&[IoSlice::new(&bytes)], |parts| write(4, parts));
        assert!(matches!(taken, Poll::Ready(Ok(HEAD_BYTES))), "{taken:?}");
        assert!(
            cutter.has_begun_head(),
            "nothing of it is to be written again, and a part is still to be written"
        );
        assert!(cutter.poll_finish(|parts| write(5, parts)).is_ready());
        assert!(!cutter.has_begun_head());
        assert_eq!(arrived, bytes);
    }

    #[test]
    fn ends_are_in_the_last_piece_only() {
        let frames = [
            frame(DATA, END_STREAM, &[1; 25]),
            frame(HEADERS, END_HEADERS | END_STREAM, &[2; 25]),
        ];
        let mut cutter = FrameCutter::default();
        cutter.set_frame_bytes_max(10);
        let arrived = split(&written(&mut cutter, &joined(&frames), &[1000], &[1000]));
        let heads: Vec<_> = arrived
            .iter()
            .map(|(head, payload)| (head[3], head[4], payload.len()))
            .collect();
        let expected = [
            (DATA, 0, 10),
            (DATA, 0, 10),
            (DATA, END_STREAM, 5),
            (HEADERS, END_STREAM, 10),
            (CONTINUATION, 0, 10),
            (CONTINUATION, END_HEADERS, 5),
        ];
        assert_eq!(heads, expected);
    }

    fn opened(bytes: &[u8]) -> (Opening, usize) {
        let mut opening = Opening::default();
        let mut rest = bytes;
        while opening.missing() > 0 && !rest.is_empty() {
            let (part, others) = rest.split_at(opening.missing().min(rest.len()));
            opening.push(part);
            rest = others;
        }
        (opening, bytes.len() - rest.len())
    }

    fn opening(settings: &[(u16, u32)]) -> Vec<u8> {
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(which, value)| which.to_be_bytes().into_iter().chain(value.to_be_bytes()))
            .collect();
        let mut head = [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0];
        set_payload(&mut head, settings.len());
        [PREFACE, &head[..], &settings].concat()
    }

    #[test]
    fn clients_are_said_to_take_large_frames() {
        for (settings, taken) in [
            (vec![], 16_384),
            (vec![(4, 1 << 20)], 16_384),
            (vec![(5, 30_000), (4, 1 << 20)], 30_000),
            (vec![(5, 30_000), (5, 20_000)], 20_000),
        ] {
            let bytes = [opening(&settings), b"more".to_vec()].concat();
            let (begun, read) = opened(&bytes);
            assert_eq!((begun.missing(), read), (0, bytes.len() - 4));
            let said = [&settings[..], &[(5, LARGE_FRAME_BYTES)]].concat();
            assert_eq!(begun.finish(), (Bytes::from(opening(&said)), taken));
        }
    }

    #[test]
    fn what_is_large_or_wrong_is_passed_on() {
        for settings in [
            vec![(5, 1 << 20)],
            vec![(5, 100)],
            vec![(5, u32::MAX)],
            vec![(4, 1); 65],
        ] {
            let bytes = opening(&settings);
            let (begun, read) = opened(&bytes);
            let (said, taken) = begun.finish();
            assert_eq!(said, bytes[..read]);
            assert!(taken >= FRAME_BYTES_DEFAULT as usize);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_passed_on(
            whole in prop_oneof![Just(Vec::new()), Just(PREFACE.to_vec()), Just(opening(&[(4, 5)]))],
            cut in 0..40_usize,
            more in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = [&whole[..whole.len().saturating_sub(cut)], &more].concat();
            let (begun, read) = opened(&bytes);
            let (said, taken) = begun.finish();
            prop_assert!(taken >= FRAME_BYTES_DEFAULT as usize);
            // But for the length of the settings, and one more.
            let (preface, rest) = bytes[..read].split_at(read.min(PREFACE.len()));
            prop_assert!(said.starts_with(preface));
            let rest = rest.get(3..).unwrap_or_default();
            prop_assert!(said.get(PREFACE.len() + 3..).unwrap_or_default().starts_with(rest));
            prop_assert!(said.len() == read || said.len() == read + SETTING_BYTES);
        }
    }
}
