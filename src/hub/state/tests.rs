//! The hub's rules, one by one, without a thread.

mod compaction;
mod company;
mod cortex;
mod deferral;
mod post;
mod runs;
mod threads;

use super::*;
use crate::config::CortexConfig;
use crate::event::Ingested;
use crossbeam_channel::{Receiver, bounded};

const MAIN: &str = "main";

struct Bench {
    hub: Hub,
    now: Duration,
    actions: Vec<Action>,
}

/// Without a cortex, whose errands would stand between all others; it has tests of its own.
fn bench(limits: LimitsConfig) -> Bench {
    let off = CortexConfig { enabled: false, ..CortexConfig::default() };
    with_cortex(LimitsConfig { cortex: off, ..limits })
}

fn with_cortex(limits: LimitsConfig) -> Bench {
    let hub = Hub::new([(AgentId::new(MAIN), limits, 1)]);
    Bench { hub, now: Duration::from_secs(1000), actions: Vec::new() }
}

fn place(name: &str, direct: bool) -> Place {
    Place {
        conversation: ConversationId::new(name),
        instance: InstanceId::new("webhook"),
        direct,
        name: name.to_owned(),
    }
}

impl Bench {
    fn event(&mut self, event: Event) -> &mut Self {
        let actions = self.hub.handle(event, self.now);
        self.actions.extend(actions);
        self
    }

    fn message(&mut self, conversation: &str, inbox: i64) -> &mut Self {
        let place = place(conversation, true);
        let (agent, inbox) = (AgentId::new(MAIN), InboxId(inbox));
        self.event(Event::Arrived { agent, place, lane: Lane::Talk, inbox, addressed: true })
    }

    fn command(&mut self, conversation: &str, inbox: i64) -> &mut Self {
        let place = place(conversation, true);
        let (agent, inbox) = (AgentId::new(MAIN), InboxId(inbox));
        self.event(Event::Arrived { agent, place, lane: Lane::Commands, inbox, addressed: true })
    }

    fn news(&mut self, news: TaskNews) -> &mut Self {
        self.event(Event::Task { agent: AgentId::new(MAIN), news })
    }

    fn process(&mut self, process: ProcessId, what: What) -> &mut Self {
        self.event(Event::Process(ProcessEvent { agent: AgentId::new(MAIN), process, what }))
    }

    fn exit(&mut self, process: ProcessId, how: How) -> &mut Self {
        self.process(process, What::Exited(how))
    }

    fn turned(&mut self, process: ProcessId, covered: i64) -> &mut Self {
        let outbox = vec![InstanceId::new("webhook")];
        self.exit(process, How::Turned { covered: Some(InboxId(covered)), more: false, outbox })
    }

    fn ask(&mut self, process: ProcessId, ask: Ask) -> Receiver<Answer> {
        let (answer, answered) = bounded(1);
        self.process(process, What::Asked { ask, origin: Origin::default(), answer });
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Answer { to, answer } => to.try_send(answer).expect("room"),
                other => self.actions.push(other),
            }
        }
        answered
    }

    fn wait(&mut self, milliseconds: u64) -> &mut Self {
        self.now += Duration::from_millis(milliseconds);
        self.event(Event::Timer)
    }

    /// The jobs that were started since the last look.
    fn started(&mut self) -> Vec<Job> {
        let (starts, rest) = std::mem::take(&mut self.actions)
            .into_iter()
            .partition(|action| matches!(action, Action::Start { .. }));
        self.actions = rest;
        let job = |action| match action {
            Action::Start { job, .. } => job,
            other => panic!("no start: {other:?}"),
        };
        Vec::into_iter(starts).map(job).collect()
    }

    fn one(&mut self) -> Job {
        let mut jobs = self.started();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    fn cancelled(&mut self) -> Vec<(ProcessId, StopReason)> {
        let cancel = |action| match action {
            Action::Cancel { process, reason, .. } => Some((process, reason)),
            _ => None,
        };
        std::mem::take(&mut self.actions).into_iter().filter_map(cancel).collect()
    }
}

