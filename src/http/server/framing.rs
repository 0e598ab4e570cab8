//! Where one request ends and the next begins: a parser that takes bytes as they come.
//!
//! A chunked body is decoded in place, so that a complete request always is `head` bytes followed
//! by `body` bytes, and what follows belongs to the next request.

use super::{Limits, MAX_HEADERS};
use crate::error::Kind;

/// Longest head of a request. Ours take a few hundred bytes; browsers send up to a few thousand.
pub(super) const MAX_HEAD_BYTES: usize = 16 << 10;
/// Longest line with the size of a chunk; extensions, which nobody uses, are ignored.
const MAX_CHUNK_LINE_BYTES: usize = 256;
/// Longest trailer after the last chunk; its fields are ignored.
const MAX_TRAILER_BYTES: usize = 4 << 10;
/// The first room for a request; most fit.
pub(super) const BUFFER_BYTES: usize = 16 << 10;

/// Bytes that came and are not answered yet.
#[derive(Default)]
pub(super) struct Buffer {
    /// Its length is the room; only the first `filled` bytes mean something.
    storage: Vec<u8>,
    filled: usize,
}

impl Buffer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.storage[..self.filled]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Bytes that it can take without growing, if it were empty.
    pub(super) fn room(&self) -> usize {
        self.storage.len()
    }

    /// Room for up to `wanted` more bytes; it grows by doubling, as the bytes really come.
    pub(super) fn space(&mut self, wanted: usize) -> &mut [u8] {
        let room = self.storage.len() - self.filled;
        if room < wanted {
            let grown = self.filled + wanted.min(self.filled.max(BUFFER_BYTES));
            self.storage.resize(grown.max(self.storage.len()), 0);
        }
        &mut self.storage[self.filled..]
    }

    pub(super) fn add(&mut self, count: usize) {
        self.filled += count;
    }

    /// Forgets the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.remove(0, count);
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.storage.copy_within(to..self.filled, from);
        self.filled -= to - from;
    }

    /// Gives back the room that holds nothing.
    pub(super) fn shrink(&mut self) {
        self.storage.truncate(self.filled);
        self.storage.shrink_to_fit();
    }

    /// Ready for another connection: empty, and not larger than usual.
    pub(super) fn reset(&mut self) {
        self.filled = 0;
        if self.storage.len() > BUFFER_BYTES {
            self.storage.truncate(BUFFER_BYTES);
            self.storage.shrink_to_fit();
        }
    }
}

/// Why a request is not even shown to the handler. The connection is closed after the answer,
/// because nobody knows where the next request would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) status: u16,
    pub(super) kind: Kind,
    pub(super) message: &'static str,
}

impl Reject {
    fn invalid(status: u16, message: &'static str) -> Self {
        Self { status, kind: Kind::Invalid, message }
    }
}

const BAD_CHUNK: &str = "The chunks of the body are malformed.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// At most so many more bytes are of use now.
    More(usize),
    Complete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Sized,
    Chunked(Chunk),
    Complete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size,
    Data(usize),
    DataEnd,
    Trailer(usize),
}

/// The state of one request, from its first byte until it is answered.
#[derive(Debug)]
pub(super) struct Framing {
    stage: Stage,
    /// Length of the head with its empty line; 0 until it is complete.
    pub(super) head: usize,
    /// Length of the body: announced for a sized one, decoded so far for a chunked one.
    pub(super) body: usize,
    pub(super) is_head_request: bool,
    pub(super) is_http_1_0: bool,
    pub(super) keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects_continue: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            stage: Stage::Head,
            head: 0,
            body: 0,
            is_head_request: false,
            is_http_1_0: false,
            keep_alive: false,
            expects_continue: false,
        }
    }
}

impl Framing {
    pub(super) fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    pub(super) fn total(&self) -> usize {
        self.head + self.body
    }

