//! Slash commands: which messages are one, told from their text alone.

/// A command as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slash {
    Help,
    Status,
    Active,
    Quiet,
    MentionOnly,
    Tasks,
    /// The task's number; none when what follows is no number.
    Approve(Option<u64>),
    Today,
    Digest,
    Whoami,
    AgentId,
}

const NAMES: [(&str, Slash); 13] = [
    ("help", Slash::Help),
    ("commands", Slash::Help),
    ("status", Slash::Status),
    ("active", Slash::Active),
    ("quiet", Slash::Quiet),
    ("observe", Slash::Quiet),
    ("mention-only", Slash::MentionOnly),
    ("tasks", Slash::Tasks),
    ("approve", Slash::Approve(None)),
    ("today", Slash::Today),
    ("digest", Slash::Digest),
    ("whoami", Slash::Whoami),
    ("agent-id", Slash::AgentId),
];

/// The command in `text`. Text that goes on behind a command which takes nothing is a message like any
/// other, and so is a slash before a word that is no command: `/etc/hosts is empty`.
pub fn parse(text: &str) -> Option<Slash> {
    let (word, rest) = {
        let text = text.trim().strip_prefix('/')?;
        text.split_once(char::is_whitespace).unwrap_or((text, ""))
    };
    // Telegram writes `/status@name_of_the_bot`, and knows no hyphens.
    let word = word.split('@').next()?.to_ascii_lowercase().replace('_', "-");
    let (_, slash) = NAMES.into_iter().find(|(name, _)| *name == word)?;
    match slash {
        Slash::Approve(_) => Some(Slash::Approve(rest.trim().trim_start_matches('#').parse().ok())),
        slash if rest.trim().is_empty() => Some(slash),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_by_its_first_word() {
        let cases = [
            ("/status", Some(Slash::Status)),
            ("  /Status \n", Some(Slash::Status)),
            ("/status@my_bot", Some(Slash::Status)),
            ("/mention_only", Some(Slash::MentionOnly)),
            ("/observe", Some(Slash::Quiet)),
            ("/commands", Some(Slash::Help)),
            ("/approve 12", Some(Slash::Approve(Some(12)))),
            ("/approve #12", Some(Slash::Approve(Some(12)))),
            ("/approve", Some(Slash::Approve(None))),
            ("/approve all of it", Some(Slash::Approve(None))),
            ("/approve -1", Some(Slash::Approve(None))),
            ("/today I went shopping", None),
            ("/etc/hosts is empty", None),
            ("/", None),
            ("", None),
            ("status", None),
            ("what does /status do?", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(parse(text), wanted, "{text:?}");
        }
    }
}