fn turn_of(job: &Job) -> &Turn {
    match &job.work {
        Work::Turn(turn) => turn,
        other => panic!("no turn: {other:?}"),
    }
}

#[test]
fn one_turn_at_a_time_in_a_conversation_and_the_next_follows() {
    let mut bench = bench(LimitsConfig::default());
    let first = bench.message("c", 1).message("c", 2).one();
    assert!(turn_of(&first).single);
    assert!(bench.started().is_empty(), "one turn at a time");
    // Message 2 came after the turn had been started: a second turn looks for it.
    let second = bench.turned(first.process, 1).one();
    bench.turned(second.process, 2);
    let third = bench.message("c", 3).message("c", 4).one();
    bench.exit(third.process, How::Turned { covered: Some(InboxId(3)), more: true, outbox: vec![] });
    let fourth = bench.one();
    bench.turned(fourth.process, 4);
    assert!(bench.started().is_empty());
}

#[test]
fn an_idle_conversation_costs_nothing() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one();
    bench.turned(turn.process, 1);
    assert!(bench.hub.conversations.is_empty() && bench.hub.processes.is_empty());
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
    assert!(matches!(bench.actions[..], [Action::Ring { .. }]));
}

#[test]
fn turns_over_the_limit_wait_in_order() {
    let mut bench = bench(LimitsConfig { max_concurrent_turns: 2, ..LimitsConfig::default() });
    for (inbox, name) in ["a", "b", "c", "d"].iter().enumerate() {
        bench.message(name, inbox as i64 + 1);
    }
    let running = bench.started();
    assert_eq!(running.len(), 2);
    bench.turned(running[0].process, 1);
    assert_eq!(bench.one().place.conversation.as_str(), "c");
    bench.turned(running[1].process, 2);
    assert_eq!(bench.one().place.conversation.as_str(), "d");
}

#[test]
fn new_limits_hold_for_what_starts_and_waiting_turns_start_at_once() {
    let mut bench = bench(LimitsConfig { max_concurrent_turns: 1, ..LimitsConfig::default() });
    let first = bench.message("a", 1).message("b", 2).message("c", 3).one();
    let more = LimitsConfig {
        max_concurrent_turns: 2,
        max_concurrent_branches: 1,
        branch_wall_clock: Duration::from_secs(7),
        ..LimitsConfig::default()
    };
    let branch = || Ask::Branch { description: "think".to_owned() };
    bench.ask(first.process, branch());
    bench.started();
    let unknown = (AgentId::new("nobody"), LimitsConfig::default());
    bench.event(Event::Reloaded([(AgentId::new(MAIN), more), unknown].into()));
    let second = bench.one();
    assert_eq!(second.place.conversation.as_str(), "b");
    let refused = bench.ask(first.process, branch()).try_recv();
    assert!(matches!(refused, Ok(Answer::Refused(Refusal::Limit { limit: 1, .. }))), "{refused:?}");
    bench.ask(second.process, branch());
    let young = bench.one();
    bench.wait(7_000);
    assert_eq!(bench.cancelled(), [(young.process, StopReason::Timeout)], "the older one keeps its time");
    // Fewer: what runs runs on, and nothing starts before there is room again.
    let fewer = LimitsConfig { max_concurrent_turns: 1, ..LimitsConfig::default() };
    bench.event(Event::Reloaded([(AgentId::new(MAIN), fewer)].into()));
    bench.turned(first.process, 1);
    assert!(bench.started().is_empty());
    bench.turned(second.process, 2);
    assert_eq!(bench.one().place.conversation.as_str(), "c");
}