    /// The most that the body can still become, for the memory budget; 0 while that is unknown.
    pub(super) fn body_bound(&self, limits: &Limits) -> usize {
        match self.stage {
            Stage::Chunked(_) => limits.body_bytes,
            _ => self.body,
        }
    }

    /// Looks at what came.
    ///
    /// # Errors
    /// The request cannot be understood or is larger than allowed.
    pub(super) fn advance(&mut self, buffer: &mut Buffer, limits: &Limits) -> Result<Progress, Reject> {
        if self.stage == Stage::Head && !self.read_head(buffer, limits)? {
            return Ok(Progress::More(MAX_HEAD_BYTES - buffer.filled));
        }
        match self.stage {
            Stage::Head | Stage::Complete => Ok(Progress::Complete),
            Stage::Sized if buffer.filled < self.total() => Ok(Progress::More(self.total() - buffer.filled)),
            Stage::Sized => {
                self.stage = Stage::Complete;
                Ok(Progress::Complete)
            }
            Stage::Chunked(chunk) => match self.decode(chunk, buffer, limits)? {
                Some(chunk) => {
                    self.stage = Stage::Chunked(chunk);
                    Ok(Progress::More(BUFFER_BYTES))
                }
                None => {
                    self.stage = Stage::Complete;
                    Ok(Progress::Complete)
                }
            },
        }
    }

    /// True when the head is complete.
    fn read_head(&mut self, buffer: &Buffer, limits: &Limits) -> Result<bool, Reject> {
        const TOO_LONG: &str = "The head of the request is longer than 16 KiB or has over 64 fields.";
        if buffer.is_empty() {
            return Ok(false);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(buffer.bytes()) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if buffer.filled < MAX_HEAD_BYTES => return Ok(false),
            Ok(httparse::Status::Partial) => MAX_HEAD_BYTES + 1,
            Err(httparse::Error::TooManyHeaders) => return Err(Reject::invalid(431, TOO_LONG)),
            Err(httparse::Error::Version) => {
                return Err(Reject::invalid(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."));
            }
            Err(_) => return Err(Reject::invalid(400, "This is no HTTP request.")),
        };
        if length > MAX_HEAD_BYTES {
            return Err(Reject::invalid(431, TOO_LONG));
        }
        let fields = Fields::read(request.headers)?;
        self.head = length;
        self.is_head_request = request.method == Some("HEAD");
        self.is_http_1_0 = request.version == Some(0);
        self.keep_alive = !fields.close && (!self.is_http_1_0 || fields.keep_alive);
        self.expects_continue = fields.expects_continue && !self.is_http_1_0;
        if !self.is_http_1_0 && fields.hosts != 1 {
            return Err(Reject::invalid(400, "An HTTP/1.1 request needs exactly one Host field."));
        }
        self.stage = match (fields.chunked, fields.length) {
            (true, None) if !self.is_http_1_0 => Stage::Chunked(Chunk::Size),
            (true, _) => {
                return Err(Reject::invalid(400, "Transfer-Encoding cannot be combined with this request."));
            }
            (false, length) => {
                self.body = usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX);
                Stage::Sized
            }
        };
        if self.body > limits.body_bytes {
            return Err(too_large());
        }
        Ok(true)
    }

    /// Decodes in place what came; the state to go on with, or none when the body is complete.
    fn decode(
        &mut self,
        mut chunk: Chunk,
        buffer: &mut Buffer,
        limits: &Limits,
    ) -> Result<Option<Chunk>, Reject> {
        let malformed = Reject::invalid(400, BAD_CHUNK);
        // Decoded bytes end at `end`, bytes still to be decoded begin at `cursor`.
        let mut end = self.total();
        let mut cursor = end;
        let next = loop {
            let rest = &buffer.bytes()[cursor..];
            chunk = match chunk {
                Chunk::Size => {
                    if rest.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
                        return Err(malformed);
                    }
                    match httparse::parse_chunk_size(rest) {
                        Ok(httparse::Status::Complete((line, size))) => {
                            cursor += line;
                            let size = usize::try_from(size).unwrap_or(usize::MAX);
                            if size > limits.body_bytes - (end - self.head) {
                                return Err(too_large());
                            }
                            if size == 0 { Chunk::Trailer(0) } else { Chunk::Data(size) }
                        }
                        Ok(httparse::Status::Partial) if rest.len() <= MAX_CHUNK_LINE_BYTES => {
                            break Some(chunk);
                        }
                        _ => return Err(malformed),
                    }
                }
                Chunk::Data(left) => {
                    let count = left.min(rest.len());
                    buffer.storage.copy_within(cursor..cursor + count, end);
                    end += count;
                    cursor += count;
                    if count < left {
                        break Some(Chunk::Data(left - count));
                    }
                    Chunk::DataEnd
                }
                Chunk::DataEnd if rest.len() < 2 => break Some(chunk),
                Chunk::DataEnd if rest.starts_with(b"\r\n") => {
                    cursor += 2;
                    Chunk::Size
                }
                Chunk::DataEnd => return Err(malformed),
                Chunk::Trailer(seen) => match trailer_line(rest, seen)? {
                    None => break Some(chunk),
                    Some(line) => {
                        cursor += line;
                        if matches!(&rest[..line], b"\r\n" | b"\n") {
                            break None;
                        }
                        Chunk::Trailer(seen + line)
                    }
                },
            };
        };
        buffer.remove(end, cursor);
        self.body = end - self.head;
        Ok(next)
    }
}

