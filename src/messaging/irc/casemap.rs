//! Which spellings of a nick or channel are the same name; every server says for itself.

/// `CASEMAPPING` of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum CaseMapping {
    Ascii,
    /// What a server that says nothing means: `[]\~` are the capitals of `{}|^`.
    #[default]
    Rfc1459,
    /// The same without `~` and `^`.
    Rfc1459Strict,
    /// `rfc7613` and anything else that goes beyond ASCII.
    Unicode,
}

impl CaseMapping {
    pub(super) fn named(name: &str) -> Self {
        match name {
            "ascii" => CaseMapping::Ascii,
            "rfc1459" => CaseMapping::Rfc1459,
            "rfc1459-strict" | "strict-rfc1459" => CaseMapping::Rfc1459Strict,
            _ => CaseMapping::Unicode,
        }
    }

    /// The one spelling that stands for all.
    pub(super) fn fold(self, name: &str) -> String {
        if self == CaseMapping::Unicode {
            return name.to_lowercase();
        }
        name.chars().map(|letter| self.fold_letter(letter)).collect()
    }

    pub(super) fn same(self, one: &str, other: &str) -> bool {
        one == other || self.fold(one) == self.fold(other)
    }

    fn fold_letter(self, letter: char) -> char {
        let brackets = matches!(self, CaseMapping::Rfc1459 | CaseMapping::Rfc1459Strict);
        match letter {
            '[' if brackets => '{',
            ']' if brackets => '}',
            '\\' if brackets => '|',
            '~' if self == CaseMapping::Rfc1459 => '^',
            other => other.to_ascii_lowercase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mapping_has_its_own_capitals() {
        assert!(CaseMapping::Rfc1459.same("Nick[a]\\~", "nick{A}|^"));
        assert!(!CaseMapping::Rfc1459Strict.same("a~", "a^"));
        assert!(CaseMapping::Rfc1459Strict.same("a]", "a}"));
        assert!(!CaseMapping::Ascii.same("a[", "a{"));
        assert!(CaseMapping::named("rfc7613").same("ÄB", "äb"));
        assert!(!CaseMapping::Ascii.same("ÄB", "äb"));
    }
}