#[test]
fn results_within_the_debounce_share_a_turn() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one();
    let branch = |n: u32| Ask::Branch { description: format!("think {n}") };
    let answers: Vec<_> =
        (0..2).map(|n| bench.ask(turn.process, branch(n)).recv().expect("answer")).collect();
    let branches = bench.started();
    assert_eq!(branches.len(), 2);
    assert_eq!(answers[0], Answer::Started(branches[0].process));
    bench.turned(turn.process, 1);
    bench.exit(branches[0].process, How::Finished).wait(400).exit(branches[1].process, How::Finished);
    assert!(bench.wait(499).started().is_empty());
    let retrigger = bench.wait(1).one();
    assert!(!turn_of(&retrigger).absorb);
    bench.exit(retrigger.process, How::Turned { covered: None, more: false, outbox: vec![] });
    assert!(bench.hub.conversations.is_empty());
}

#[test]
fn a_chain_of_results_stops_after_three_turns_and_is_kept() {
    a_chain_stops(3, LimitsConfig::default());
    let retrigger_debounce = Duration::from_millis(20);
    a_chain_stops(1, LimitsConfig { max_retriggers: 1, retrigger_debounce, ..LimitsConfig::default() });
}

fn a_chain_stops(most: u32, limits: LimitsConfig) {
    let debounce = u64::try_from(limits.retrigger_debounce.as_millis()).unwrap_or(u64::MAX);
    let mut bench = bench(limits);
    let mut turn = bench.message("c", 1).one();
    for round in 0..5 {
        bench
            .ask(turn.process, Ask::Branch { description: format!("again {round}") })
            .recv()
            .expect("answer");
        let branch = bench.one();
        bench.exit(turn.process, How::Turned { covered: None, more: false, outbox: vec![] });
        bench.exit(branch.process, How::Finished);
        assert!(bench.wait(debounce - 1).started().is_empty());
        turn = bench.wait(1).one();
        assert_eq!(turn_of(&turn).absorb, round >= most, "round {round}");
    }
    bench.exit(turn.process, How::Turned { covered: None, more: false, outbox: vec![] });
    let next = bench.message("c", 2).one();
    assert!(!turn_of(&next).absorb, "a person's message starts the count anew");
}

#[test]
fn limits_and_twins_are_refused_in_words() {
    let mut bench = bench(LimitsConfig {
        max_concurrent_workers: 1,
        max_concurrent_branches: 1,
        ..LimitsConfig::default()
    });
    let turn = bench.message("c", 1).one();
    let worker = |task: &str| Ask::SpawnWorker { task: task.to_owned(), interactive: false, task_type: None };
    assert!(matches!(bench.ask(turn.process, worker("ls")).recv(), Ok(Answer::Started(_))));
    let running = bench.one();
    let twin = bench.ask(turn.process, worker("ls")).recv();
    assert_eq!(twin, Ok(Answer::Refused(Refusal::Duplicate(running.process))));
    let more = bench.ask(turn.process, worker("pwd")).recv();
    assert_eq!(more, Ok(Answer::Refused(Refusal::Limit { what: "workers", limit: 1 })));
    let forbidden = bench.ask(running.process, worker("pwd")).recv();
    assert_eq!(forbidden, Ok(Answer::Refused(Refusal::Forbidden)), "a worker starts nothing");
}

#[test]
fn cancel_and_route_reach_only_the_same_conversation() {
    let mut bench = bench(LimitsConfig::default());
    let here = bench.message("c", 1).one();
    let there = bench.message("d", 2).one();
    bench
        .ask(here.process, Ask::SpawnWorker { task: "x".to_owned(), interactive: true, task_type: None })
        .recv()
        .expect("answer");
    let worker = bench.one().process;
    let cancel = || Ask::Cancel { process: worker, reason: "no".to_owned() };
    assert_eq!(bench.ask(there.process, cancel()).recv(), Ok(Answer::Refused(Refusal::Unknown(worker))));
    let route = |worker| Ask::Route { worker };
    assert_eq!(bench.ask(there.process, route(worker)).recv(), Ok(Answer::Refused(Refusal::Unknown(worker))));
    assert_eq!(bench.ask(here.process, route(worker)).recv(), Ok(Answer::Done(worker.to_string())));
    assert!(bench.actions.is_empty(), "what a turn routes goes with its end");
    bench.process(here.process, What::Routed(vec![worker]));
    assert!(matches!(&bench.actions[..], [Action::RingProcess { process, .. }] if *process == worker));
    bench.actions.clear();
    assert_eq!(bench.ask(here.process, cancel()).recv(), Ok(Answer::Done(worker.to_string())));
    assert_eq!(bench.cancelled(), [(worker, StopReason::Asked("no".to_owned()))]);
    bench.ask(here.process, cancel());
    assert!(bench.cancelled().is_empty(), "one stop is enough");
}