/// Length of the next line of the trailer, if it is complete.
fn trailer_line(rest: &[u8], seen: usize) -> Result<Option<usize>, Reject> {
    let line = rest.iter().position(|byte| *byte == b'\n').map(|index| index + 1);
    if seen + line.unwrap_or(rest.len()) > MAX_TRAILER_BYTES {
        return Err(Reject::invalid(431, "The trailer of the body is too long."));
    }
    Ok(line)
}

fn too_large() -> Reject {
    Reject::invalid(413, "The body of the request is larger than allowed.")
}

/// The header fields that say how long the request is and what becomes of the connection.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    hosts: usize,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Reject> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let length = parse_length(header.value)
                    .filter(|length| fields.length.is_none_or(|earlier| earlier == *length));
                fields.length = Some(length.ok_or(Reject::invalid(400, "Content-Length is no number."))?);
            } else if is("transfer-encoding") {
                if fields.chunked || !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Reject::invalid(501, "The only transfer encoding known here is chunked."));
                }
                fields.chunked = true;
            } else if is("connection") {
                for word in header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    fields.close |= word.eq_ignore_ascii_case(b"close");
                    fields.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is("expect") {
                if !header.value.trim_ascii().eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reject::invalid(417, "The only expectation known here is 100-continue."));
                }
                fields.expects_continue = true;
            } else if is("host") {
                fields.hosts += 1;
            }
        }
        Ok(fields)
    }
}

