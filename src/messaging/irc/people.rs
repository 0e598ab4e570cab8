//! Whom we met on this connection: under which nick an account writes, and who was refused.

use std::collections::VecDeque;
use std::time::Duration;

use super::isupport::Server;

/// Accounts and refused people remembered; the oldest go first.
const REMEMBERED: usize = 256;
/// How long a nick is believed to belong to the account that used it. Nobody tells us when a person
/// who shares no channel with us leaves the nick to somebody else.
const BELIEVED: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct People {
    seen: VecDeque<Seen>,
    refused: VecDeque<String>,
}

#[derive(Debug)]
struct Seen {
    /// Folded.
    account: String,
    nick: String,
    at: Duration,
}

/// Where to find the person behind an account.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Wrote a moment ago under this nick.
    Here(String),
    /// Was, or may be, under this nick: ask the server before saying anything.
    Ask(String),
}

impl People {
    pub(super) fn met(&mut self, account: &str, nick: &str, server: &Server, now: Duration) {
        let account = server.fold(account);
        self.seen.retain(|seen| seen.account != account && !server.same(&seen.nick, nick));
        if self.seen.len() >= REMEMBERED {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { account, nick: nick.to_owned(), at: now });
    }

    pub(super) fn renamed(&mut self, old: &str, new: &str, server: &Server) {
        self.seen.retain(|seen| !server.same(&seen.nick, new) || server.same(old, new));
        for seen in self.seen.iter_mut().filter(|seen| server.same(&seen.nick, old)) {
            new.clone_into(&mut seen.nick);
        }
    }

    pub(super) fn left(&mut self, nick: &str, server: &Server) {
        self.seen.retain(|seen| !server.same(&seen.nick, nick));
    }

    /// `account` must be folded.
    pub(super) fn find(&self, account: &str, now: Duration) -> Whereabouts {
        match self.seen.iter().find(|seen| seen.account == account) {
            Some(seen) if now.saturating_sub(seen.at) < BELIEVED => Whereabouts::Here(seen.nick.clone()),
            Some(seen) => Whereabouts::Ask(seen.nick.clone()),
            None => Whereabouts::Ask(account.to_owned()),
        }
    }

    /// True the first time.
    pub(super) fn refuse(&mut self, who: String) -> bool {
        if self.refused.contains(&who) {
            return false;
        }
        if self.refused.len() >= REMEMBERED {
            self.refused.pop_front();
        }
        self.refused.push_back(who);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn a_nick_is_believed_for_a_while_and_follows_its_person() {
        let server = Server::default();
        let mut people = People::default();
        people.met("Alice", "al", &server, NOW);
        assert_eq!(people.find("alice", NOW), Whereabouts::Here("al".into()));
        people.renamed("AL", "alice2", &server);
        assert_eq!(people.find("alice", NOW), Whereabouts::Here("alice2".into()));
        assert_eq!(people.find("alice", NOW + BELIEVED), Whereabouts::Ask("alice2".into()));
        people.met("mallory", "alice2", &server, NOW);
        assert_eq!(people.find("alice", NOW), Whereabouts::Ask("alice".into()));
        people.left("Alice2", &server);
        assert_eq!(people.find("mallory", NOW), Whereabouts::Ask("mallory".into()));
    }

    #[test]
    fn somebody_who_takes_a_nick_over_is_not_the_one_before() {
        let server = Server::default();
        let mut people = People::default();
        people.met("alice", "al", &server, NOW);
        people.met("bob", "bo", &server, NOW);
        people.renamed("bo", "al", &server);
        assert_eq!(people.find("alice", NOW), Whereabouts::Ask("alice".into()));
        assert_eq!(people.find("bob", NOW), Whereabouts::Here("al".into()));
    }

    #[test]
    fn memory_is_bounded() {
        let server = Server::default();
        let mut people = People::default();
        for number in 0..1000 {
            people.met(&format!("a{number}"), &format!("n{number}"), &server, NOW);
            assert!(people.refuse(format!("{number}")) && !people.refuse(format!("{number}")));
        }
        assert_eq!((people.seen.len(), people.refused.len()), (REMEMBERED, REMEMBERED));
    }
}