#[test]
fn a_branch_out_of_time_is_cancelled() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one();
    bench.ask(turn.process, Ask::Branch { description: "x".to_owned() }).recv().expect("answer");
    let branch = bench.one().process;
    bench.turned(turn.process, 1);
    assert!(bench.wait(599_999).cancelled().is_empty());
    assert_eq!(bench.wait(1).cancelled(), [(branch, StopReason::Timeout)]);
}

#[test]
fn waiting_for_input_does_not_count_as_work() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one();
    bench
        .ask(turn.process, Ask::SpawnWorker { task: "x".to_owned(), interactive: true, task_type: None })
        .recv()
        .expect("answer");
    let worker = bench.one().process;
    bench.turned(turn.process, 1).wait(1_700_000).process(worker, What::Waiting);
    let retrigger = bench.wait(500).one();
    assert!(turn_of(&retrigger).running[0].waiting);
    bench.process(worker, What::Works);
    assert!(
        bench.wait(1_799_000).cancelled().iter().all(|(process, _)| *process != worker),
        "the clock of the work began anew"
    );
    bench.process(worker, What::Waiting);
    assert_eq!(
        bench.wait(600_000).cancelled(),
        [(worker, StopReason::Timeout)],
        "idle time has its own limit"
    );
}

/// With little of its working time left, a worker may still wait for as long as any other.
#[test]
fn a_worker_that_waits_outlives_its_working_time() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one();
    bench
        .ask(turn.process, Ask::SpawnWorker { task: "x".to_owned(), interactive: true, task_type: None })
        .recv()
        .expect("answer");
    let worker = bench.one().process;
    bench.turned(turn.process, 1).wait(1_799_000).process(worker, What::Waiting);
    let stopped = |bench: &mut Bench, milliseconds| {
        bench.wait(milliseconds).cancelled().iter().any(|(process, _)| *process == worker)
    };
    assert!(!stopped(&mut bench, 599_000), "waiting is not working");
    assert!(stopped(&mut bench, 1_000), "but has a limit of its own");
}

#[test]
fn a_full_disk_is_tried_again_and_a_panic_is_answered() {
    let mut bench = bench(LimitsConfig::default());
    let mut turn = bench.message("c", 1).one();
    for wait in [1_000, 2_000, 4_000] {
        bench.exit(turn.process, How::Failed(Kind::Full, "full".to_owned()));
        assert!(bench.wait(wait - 1).started().is_empty());
        turn = bench.wait(1).one();
    }
    bench.exit(turn.process, How::Panicked("boom".to_owned()));
    let apology = bench.one();
    assert!(matches!(apology.work, Work::Apology { kind: Kind::Bug, .. }));
    bench.exit(apology.process, How::Failed(Kind::Full, "full".to_owned()));
    let again = bench.wait(60_000).one();
    assert!(
        matches!(again.work, Work::Apology { kind: Kind::Bug, .. }),
        "the apology is not forgotten: {again:?}"
    );
    bench.turned(again.process, 1);
    assert!(bench.hub.conversations.is_empty());
}