/// Digits only: `parse` would also take a sign.
fn parse_length(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let text =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// Feeds `input` in pieces of `step` bytes: the body and what is left over, or the status.
    fn feed(input: &[u8], step: usize) -> Result<Option<(String, usize)>, u16> {
        let limits = Limits { body_bytes: 64, ..Limits::default() };
        let (mut buffer, mut framing) = (Buffer::default(), Framing::default());
        let mut rest = input;
        loop {
            match framing.advance(&mut buffer, &limits).map_err(|reject| reject.status)? {
                Progress::Complete => {
                    let body = &buffer.bytes()[framing.head..framing.total()];
                    let left = rest.len() + buffer.filled - framing.total();
                    return Ok(Some((String::from_utf8(body.to_vec()).unwrap(), left)));
                }
                Progress::More(_) if rest.is_empty() => return Ok(None),
                Progress::More(wanted) => {
                    let space = buffer.space(wanted);
                    let count = step.min(rest.len()).min(space.len());
                    assert!(count > 0, "no room for {wanted} bytes");
                    space[..count].copy_from_slice(&rest[..count]);
                    buffer.add(count);
                    rest = &rest[count..];
                }
            }
        }
    }

    #[test]
    fn a_request_is_the_same_however_its_bytes_are_cut() {
        const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(MAX_HEAD_BYTES));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS));
        let chunks = |body: &str| format!("{CHUNKED}{body}");
        let one = |line: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n{body}");
        type Expected = Result<Option<(&'static str, usize)>, u16>;
        let cases: Vec<(String, Expected)> = vec![
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), Ok(Some(("", 0)))),
            ("GET / HTTP/1.0\r\n\r\nGET".to_owned(), Ok(Some(("", 3)))),
            ("GET / HTTP/1.1\r\nHost: a\r\n".to_owned(), Ok(None)),
            (one("Content-Length: 5", "helloGET"), Ok(Some(("hello", 3)))),
            (one("Content-Length: 5\r\nContent-Length: 5", "hello"), Ok(Some(("hello", 0)))),
            (one("Content-Length: 5\r\nContent-Length: 6", "hello"), Err(400)),
            (one("Content-Length: +5", "hello"), Err(400)),
            (one("Content-Length: 65", ""), Err(413)),
            (one("Content-Length: 99999999999999999999", ""), Err(400)),
            (chunks("5\r\nhello\r\n3;x=y\r\n, p\r\n1\r\ni\r\n0\r\n\r\nNEXT"), Ok(Some(("hello, pi", 4)))),
            (chunks("1\r\nx\r\n0\r\nTrailer: 1\r\n\r\n"), Ok(Some(("x", 0)))),
            (chunks("0\r\n\r\n"), Ok(Some(("", 0)))),
            (chunks("5\r\nhel"), Ok(None)),
            (chunks("5\r\nhelloX\r\n"), Err(400)),
            (chunks("\r\n\r\n"), Err(400)),
            (chunks("g\r\n"), Err(400)),
            (chunks("40\r\n"), Ok(None)),
            (chunks("41\r\n"), Err(413)),
            (chunks("ffffffffffffffff\r\n"), Err(413)),
            (chunks(&format!("1;{}", "x".repeat(MAX_CHUNK_LINE_BYTES))), Err(400)),
            (chunks(&format!("0\r\n{}", "x".repeat(MAX_TRAILER_BYTES + 1))), Err(431)),
            (one("Transfer-Encoding: gzip", ""), Err(501)),
            (one("Transfer-Encoding: chunked\r\nContent-Length: 1", ""), Err(400)),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), Err(400)),
            (one("Expect: tea", ""), Err(417)),
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), Err(400)),
            (one("Host: b", ""), Err(400)),
            ("GET / HTTP/2.0\r\n\r\n".to_owned(), Err(505)),
            ("\0\0\0".to_owned(), Err(400)),
            (long, Err(431)),
            (many, Err(431)),
        ];
        for (input, expected) in cases {
            let expected = expected.map(|found| found.map(|(body, left)| (body.to_owned(), left)));
            for step in [1, 2, 3, 7, 64, usize::MAX] {
                let start = &input[..input.len().min(300)];
                assert_eq!(feed(input.as_bytes(), step), expected, "{start:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn keep_alive_follows_version_and_connection_field() {
        let cases = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ];
        for (input, expected) in cases {
            let (mut buffer, mut framing) = (Buffer::default(), Framing::default());
            buffer.space(input.len())[..input.len()].copy_from_slice(input.as_bytes());
            buffer.add(input.len());
            assert_eq!(framing.advance(&mut buffer, &Limits::default()), Ok(Progress::Complete));
            assert_eq!(framing.keep_alive, expected, "{input}");
        }
    }
}
