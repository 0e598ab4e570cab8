//! Who may write to us directly (`dm_allowed_users`). Nobody, unless listed (P7).

use super::casemap::CaseMapping;
use super::grammar::Source;

#[derive(Debug, Clone)]
pub(super) struct Allowed(Vec<Rule>);

#[derive(Debug, Clone)]
enum Rule {
    Everybody,
    /// `nick!user@host` with `*` and `?`.
    Mask(String),
    /// A services account; a nick alone proves nothing.
    Account(String),
}

impl Allowed {
    pub(super) fn new(entries: &[String]) -> Self {
        let rule = |entry: &String| match entry.trim() {
            "*" => Rule::Everybody,
            mask if mask.contains(['!', '@']) => Rule::Mask(mask.to_owned()),
            account => Rule::Account(account.to_owned()),
        };
        Self(entries.iter().filter(|entry| !entry.trim().is_empty()).map(rule).collect())
    }

    pub(super) fn allows(&self, source: &Source, account: Option<&str>, casemapping: CaseMapping) -> bool {
        self.0.iter().any(|rule| match rule {
            Rule::Everybody => true,
            Rule::Mask(mask) => matches(&casemapping.fold(mask), &casemapping.fold(&source.mask())),
            Rule::Account(name) => account.is_some_and(|account| casemapping.same(account, name)),
        })
    }

    /// True when somebody is listed by account, which only works where the server names accounts.
    pub(super) fn needs_accounts(&self) -> bool {
        self.0.iter().any(|rule| matches!(rule, Rule::Account(_)))
    }
}

/// Glob match with `*` and `?`, in time bounded by the product of the lengths.
fn matches(mask: &str, text: &str) -> bool {
    let mask: Vec<char> = mask.chars().collect();
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    // Where the last star stands, and how much of the text it covers so far.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match mask.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((place, covered)) = star else { return false };
                star = Some((place, covered + 1));
                at = place + 1;
                read = covered + 1;
            }
        }
    }
    mask[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(entries: &[&str], source: (&str, &str, &str), account: Option<&str>) -> bool {
        let entries: Vec<_> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let source = Source { nick: source.0.into(), user: source.1.into(), host: source.2.into() };
        Allowed::new(&entries).allows(&source, account, CaseMapping::Rfc1459)
    }

    #[test]
    fn an_empty_list_refuses_everybody() {
        assert!(!allowed(&[], ("alice", "a", "home"), Some("alice")));
        assert!(!allowed(&["", " "], ("alice", "a", "home"), Some("alice")));
        assert!(allowed(&["*"], ("alice", "a", "home"), None));
    }

    #[test]
    fn an_account_is_not_a_nick_and_a_mask_is_not_an_account() {
        assert!(allowed(&["Alice"], ("x", "a", "home"), Some("alice")));
        assert!(!allowed(&["alice"], ("alice", "a", "home"), None));
        assert!(!allowed(&["alice"], ("alice", "a", "home"), Some("mallory")));
        assert!(allowed(&["*!*@*.home"], ("alice", "a", "pc.HOME"), None));
        assert!(allowed(&["a[?]!*@h"], ("A{x}", "u", "h"), None));
        assert!(!allowed(&["*!*@*.home"], ("alice", "a", "home.evil"), None));
        assert!(!allowed(&["alice!*@home"], ("alice", "a", "home2"), Some("alice!*@home")));
    }

    #[test]
    fn globs_match_as_expected() {
        for (mask, text, expected) in [
            ("*a*b*", "xxaxxbx", true),
            ("*a*b", "ababx", false),
            ("a**", "a", true),
            ("?", "", false),
            ("", "", true),
            ("*", "", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches(mask, text), expected, "{mask} {text}");
        }
    }
}