#[test]
fn a_stop_gives_grace_then_cancels_then_leaves() {
    let mut bench = bench(LimitsConfig::default());
    let turn = bench.message("c", 1).one();
    bench
        .ask(turn.process, Ask::SpawnWorker { task: "x".to_owned(), interactive: false, task_type: None })
        .recv()
        .expect("answer");
    let worker = bench.one().process;
    bench.event(Event::Stop);
    assert!(matches!(bench.actions[..], [Action::StopIntake]));
    bench.actions.clear();
    bench.message("d", 2);
    assert!(bench.started().is_empty(), "nothing new starts");
    let answer = bench.ask(turn.process, Ask::Branch { description: "y".to_owned() }).recv();
    assert_eq!(answer, Ok(Answer::Refused(Refusal::Stopping)));
    bench.turned(turn.process, 1);
    bench.actions.clear();
    assert_eq!(bench.wait(3_000).cancelled(), [(worker, StopReason::Shutdown)]);
    bench.exit(worker, How::Finished);
    assert!(matches!(bench.actions[..], [Action::Exit]));
}

#[test]
fn a_process_that_does_not_end_cannot_hold_the_stop() {
    let mut bench = bench(LimitsConfig::default());
    bench.message("c", 1).one();
    bench.event(Event::Stop).wait(3_000).wait(5_000);
    assert!(matches!(bench.actions.last(), Some(Action::Exit)));
}

#[test]
fn a_full_table_leaves_conversations_in_the_database_and_reads_them_later() {
    let mut bench = bench(LimitsConfig { max_concurrent_turns: 64, ..LimitsConfig::default() });
    for n in 0..MAX_CONVERSATIONS as i64 + 10 {
        bench.message(&format!("c{n}"), n + 1);
    }
    assert_eq!(bench.hub.conversations.len(), MAX_CONVERSATIONS);
    let mut rescans = 0;
    while let Some(job) = bench.started().first().cloned() {
        // All running turns end, one by one.
        let keys: Vec<_> = bench.hub.processes.keys().map(|key| key.1).collect();
        for process in keys {
            bench.turned(process, i64::MAX);
        }
        rescans += bench.actions.iter().filter(|action| matches!(action, Action::Rescan { .. })).count();
        bench.actions.retain(|action| matches!(action, Action::Start { .. }));
        assert!(job.process.number > 0);
    }
    assert_eq!(rescans, 1);
}

#[test]
fn the_same_events_give_the_same_actions() {
    let play = || {
        let mut bench = bench(LimitsConfig::default());
        let turn = bench.message("c", 1).message("d", 2).started().remove(0);
        bench.ask(turn.process, Ask::Branch { description: "x".to_owned() }).recv().expect("answer");
        bench.turned(turn.process, 1).wait(70_000).event(Event::Stop).wait(3_000);
        format!("{:?}", bench.actions)
    };
    assert_eq!(play(), play());
}

fn ready(number: u64, urgency: u8, conversation: Option<&str>) -> ReadyTask {
    ReadyTask {
        number,
        revision: 1,
        urgency,
        title: format!("chore {number}"),
        place: conversation.map(|name| place(name, true)),
        by_person: true,
        wait: Duration::ZERO,
    }
}

fn task_of(job: &Job) -> u64 {
    match &job.work {
        Work::Task { number, .. } => *number,
        other => panic!("no task: {other:?}"),
    }
}

#[test]
fn ready_tasks_start_by_urgency_within_the_limits_and_their_results_are_told() {
    let mut bench = bench(LimitsConfig { max_concurrent_workers: 2, ..LimitsConfig::default() });
    let first = bench.news(TaskNews::Ready(ready(1, 3, Some("c")))).one();
    let second = bench.news(TaskNews::Ready(ready(2, 3, None))).one();
    assert_eq!((task_of(&first), task_of(&second)), (1, 2));
    for (number, urgency) in [(3, 2), (4, 0), (5, 2), (6, 3)] {
        bench.news(TaskNews::Ready(ready(number, urgency, Some("c"))));
    }
    assert!(bench.started().is_empty(), "two at once");
    let mut order = Vec::new();
    let mut running = first.process;
    while bench.hub.processes.keys().any(|key| key.1 == running) {
        bench.exit(running, How::Finished);
        let next = bench.started();
        let Some(job) = next.iter().find(|job| job.process.kind == ProcessKind::Worker) else { break };
        order.push(task_of(job));
        running = job.process;
    }
    assert_eq!(order, [4, 3, 5, 6], "the most urgent first, then the oldest");
    let turns = bench.wait(2_000).started();
    assert_eq!(turns.len(), 1, "the results are told where the tasks were born");
    bench.exit(turns[0].process, How::Turned { covered: None, more: false, outbox: vec![] });
    assert!(bench.exit(second.process, How::Finished).wait(2_000).started().is_empty(), "born nowhere");
    assert!(bench.hub.conversations.is_empty());
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
}

