//! What the server says about itself in numeric 005.

use super::casemap::CaseMapping;

/// Longest line of a server that says nothing, with its end (RFC 1459).
const DEFAULT_LINE: usize = 512;
/// `LINELEN` outside of these is not believed: below, no answer would fit; above, a server of the
/// same network may cut.
const LINE_RANGE: std::ops::RangeInclusive<usize> = 256..=4096;
/// Most letters kept of `CHANTYPES` and `STATUSMSG`.
const MAX_SIGNS: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) casemapping: CaseMapping,
    pub(super) nick_length: Option<usize>,
    /// Bytes of a line with its end.
    pub(super) line_length: usize,
    /// Most messages of a history that one line may ask for; 0: no limit. None: there is no history.
    pub(super) history: Option<usize>,
    channel_types: String,
    status_prefixes: String,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            casemapping: CaseMapping::default(),
            nick_length: None,
            line_length: DEFAULT_LINE,
            history: None,
            channel_types: "#&".to_owned(),
            status_prefixes: String::new(),
        }
    }
}

impl Server {
    /// Takes the parameters of one 005 line: our nick, tokens, a sentence.
    pub(super) fn learn(&mut self, params: &[String]) {
        let last = params.len().saturating_sub(1);
        for token in params.get(1..last).unwrap_or_default() {
            let (key, value) = token.split_once('=').unwrap_or((token, ""));
            self.set(key, value);
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        let default = Server::default();
        match key {
            "CASEMAPPING" => self.casemapping = CaseMapping::named(value),
            "-CASEMAPPING" => self.casemapping = default.casemapping,
            "NICKLEN" => self.nick_length = value.parse().ok().filter(|length| *length > 0),
            "LINELEN" => {
                let length = value.parse().ok().filter(|length| LINE_RANGE.contains(length));
                self.line_length = length.unwrap_or(default.line_length);
            }
            "-LINELEN" => self.line_length = default.line_length,
            "CHATHISTORY" => self.history = value.parse().ok(),
            "-CHATHISTORY" => self.history = None,
            "CHANTYPES" => self.channel_types = value.chars().take(MAX_SIGNS).collect(),
            "-CHANTYPES" => self.channel_types = default.channel_types,
            "STATUSMSG" => self.status_prefixes = value.chars().take(MAX_SIGNS).collect(),
            "-STATUSMSG" => self.status_prefixes = default.status_prefixes,
            _ => {}
        }
    }

    pub(super) fn fold(&self, name: &str) -> String {
        self.casemapping.fold(name)
    }

    pub(super) fn same(&self, one: &str, other: &str) -> bool {
        self.casemapping.same(one, other)
    }

    pub(super) fn is_channel(&self, target: &str) -> bool {
        target.starts_with(|sign| self.channel_types.contains(sign))
    }

    /// True for `@#channel`: only part of the channel's people read that.
    pub(super) fn is_part_of_channel(&self, target: &str) -> bool {
        let name = target.trim_start_matches(|sign| self.status_prefixes.contains(sign));
        name.len() < target.len() && self.is_channel(name) && !self.is_channel(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(tokens: &str) -> Server {
        let mut server = Server::default();
        let params: Vec<_> = format!("me {tokens} end").split(' ').map(str::to_owned).collect();
        server.learn(&params);
        server
    }

    #[test]
    fn tokens_are_taken_and_taken_back() {
        assert_eq!(learned("CHATHISTORY=50").history, Some(50));
        assert_eq!(learned("CHATHISTORY=50 -CHATHISTORY").history, None);
        let server = learned("CASEMAPPING=ascii NICKLEN=30 LINELEN=2048 CHANTYPES=#+ STATUSMSG=@+ EXCEPTS");
        assert_eq!(server.casemapping, CaseMapping::Ascii);
        assert_eq!((server.nick_length, server.line_length), (Some(30), 2048));
        assert!(server.is_channel("+c") && !server.is_channel("&c"));
        assert!(server.is_part_of_channel("@#c") && !server.is_part_of_channel("#c"));
        assert!(!server.is_part_of_channel("+c"));
        let server = learned("CHANTYPES=+ -CHANTYPES LINELEN=9 NICKLEN=0");
        assert!(server.is_channel("#c"));
        assert_eq!((server.nick_length, server.line_length), (None, 512));
    }
}
