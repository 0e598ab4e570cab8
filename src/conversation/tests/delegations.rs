//! Requests to other agents: bounded where they are written, answered once, told once.

use super::*;
use crate::id::AgentId;

fn to(target: &str, limit: usize, depth: u32) -> NewDelegation {
    let (target, message) = (AgentId::new(target), "count the sheep".to_owned());
    NewDelegation { target, message, answers: vec!["m1".to_owned()], depth, limit }
}

fn commit(c: &Conversations, delegations: Vec<NewDelegation>) {
    c.commit_turn(&place(), TurnCommit { delegations, ..TurnCommit::default() }).expect("commit");
}

#[test]
fn what_comes_over_the_limit_is_kept_back_also_when_two_have_looked_at_once() {
    let clock = SimulatedClock::starting_at(Timestamp(1000));
    let folder = tempfile::tempdir().expect("folder");
    let c =
        Conversations::new(Db::open_inline(&folder.path().join("t.db"), None).expect("open"), clock.clone());
    let den = AgentId::new("den");
    // Both turns have read that there is room for one.
    assert_eq!(c.delegated_lately(&den).expect("read"), 0);
    commit(&c, vec![to("den", 1, 1)]);
    commit(&c, vec![to("den", 1, 1), to("hut", 1, 1)]);
    let waiting = c.undelivered(0, 10).expect("read");
    let refused: Vec<_> = waiting.iter().map(|one| (one.target.as_str(), one.refused)).collect();
    assert_eq!(refused, [("den", false), ("den", true), ("hut", false)]);
    clock.advance(LINK_WINDOW);
    assert_eq!(c.delegated_lately(&den).expect("read"), 0, "an hour later there is room again");
    commit(&c, vec![to("den", 1, 1)]);
    assert!(!c.undelivered(0, 10).expect("read")[3].refused);
}

#[test]
fn a_result_is_taken_once_and_told_once_and_knows_how_deep_it_is() {
    let (_folder, c) = conversations();
    commit(&c, vec![to("den", 9, 2)]);
    let request = c.undelivered(0, 10).expect("read").remove(0);
    c.delivered(request.id).expect("write");
    assert!(c.undelivered(0, 10).expect("read").is_empty());
    assert_eq!(c.answer_delegation("1@7", "of a database that was begun anew").expect("write"), None);
    assert!(c.unfinished().expect("read").is_empty());
    assert_eq!(c.answer_delegation(&request.key(), "12").expect("write"), Some(place()));
    assert_eq!(c.answer_delegation(&request.key(), "13").expect("write"), None);
    let waiting = c.waiting_results(&place().conversation, 10).expect("read");
    let [result] = &waiting[..] else { panic!("{waiting:?}") };
    assert_eq!((result.process.to_string().as_str(), result.text.as_str()), ("delegation:1", "12"));
    assert_eq!((result.task.as_str(), &result.answers), ("den: count the sheep", &vec!["m1".to_owned()]));
    let worker = ProcessId::new(ProcessKind::Worker, 1);
    assert_eq!(c.delegation_depth(&[worker]).expect("read"), 0);
    assert_eq!(c.delegation_depth(&[worker, result.process]).expect("read"), 2);
    assert!(c.unfinished().expect("read")[0].results, "a start finds it");
    let relay = || TurnCommit { relayed: vec![result.process], ..TurnCommit::default() };
    c.commit_turn(&place(), relay()).expect("told");
    assert!(c.commit_turn(&place(), relay()).is_err(), "told once");
    assert!(c.waiting_results(&place().conversation, 10).expect("read").is_empty());
}