#[test]
fn one_conversation_at_its_limit_does_not_hold_up_the_others() {
    let mut bench = bench(LimitsConfig { max_concurrent_workers: 1, ..LimitsConfig::default() });
    let turn = bench.message("busy", 1).one();
    let spawn = Ask::SpawnWorker { task: "ls".to_owned(), interactive: false, task_type: None };
    bench.ask(turn.process, spawn).recv().expect("answer");
    let worker = bench.one().process;
    assert!(bench.news(TaskNews::Ready(ready(1, 0, Some("busy")))).started().is_empty());
    let other = bench.news(TaskNews::Ready(ready(2, 3, Some("free")))).one();
    assert_eq!(task_of(&other), 2);
    bench.exit(worker, How::Finished);
    assert!(bench.started().is_empty(), "one task of the agent at a time");
    assert_eq!(task_of(&bench.exit(other.process, How::Finished).one()), 1);
}

#[test]
fn what_is_taken_back_does_not_start_or_stops() {
    let mut bench = bench(LimitsConfig { max_concurrent_workers: 1, ..LimitsConfig::default() });
    let running = bench.news(TaskNews::Ready(ready(1, 2, Some("c")))).one();
    bench.news(TaskNews::Ready(ready(2, 2, Some("c"))));
    bench.news(TaskNews::Withdrawn { number: 2, revision: 2 });
    // News may overtake each other: what is older than what is known changes nothing.
    bench.news(TaskNews::Withdrawn { number: 1, revision: 1 });
    assert!(bench.cancelled().is_empty());
    bench.news(TaskNews::Withdrawn { number: 1, revision: 3 });
    assert!(
        matches!(&bench.cancelled()[..], [(process, StopReason::Asked(_))] if *process == running.process)
    );
    assert!(bench.exit(running.process, How::Finished).started().is_empty(), "task 2 is gone");
    let newer = ReadyTask { revision: 5, ..ready(3, 2, None) };
    bench.news(TaskNews::Ready(ready(4, 0, None))).started();
    bench.news(TaskNews::Ready(newer.clone())).news(TaskNews::Ready(ready(3, 2, None)));
    let four = *bench.hub.processes.keys().next().map(|key| &key.1).expect("a worker");
    let job = bench.exit(four, How::Idle).one();
    assert!(matches!(job.work, Work::Task { number: 3, revision: 5, .. }), "{job:?}");
}

#[test]
fn a_task_whose_worker_could_not_begin_is_tried_again_later() {
    let mut bench = bench(LimitsConfig::default());
    let job = bench.news(TaskNews::Ready(ready(1, 2, Some("c")))).one();
    bench.exit(job.process, How::Failed(Kind::Transient, "no thread".to_owned()));
    let turn = bench.wait(59_999).one();
    assert!(matches!(turn.work, Work::Turn(_)), "only the look for results");
    bench.exit(turn.process, How::Turned { covered: None, more: false, outbox: vec![] });
    assert_eq!(task_of(&bench.wait(1).one()), 1);
}

