//! Lines of IRC: cutting the byte stream into them, reading one, writing one.

/// Longest line with tags that the protocol knows; a longer one is dropped whole.
pub(super) const MAX_LINE: usize = 8191 + 512;

/// One line from the server. Unknown bytes are replaced, so that a message in an old encoding is
/// odd but not lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Message {
    tags: Vec<(String, String)>,
    pub(super) source: Option<Source>,
    /// In capitals, or three digits.
    pub(super) command: String,
    pub(super) params: Vec<String>,
}

/// Who a line comes from; a server has neither user nor host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Source {
    pub(super) nick: String,
    pub(super) user: String,
    pub(super) host: String,
}

impl Source {
    fn parse(text: &str) -> Self {
        let (front, host) = text.split_once('@').unwrap_or((text, ""));
        let (nick, user) = front.split_once('!').unwrap_or((front, ""));
        Self { nick: nick.to_owned(), user: user.to_owned(), host: host.to_owned() }
    }

    /// `nick!user@host`.
    pub(super) fn mask(&self) -> String {
        format!("{}!{}@{}", self.nick, self.user, self.host)
    }
}

impl Message {
    /// `None` for what is no message: empty, too long, without a command.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if line.len() > MAX_LINE {
            return None;
        }
        let text = String::from_utf8_lossy(line);
        let mut rest = text.trim_end_matches(['\r', '\n']).trim_start_matches(' ');
        let mut message = Message::default();
        if let Some(tagged) = rest.strip_prefix('@') {
            let (tags, after) = tagged.split_once(' ')?;
            message.tags = parse_tags(tags);
            rest = after.trim_start_matches(' ');
        }
        if let Some(sourced) = rest.strip_prefix(':') {
            let (source, after) = sourced.split_once(' ')?;
            message.source = Some(Source::parse(source));
            rest = after.trim_start_matches(' ');
        }
        let (command, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
        if command.is_empty() || !command.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        message.command = command.to_ascii_uppercase();
        loop {
            rest = rest.trim_start_matches(' ');
            if rest.is_empty() {
                return Some(message);
            }
            if let Some(trailing) = rest.strip_prefix(':') {
                message.params.push(trailing.to_owned());
                return Some(message);
            }
            let (param, after) = rest.split_once(' ').unwrap_or((rest, ""));
            message.params.push(param.to_owned());
            rest = after;
        }
    }

    /// The tag's value; an empty one counts as absent. The last of doubled keys counts.
    pub(super) fn tag(&self, key: &str) -> Option<&str> {
        let (_, value) = self.tags.iter().rev().find(|(known, _)| known == key)?;
        (!value.is_empty()).then_some(value)
    }

    /// The parameter at `index`, or nothing.
    pub(super) fn param(&self, index: usize) -> &str {
        self.params.get(index).map_or("", String::as_str)
    }

    /// The last parameter: the human text of most lines.
    pub(super) fn text(&self) -> &str {
        self.params.last().map_or("", String::as_str)
    }
}

fn parse_tags(text: &str) -> Vec<(String, String)> {
    let split = |tag: &str| {
        let (key, value) = tag.split_once('=').unwrap_or((tag, ""));
        (key.to_owned(), unescape(value))
    };
    text.split(';').filter(|tag| !tag.is_empty()).map(split).collect()
}

fn unescape(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut letters = value.chars();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some(':') => plain.push(';'),
            Some('s') => plain.push(' '),
            Some('r') => plain.push('\r'),
            Some('n') => plain.push('\n'),
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

/// A line to send, without its end. Every line that leaves is made here, so that nothing in a
/// nick, a channel or a text can begin a second command.
pub(super) fn line(words: &[&str], trailing: Option<&str>) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        let before = line.len();
        line.extend(word.chars().filter(|letter| !matches!(letter, ' ' | '\r' | '\n' | '\0')));
        if line.len() == before {
            line.push('*');
        }
    }
    if let Some(text) = trailing {
        line.push_str(" :");
        line.extend(text.chars().filter(|letter| !matches!(letter, '\r' | '\n' | '\0')));
    }
    line
}

/// Cuts the byte stream into lines.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    /// Where the first unread line begins.
    start: usize,
    /// Inside a line that was too long: everything up to its end is thrown away.
    skipping: bool,
}

impl Framer {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line without its end. Holds at most [`MAX_LINE`] bytes once it returns `None`.
    pub(super) fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            let rest = &self.buffer[self.start..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.buffer.drain(..self.start);
                self.start = 0;
                if self.buffer.len() > MAX_LINE {
                    self.buffer.clear();
                    self.skipping = true;
                }
                return None;
            };
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            let line = (!line.is_empty() && line.len() <= MAX_LINE).then(|| line.to_vec());
            self.start += end + 1;
            let skipped = std::mem::take(&mut self.skipping);
            if let (Some(line), false) = (line, skipped) {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Message {
        Message::parse(line.as_bytes()).unwrap()
    }

    #[test]
    fn reads_tags_source_command_and_parameters() {
        let message = parsed(r"@time=x;+a=\:\s\\\q\n;b;msgid=;c=1;c=2\ :n!u@h  privmsg  #c   ::) hi ");
        assert_eq!(message.tag("+a"), Some("; \\q\n"));
        assert_eq!((message.tag("b"), message.tag("msgid"), message.tag("c")), (None, None, Some("2")));
        assert_eq!(message.source.as_ref().unwrap().mask(), "n!u@h");
        assert_eq!(
            (message.command.as_str(), &message.params),
            ("PRIVMSG", &vec!["#c".to_owned(), ":) hi ".to_owned()])
        );
        assert_eq!(parsed("PING").params.len(), 0);
        assert_eq!(parsed(":irc.server 001 me :").text(), "");
    }

    #[test]
    fn what_is_no_message_is_dropped() {
        for line in ["", "   ", "@a=b", ":x", ": ", "@ :x PING", "@a :x ", "PÄNG x", "\0"] {
            let message = Message::parse(line.as_bytes());
            assert!(message.is_none() || line == "@ :x PING", "{line:?} {message:?}");
        }
        assert!(Message::parse(&vec![b'A'; MAX_LINE + 1]).is_none());
        assert!(Message::parse(b"PRIVMSG #c :caf\xe9").unwrap().text().starts_with("caf"));
    }

    #[test]
    fn nothing_can_begin_a_second_command() {
        assert_eq!(line(&["PRIVMSG", "#c\r\nQUIT"], Some("a\r\nQUIT\0 b")), "PRIVMSG #cQUIT :aQUIT b");
        assert_eq!(line(&["JOIN", ""], None), "JOIN *");
    }

    #[test]
    fn frames_lines_across_reads_and_skips_the_long_one() {
        let mut framer = Framer::default();
        framer.push(b"one\r\nt");
        assert_eq!(framer.next_line().unwrap(), b"one");
        assert_eq!(framer.next_line(), None);
        framer.push(b"wo\n\r\n");
        assert_eq!(framer.next_line().unwrap(), b"two");
        assert_eq!(framer.next_line(), None);
        for _ in 0..20 {
            framer.push(&[b'x'; 1000]);
            assert_eq!(framer.next_line(), None);
            assert!(framer.buffer.len() <= MAX_LINE);
        }
        framer.push(b"tail\nthree\n");
        assert_eq!(framer.next_line().unwrap(), b"three");
    }
}
