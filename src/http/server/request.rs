//! What a handler sees of a request: borrowed from the connection's buffer, nothing copied.

use std::borrow::Cow;

use super::Header;

/// Most `name=value` pairs of a query; our own paths take three.
const MAX_PARAMETERS: usize = 32;

/// A decoded name and its value.
pub type Parameter<'a> = (Cow<'a, str>, Cow<'a, str>);

#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// As sent, still percent-encoded, without the query; see [`percent_decode`].
    pub path: &'a str,
    /// What follows the question mark; empty when there is none.
    pub query: &'a str,
    pub headers: &'a [Header<'a>],
    pub body: &'a [u8],
    /// How often this request was dispatched before: 0 the first time, more after it was parked.
    pub attempt: u32,
    /// Parking is over (deadline, stop, or no room): answer what there is.
    pub expired: bool,
}

impl<'a> Request<'a> {
    /// The target may be a path or, as proxies write it, a whole address.
    pub(super) fn with_target(mut self, target: &'a str) -> Self {
        let local = match target.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                rest.find(['/', '?']).map_or("/", |start| &rest[start..])
            }
            _ => target,
        };
        (self.path, self.query) = local.split_once('?').unwrap_or((local, ""));
        self
    }

    /// The first header of this name, if it is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let header = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    }

    /// The decoded pairs of the query, in their order.
    ///
    /// # Errors
    /// A sentence: an encoding is broken, or there are too many.
    pub fn parameters(&self) -> Result<Vec<Parameter<'a>>, &'static str> {
        let mut pairs = Vec::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err("the query has too many parameters");
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name, true).zip(decode(value, true));
            pairs.push(decoded.ok_or("the query is not valid percent-encoded UTF-8")?);
        }
        Ok(pairs)
    }
}

/// `%41` is `A`; none when an escape is broken or the result is no UTF-8.
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    decode(text, false)
}

fn decode(text: &str, plus_is_blank: bool) -> Option<Cow<'_, str>> {
    let is_plain = |byte: u8| byte != b'%' && !(plus_is_blank && byte == b'+');
    if text.bytes().all(is_plain) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            b'+' if plus_is_blank => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn request(target: &str) -> Request<'_> {
        let empty = Request {
            method: "GET",
            path: "",
            query: "",
            headers: &[],
            body: &[],
            attempt: 0,
            expired: false,
        };
        empty.with_target(target)
    }

    #[test]
    fn a_target_is_split_into_path_and_query() {
        let cases = [
            ("/poll/a?wait=3", "/poll/a", "wait=3"),
            ("/", "/", ""),
            ("*", "*", ""),
            ("http://pi:18789/poll/a?x", "/poll/a", "x"),
            ("HTTP://pi", "/", ""),
            ("http://pi?x=1", "", "x=1"),
            ("/a?b?c", "/a", "b?c"),
            ("/go?to=http://x/y", "/go", "to=http://x/y"),
        ];
        for (target, path, query) in cases {
            let request = request(target);
            assert_eq!((request.path, request.query), (path, query), "{target}");
        }
    }

    #[test]
    fn percent_escapes_are_decoded_or_refused() {
        let cases = [
            ("plain", Some("plain")),
            ("a%20b", Some("a b")),
            ("a+b", Some("a+b")),
            ("%c3%A9", Some("é")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%ff", None),
        ];
        for (text, expected) in cases {
            assert_eq!(percent_decode(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn parameters_are_decoded_in_order_and_bounded() {
        let pairs = request("/x?a=1+2&b=%26&&c").parameters().unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(pairs, [("a", "1 2"), ("b", "&"), ("c", "")]);
        assert!(request("/x?a=%f").parameters().is_err());
        let many = format!("/x?{}", "a=1&".repeat(MAX_PARAMETERS + 1));
        assert!(request(&many).parameters().is_err());
    }
}