#[test]
fn a_task_that_has_failed_pauses_beside_the_others_unless_somebody_says_now() {
    let mut bench = bench(LimitsConfig { max_concurrent_workers: 1, ..LimitsConfig::default() });
    let paused = |number, wait| ReadyTask { wait: Duration::from_secs(wait), ..ready(number, 0, None) };
    bench.news(TaskNews::Ready(paused(1, 30))).news(TaskNews::Ready(paused(2, 60)));
    assert!(bench.wait(29_999).started().is_empty());
    let other = bench.news(TaskNews::Ready(ready(3, 3, None))).one();
    assert_eq!(task_of(&other), 3, "who pauses stands in nobody's way");
    assert!(bench.wait(1).started().is_empty(), "there is no room");
    let one = bench.exit(other.process, How::Finished).one();
    assert_eq!(task_of(&one), 1);
    assert!(bench.exit(one.process, How::Finished).wait(29_999).started().is_empty());
    assert_eq!(task_of(&bench.wait(1).one()), 2);
    // A newer word of it counts, however long it was to wait.
    let mut bench = self::bench(LimitsConfig::default());
    bench.news(TaskNews::Ready(paused(1, 600)));
    let now = bench.news(TaskNews::Ready(ReadyTask { revision: 2, ..ready(1, 0, None) })).one();
    assert_eq!(task_of(&now), 1);
    bench.exit(now.process, How::Finished).news(TaskNews::Ready(paused(4, 600)));
    bench.news(TaskNews::Withdrawn { number: 4, revision: 2 });
    assert!(bench.wait(600_000).started().is_empty(), "it was taken back");
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
}

#[test]
fn what_pauses_leaves_a_full_board_first() {
    let mut bench = bench(LimitsConfig { max_concurrent_workers: 1, ..LimitsConfig::default() });
    let running = bench.news(TaskNews::Ready(ready(1000, 0, None))).one();
    for number in 1..=MAX_READY_TASKS as u64 {
        let wait = Duration::from_secs(if number == 7 { 600 } else { 0 });
        bench.news(TaskNews::Ready(ReadyTask { wait, ..ready(number, 0, None) }));
    }
    bench.news(TaskNews::Ready(ready(999, 3, None)));
    let board = &bench.hub.agents[&AgentId::new(MAIN)].board;
    assert!(board.holds(999) && !board.holds(7));
    assert_eq!(task_of(&bench.exit(running.process, How::Finished).one()), 1);
}

#[test]
fn a_full_board_leaves_tasks_in_the_database_and_reads_them_later() {
    let mut bench = bench(LimitsConfig { max_concurrent_workers: 1, ..LimitsConfig::default() });
    let more = MAX_READY_TASKS as u64 + 5;
    for number in 1..=more {
        bench.news(TaskNews::Ready(ready(number, if number == more { 0 } else { 2 }, None)));
    }
    let mut started = 0;
    while let Some(job) = bench.started().first().cloned() {
        started += 1;
        assert!(started != 2 || task_of(&job) == more, "the most urgent stays on a full board");
        bench.exit(job.process, How::Finished);
    }
    assert_eq!(started, MAX_READY_TASKS + 1);
    let rescans = bench.actions.iter().filter(|action| matches!(action, Action::Rescan { .. })).count();
    assert_eq!(rescans, 1);
}

#[test]
fn results_of_what_a_person_approved_are_told_however_many_they_are() {
    for by_person in [true, false] {
        let mut bench = bench(LimitsConfig::default());
        let mut absorbed = Vec::new();
        // One goes on all the time, so that the conversation never rests.
        bench.news(TaskNews::Ready(ready(99, 2, Some("c")))).one();
        for number in 1..=6 {
            let task = ReadyTask { by_person, ..ready(number, 2, Some("c")) };
            let job = bench.news(TaskNews::Ready(task)).one();
            bench.exit(job.process, How::Finished);
            let turn = bench.wait(500).one();
            absorbed.push(turn_of(&turn).absorb);
            bench.exit(turn.process, How::Turned { covered: None, more: false, outbox: vec![] });
        }
        let wanted = if by_person { [false; 6] } else { [false, false, false, true, true, true] };
        assert_eq!(absorbed, wanted, "what processes begin among themselves has an end");
    }
}

