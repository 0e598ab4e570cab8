//! What a person typed, without IRC's formatting codes and CTCP, and whether it names us.

use super::casemap::CaseMapping;

/// Begins and ends a CTCP message.
const CTCP: char = '\u{1}';

/// The text as people read it; `None` for what is no speech: CTCP requests and empty lines.
pub(super) enum Spoken {
    Said(String),
    /// `/me`: what the sender does.
    Acted(String),
}

pub(super) fn spoken(text: &str) -> Option<Spoken> {
    let Some(request) = text.strip_prefix(CTCP) else {
        return readable(text).map(Spoken::Said);
    };
    let request = request.strip_suffix(CTCP).unwrap_or(request);
    let (command, rest) = request.split_once(' ')?;
    if !command.eq_ignore_ascii_case("ACTION") {
        return None;
    }
    readable(rest).map(Spoken::Acted)
}

fn readable(text: &str) -> Option<String> {
    let plain = without_codes(text);
    let plain = plain.trim();
    (!plain.is_empty()).then(|| plain.to_owned())
}

/// Removes bold, italics, colours and all other control characters but the tab.
fn without_codes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        rest = &rest[letter.len_utf8()..];
        match letter {
            '\u{3}' => rest = skip_colours(rest, 2, |byte| byte.is_ascii_digit()),
            '\u{4}' => rest = skip_colours(rest, 6, |byte| byte.is_ascii_hexdigit()),
            '\t' => plain.push('\t'),
            letter if letter.is_control() => {}
            letter => plain.push(letter),
        }
    }
    plain
}

/// Skips `foreground[,background]` of at most `width` digits each.
fn skip_colours(text: &str, width: usize, is_digit: fn(&u8) -> bool) -> &str {
    let digits = |text: &str| text.bytes().take(width).take_while(is_digit).count();
    let foreground = digits(text);
    let rest = &text[foreground..];
    match rest.strip_prefix(',') {
        Some(background) if foreground > 0 && digits(background) > 0 => &background[digits(background)..],
        _ => rest,
    }
}

/// How a text names us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mention<'a> {
    /// `nick: text` or `nick, text`; this is the text, which may be empty.
    Address(&'a str),
    Within,
    None,
}

pub(super) fn mention<'a>(text: &'a str, nick: &str, casemapping: CaseMapping) -> Mention<'a> {
    let text = text.trim();
    let begin = text.strip_prefix('@').unwrap_or(text);
    let end = begin.find(|letter| !is_nick_letter(letter)).unwrap_or(begin.len());
    if casemapping.same(&begin[..end], nick)
        && let Some(rest) = begin[end..].strip_prefix([':', ','])
    {
        return Mention::Address(rest.trim_start());
    }
    let mut words = text.split(|letter| !is_nick_letter(letter));
    if words.any(|word| casemapping.same(word, nick)) { Mention::Within } else { Mention::None }
}

fn is_nick_letter(letter: char) -> bool {
    letter.is_alphanumeric() || "_-[]\\`^{}|".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<String> {
        match spoken(text)? {
            Spoken::Said(text) => Some(text),
            Spoken::Acted(text) => Some(format!("* {text}")),
        }
    }

    #[test]
    fn codes_are_removed() {
        let cases = [
            ("\u{2}bold\u{f} \u{1d}it\u{1f}", "bold it"),
            ("\u{3}04,12red\u{3} 5", "red 5"),
            ("\u{3}4,x", ",x"),
            ("\u{3},4x", ",4x"),
            ("\u{3}123", "3"),
            ("\u{4}ff00aa,001122x", "x"),
            ("\u{4}zz", "zz"),
            ("a\tb\u{7}", "a\tb"),
        ];
        for (text, plain) in cases {
            assert_eq!(said(text).as_deref(), Some(plain), "{text:?}");
        }
        assert_eq!(said(" \u{2}\u{3}4 "), None);
    }

    #[test]
    fn of_ctcp_only_the_action_is_speech() {
        assert_eq!(said("\u{1}ACTION waves\u{1}").as_deref(), Some("* waves"));
        assert_eq!(said("\u{1}action waves").as_deref(), Some("* waves"));
        for text in ["\u{1}VERSION\u{1}", "\u{1}PING 1\u{1}", "\u{1}ACTION\u{1}", "\u{1}", "\u{1}\u{1}"] {
            assert_eq!(said(text), None, "{text:?}");
        }
    }

    #[test]
    fn mentions_are_whole_words() {
        let case = |text| mention(text, "Bot", CaseMapping::Ascii);
        assert_eq!(case("bot: hello"), Mention::Address("hello"));
        assert_eq!(case("@BOT,hello"), Mention::Address("hello"));
        assert_eq!(case("bot:"), Mention::Address(""));
        for text in ["bot hello", "hi bot!", "ask bot's friend", "@bot hi", "(bot)"] {
            assert_eq!(case(text), Mention::Within, "{text}");
        }
        for text in ["robot: hi", "bots", "bot_: hi", "hello", "", "böt"] {
            assert_eq!(case(text), Mention::None, "{text}");
        }
    }
}
