//! Threads of the cortex: one answer at a time, and results of their workers that are told once.

use super::*;
use crate::agent::Chat;

fn send(bench: &mut Bench, thread: &str) -> Answer {
    let (answer, answered) = bounded(1);
    let (thread, message) = (thread.to_owned(), "hello".to_owned());
    let agent = AgentId::new(MAIN);
    bench.event(Event::Command(Command::CortexChat { agent, thread, channel: None, message, answer }));
    for action in std::mem::take(&mut bench.actions) {
        match action {
            Action::Answer { to, answer } => to.try_send(answer).expect("room"),
            other => bench.actions.push(other),
        }
    }
    answered.try_recv().expect("an answer")
}

fn begun(bench: &mut Bench, thread: &str) -> ProcessId {
    match send(bench, thread) {
        Answer::Started(process) => {
            bench.started();
            process
        }
        other => panic!("{other:?}"),
    }
}

fn spawn(bench: &mut Bench, process: ProcessId, task: &str, interactive: bool) -> Answer {
    let ask = Ask::SpawnWorker { task: task.to_owned(), interactive, task_type: None };
    bench.ask(process, ask).recv().expect("answer")
}

fn worker_of(bench: &mut Bench, chat: ProcessId, task: &str) -> ProcessId {
    assert!(matches!(spawn(bench, chat, task, false), Answer::Started(_)));
    let job = bench.one();
    assert_eq!(job.place, Place::of_thread("t"));
    job.process
}

fn told(how: &mut Bench) -> (ProcessId, Chat) {
    let job = how.one();
    let Work::CortexChat(chat) = job.work else { panic!("{job:?}") };
    (job.process, chat)
}

fn answered(bench: &mut Bench, process: ProcessId, more: bool) {
    bench.exit(process, How::Turned { covered: None, more, outbox: vec![] });
}

#[test]
fn the_result_of_a_worker_is_told_in_its_thread_when_nobody_else_is_answered() {
    let mut bench = bench(LimitsConfig::default());
    let chat = begun(&mut bench, "t");
    let (one, two) = (worker_of(&mut bench, chat, "one"), worker_of(&mut bench, chat, "two"));
    answered(&mut bench, chat, false);
    let other = begun(&mut bench, "u");
    bench.exit(one, How::Finished).wait(5_000).exit(two, How::Finished).wait(5_000);
    assert!(bench.started().is_empty(), "one at a time, in all threads");
    answered(&mut bench, other, false);
    let (teller, chat) = told(&mut bench);
    assert_eq!(chat, Chat { thread: "t".to_owned(), ..Chat::default() });
    assert_eq!(send(&mut bench, "t"), Answer::Refused(Refusal::Busy(teller)));
    answered(&mut bench, teller, false);
    assert!(bench.wait(600_000).started().is_empty(), "both were told at once");
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
}

#[test]
fn only_an_answer_in_a_thread_starts_workers_and_only_such_as_work_alone() {
    let mut bench = bench(LimitsConfig { max_concurrent_workers: 1, ..LimitsConfig::default() });
    let chat = begun(&mut bench, "t");
    assert_eq!(spawn(&mut bench, chat, "one", true), Answer::Refused(Refusal::Forbidden));
    let branch = bench.ask(chat, Ask::Branch { description: "think".to_owned() }).recv();
    assert_eq!(branch, Ok(Answer::Refused(Refusal::Forbidden)));
    let worker = worker_of(&mut bench, chat, "one");
    assert_eq!(spawn(&mut bench, chat, "one", false), Answer::Refused(Refusal::Duplicate(worker)));
    assert!(matches!(spawn(&mut bench, chat, "two", false), Answer::Refused(Refusal::Limit { .. })));
    answered(&mut bench, chat, false);
    assert!(bench.hub.conversations.is_empty(), "a thread is no conversation");
    let next = begun(&mut bench, "u");
    assert!(matches!(spawn(&mut bench, next, "one", false), Answer::Started(_)), "each has its own");
}

#[test]
fn a_thread_that_goes_on_by_itself_has_an_end_and_the_operator_begins_anew() {
    let mut bench = bench(LimitsConfig::default());
    let mut chat = begun(&mut bench, "t");
    let mut absorbed = Vec::new();
    for round in 0..5 {
        let worker = worker_of(&mut bench, chat, &format!("part {round}"));
        answered(&mut bench, chat, false);
        bench.exit(worker, How::Finished).wait(500);
        let (next, what) = told(&mut bench);
        absorbed.push(what.absorb);
        chat = next;
    }
    assert_eq!(absorbed, [false, false, false, true, true]);
    let worker = worker_of(&mut bench, chat, "last");
    answered(&mut bench, chat, false);
    let chat = begun(&mut bench, "t");
    answered(&mut bench, chat, false);
    bench.exit(worker, How::Finished).wait(500);
    assert!(!told(&mut bench).1.absorb);
}

#[test]
fn what_could_not_be_stored_or_was_found_at_the_start_is_told_later() {
    let mut bench = bench(LimitsConfig::default());
    let (agent, place) = (AgentId::new(MAIN), Place::of_thread("t"));
    bench.event(Event::Unfinished { agent, place, lane: Lane::Talk, newest: None, results: true });
    assert!(bench.started().is_empty());
    let (first, _) = told(bench.wait(500));
    bench.exit(first, How::Failed(Kind::Transient, "the disk is full".to_owned()));
    assert!(bench.wait(29_999).started().is_empty());
    let (second, _) = told(bench.wait(1));
    bench.exit(second, How::Failed(Kind::Transient, "the disk is full".to_owned()));
    assert!(bench.wait(59_999).started().is_empty());
    let (third, chat) = told(bench.wait(1));
    assert!(!chat.absorb, "nobody has been told yet");
    answered(&mut bench, third, true);
    let (fourth, _) = told(&mut bench);
    answered(&mut bench, fourth, false);
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
}

#[test]
fn an_answer_knows_what_runs_anywhere_and_may_stop_it() {
    let mut bench = bench(LimitsConfig::default());
    let chat = begun(&mut bench, "t");
    let worker = worker_of(&mut bench, chat, "one");
    answered(&mut bench, chat, false);
    assert!(matches!(send(&mut bench, "u"), Answer::Started(_)));
    let (other, chat) = told(&mut bench);
    let running: Vec<_> = chat.running.iter().map(|(place, line)| (place.as_str(), line.process)).collect();
    assert_eq!(running, [("cortex:t", worker)]);
    let ask = |process| Ask::Cancel { process, reason: "enough".to_owned() };
    let unknown = ProcessId { number: worker.number + 100, ..worker };
    assert_eq!(bench.ask(other, ask(unknown)).recv(), Ok(Answer::Refused(Refusal::Unknown(unknown))));
    assert_eq!(bench.ask(other, ask(other)).recv(), Ok(Answer::Refused(Refusal::Unknown(other))));
    assert_eq!(bench.ask(other, ask(worker)).recv(), Ok(Answer::Done(worker.to_string())));
    assert_eq!(bench.cancelled(), [(worker, StopReason::Asked("enough".to_owned()))]);
}