#[test]
fn commands_are_answered_while_a_turn_runs_and_when_all_turns_are_taken() {
    let mut bench = bench(LimitsConfig { max_concurrent_turns: 1, ..LimitsConfig::default() });
    let turn = bench.message("c", 1).one();
    let job = bench.message("d", 2).command("c", 3).one();
    let Work::Commands { running, apology: None, .. } = &job.work else { panic!("{job:?}") };
    assert!(matches!(&running[..], [(_, running)] if running.process == turn.process));
    assert!(bench.command("c", 4).started().is_empty(), "one at a time in a conversation");
    let next = bench.turned(job.process, 3).one();
    assert!(matches!(next.work, Work::Commands { .. }), "command 4 came meanwhile");
    bench.exit(next.process, How::Failed(Kind::Invalid, "damaged".to_owned()));
    let apology = bench.one();
    assert!(matches!(apology.work, Work::Commands { apology: Some(Kind::Invalid), .. }), "{apology:?}");
    bench.turned(apology.process, 4);
    assert!(bench.started().is_empty());
    let waiting = bench.turned(turn.process, 1).one();
    assert_eq!(waiting.place.conversation.as_str(), "d");
    bench.turned(waiting.process, 2);
    assert!(bench.hub.conversations.is_empty());
}

// ---- files ---------------------------------------------------------------------------------------

fn file_waits(bench: &mut Bench, file: &str) {
    let place = place(&format!("ingest:{file}"), false);
    bench.event(Event::FileWaits { agent: AgentId::new(MAIN), place, file: file.to_owned() });
}

fn file_of(job: &Job) -> &str {
    match &job.work {
        Work::Chunk { file } => file,
        other => panic!("no chunk: {other:?}"),
    }
}

#[test]
fn one_chunk_at_a_time_is_read_beside_the_turns_and_then_the_next_file_is_asked_for() {
    let mut bench = bench(LimitsConfig { max_concurrent_turns: 1, ..LimitsConfig::default() });
    file_waits(&mut bench, "a");
    let first = bench.one();
    assert_eq!((file_of(&first), first.process.kind), ("a", ProcessKind::Ingestion));
    // Offered again, or another: there is one already.
    file_waits(&mut bench, "a");
    file_waits(&mut bench, "b");
    assert!(bench.started().is_empty());
    let turn = bench.message("c", 1).one();
    bench.exit(first.process, How::Ingested(Ingested::More));
    let second = bench.one();
    assert_eq!(file_of(&second), "a");
    bench.turned(turn.process, 1);
    bench.actions.clear();
    bench.exit(second.process, How::Ingested(Ingested::Over));
    assert!(
        matches!(&bench.actions[..], [Action::Ring { instance, .. }] if instance.as_str() == INGEST),
        "{:?}",
        bench.actions
    );
    assert_eq!(bench.hub.next_deadline(), None, "idle means idle");
    file_waits(&mut bench, "b");
    assert_eq!(file_of(&bench.one()), "b");
}

#[test]
fn a_failed_chunk_waits_and_one_that_could_not_say_so_is_offered_again() {
    let mut bench = bench(LimitsConfig::default());
    file_waits(&mut bench, "a");
    let first = bench.one();
    bench.exit(first.process, How::Ingested(Ingested::Again(Duration::from_secs(4))));
    assert!(bench.wait(3_900).started().is_empty());
    file_waits(&mut bench, "a");
    assert!(bench.started().is_empty(), "an offer is no way around the wait");
    let second = bench.wait(200).one();
    bench.exit(second.process, How::Failed(Kind::Full, "disk".to_owned()));
    assert!(bench.wait(600_000).started().is_empty());
    file_waits(&mut bench, "a");
    let third = bench.one();
    bench.wait(u64::try_from(CHUNK_TIMEOUT.as_millis()).expect("small") + 1);
    assert_eq!(bench.cancelled(), [(third.process, StopReason::Timeout)]);
}

#[test]
fn a_stop_starts_no_further_chunk() {
    let mut bench = bench(LimitsConfig::default());
    file_waits(&mut bench, "a");
    let first = bench.one();
    bench.event(Event::Stop);
    bench.exit(first.process, How::Ingested(Ingested::More));
    file_waits(&mut bench, "a");
    assert!(bench.started().is_empty());
    assert!(bench.actions.iter().any(|action| matches!(action, Action::Exit)));
}
