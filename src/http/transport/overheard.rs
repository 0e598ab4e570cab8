//! The beginning and the end of a stream, kept while it lasts: what is in them says what a call that broke
//! off has cost.

use std::sync::{Arc, Mutex};

use crate::thread::lock;

/// The first event, with which some providers count the input.
const HEAD_BYTES: usize = 4 << 10;
/// The last events, in which the others do.
const TAIL_BYTES: usize = 8 << 10;

/// Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Overheard(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Overheard {
    /// Another stream begins.
    pub(super) fn clear(&self) {
        let mut kept = lock(&self.0);
        kept.head.clear();
        kept.tail.clear();
    }

    pub(super) fn hear(&self, bytes: &[u8]) {
        let kept = &mut *lock(&self.0);
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - kept.head.len()));
        kept.head.extend_from_slice(head);
        // Moved to the front seldom, not with every piece.
        if kept.tail.len() + rest.len() > 2 * TAIL_BYTES {
            kept.tail.drain(..kept.tail.len().saturating_sub(TAIL_BYTES));
        }
        kept.tail.extend_from_slice(rest);
    }

    pub(super) fn all(&self) -> Vec<u8> {
        let kept = lock(&self.0);
        [&kept.head[..], &kept.tail[..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept_and_no_more() {
        let overheard = Overheard::default();
        let stream: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        for piece in stream.chunks(777) {
            overheard.hear(piece);
        }
        let all = overheard.all();
        assert!(all.len() >= HEAD_BYTES + TAIL_BYTES && all.len() <= HEAD_BYTES + 2 * TAIL_BYTES);
        assert_eq!(all[..HEAD_BYTES], stream[..HEAD_BYTES]);
        assert!(stream.ends_with(&all[HEAD_BYTES..]));
        overheard.clear();
        overheard.hear(&stream[..HEAD_BYTES + 100]);
        assert_eq!(overheard.all(), stream[..HEAD_BYTES + 100]);
    }
}
