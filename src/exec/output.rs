//! What is kept of a command's output: the beginning and the end, however much there is between.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::unistd::read;

/// Bytes of output that are kept; half from the beginning, half from the end.
pub const MAX_OUTPUT_BYTES: usize = 50_000;
/// The notice between the halves takes part of that.
const HALF: usize = MAX_OUTPUT_BYTES / 2 - 64;
const READ_BYTES: usize = 16 << 10;
/// Reads before the caller looks at the clock again.
const READS_AT_ONCE: usize = 16;

/// How a command ended and what it wrote, standard output and error in the order of writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// None when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    /// At most [`MAX_OUTPUT_BYTES`].
    pub text: String,
    /// Bytes that were dropped from the middle.
    pub dropped: usize,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: usize,
}

impl Kept {
    /// Takes what is there; false at the end of the output.
    pub(super) fn read_from(&mut self, pipe: &OwnedFd) -> Result<bool, Errno> {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_AT_ONCE {
            match read(pipe, &mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.add(&buffer[..count]),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = HALF - self.head.len();
        let (first, rest) = bytes.split_at(room.min(bytes.len()));
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(HALF);
        self.tail.drain(..over);
        self.dropped += over;
    }

    pub(super) fn finish(self, code: Option<i32>, signal: Option<i32>, timed_out: bool) -> Output {
        let tail: Vec<u8> = self.tail.into();
        let text = if self.dropped == 0 {
            String::from_utf8_lossy(&[self.head, tail].concat()).into_owned()
        } else {
            let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
            format!("{head}\n[{} bytes left out]\n{tail}", self.dropped)
        };
        let text = crate::text::prefix(&text, MAX_OUTPUT_BYTES).to_owned();
        Output { code, signal, timed_out, text, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_tail_are_kept_and_the_rest_is_counted() {
        let mut kept = Kept::default();
        for number in 0..20_000 {
            kept.add(format!("{number:09}\n").as_bytes());
        }
        let output = kept.finish(Some(0), None, false);
        assert!(output.text.len() <= MAX_OUTPUT_BYTES);
        assert!(output.text.starts_with("000000000\n") && output.text.ends_with("000019999\n"));
        assert_eq!(output.dropped, 200_000 - 2 * HALF);
        let mut short = Kept::default();
        short.add("käse\n".as_bytes());
        assert_eq!(short.finish(None, Some(9), true).text, "käse\n");
    }
}
