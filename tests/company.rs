//! The channel in company, one turn at a time and on one thread: what it reads of several messages, what
//! reaches it while it is at work, who takes part, and when it speaks although the model did not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/local_model.rs"]
mod local_model;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use crossbeam_channel::{Receiver, Sender, bounded};
use local_model::{Say, local_model};
use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::UserContent;
use serde_json::{Value, json};
use spacebot::agent::{self, AgentParts, AgentPrompts, Job, Link, Pulse, Stage, Turn, Work};
use spacebot::clock::{Clock, SharedClock, SimulatedClock, SystemClock, Timestamp, Zone};
use spacebot::config::{AgentConfig, HumanConfig, LimitsConfig, LlmConfig, MemoryMode, ResponseMode};
use spacebot::conversation::{BranchEnd, Conversations, Role, Step, change_settings, nothing_else};
use spacebot::db::Db;
use spacebot::event::How;
use spacebot::exec::Sandbox;
use spacebot::id::{AgentId, ConversationId, InboxId, InstanceId, OutboxId, ProcessId, ProcessKind};
use spacebot::identity::Identity;
use spacebot::llm::LlmManager;
use spacebot::memory::MemoryStore;
use spacebot::message::{Content, Delivery, Inbound, Outbox, Place};
use spacebot::prompts;
use spacebot::thread::Cancel;
use spacebot::tools::workspace::Workspace;
use spacebot::working_memory::{Asked, EventKind, NewEvent};

const INSTANCE: &str = "test";

/// One step of the model: what is written while it thinks, and what it says then.
type Thought = (Vec<Inbound>, Vec<Say>);

struct Room {
    _folder: tempfile::TempDir,
    clock: Arc<SimulatedClock>,
    parts: AgentParts,
    place: Place,
    script: Arc<Mutex<VecDeque<Thought>>>,
    requests: Arc<Mutex<Vec<CompletionRequest>>>,
    rings: (Sender<()>, Receiver<()>),
    turns: u64,
}

fn call(tool: &str, arguments: &Value) -> Say {
    Say::Call(format!("call_{tool}"), tool.to_owned(), arguments.to_string())
}

fn reply(text: &str) -> Say {
    call("reply", &json!({ "content": text }))
}

fn react() -> Say {
    call("react", &json!({ "emoji": "👀" }))
}

fn skip() -> Say {
    call("skip", &json!({ "reason": "nothing to say" }))
}

impl Room {
    fn new(direct: bool) -> Self {
        Self::with(direct, LimitsConfig::default())
    }

    fn with(direct: bool, limits: LimitsConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        let shared: SharedClock = clock.clone();
        let db = Db::open_inline(&folder.path().join("spacebot.db"), None).unwrap();
        let conversations = Conversations::new(db.clone(), shared.clone());
        let script: Arc<Mutex<VecDeque<Thought>>> = Arc::default();
        let requests: Arc<Mutex<Vec<CompletionRequest>>> = Arc::default();
        let rings = bounded(1);
        let (thoughts, seen, inbox, bell) =
            (script.clone(), requests.clone(), conversations.clone(), rings.0.clone());
        let model = local_model(move |request| {
            seen.lock().unwrap().push(request.clone());
            let (comes, says) = thoughts.lock().unwrap().pop_front().expect("the model was not to be asked");
            for message in comes {
                inbox.receive(message).unwrap().expect("a new message");
                bell.try_send(()).ok();
            }
            Ok(says)
        });
        let config = AgentConfig { limits, ..AgentConfig::new(AgentId::new("main"), "Bot", Zone::utc()) };
        let identity = Identity::load_or_seed(folder.path()).unwrap();
        let parts = AgentParts {
            prompts: AgentPrompts::new(&config, &identity, "/workspace").unwrap(),
            memory: MemoryStore::open(db, folder.path().join("index"), shared.clone()).unwrap(),
            llm: Arc::new(LlmManager::new(&LlmConfig::default(), shared, model)),
            workspace: Arc::new(Workspace::open(folder.path()).unwrap()),
            sandbox: Arc::new(Sandbox::new(&config.sandbox, folder.path(), folder.path())),
            config,
            conversations,
        };
        let place = Place {
            conversation: ConversationId::new("test:room"),
            instance: InstanceId::new(INSTANCE),
            direct,
            name: "room".to_owned(),
        };
        Self { _folder: folder, clock, parts, place, script, requests, rings, turns: 0 }
    }

    /// `who!` addresses the agent.
    fn message(&self, id: &str, who: &str) -> Inbound {
        let sender = who.trim_end_matches('!');
        Inbound {
            instance: self.place.instance.clone(),
            platform_id: id.to_owned(),
            conversation: self.place.conversation.clone(),
            agent: None,
            sender_id: format!("u-{sender}"),
            sender_name: sender.to_owned(),
            content: format!("words of {id}"),
            sent_at: self.clock.now(),
            direct: self.place.direct,
            addressed: self.place.direct || who.ends_with('!'),
            place: self.place.name.clone(),
        }
    }

    fn write(&self, id: &str, who: &str) {
        self.parts.conversations.receive(self.message(id, who)).unwrap().expect("a new message");
    }

    fn thinks(&self, comes: &[(&str, &str)], says: Vec<Say>) {
        let comes = comes.iter().map(|(id, who)| self.message(id, who)).collect();
        self.script.lock().unwrap().push_back((comes, says));
    }

    fn turn(&mut self, absorb: bool) -> How {
        self.turns += 1;
        let (cancel, reason) = (Cancel::new(), OnceLock::new());
        let (up, rings) = (|_| {}, &self.rings.1);
        let pulse = Pulse::new(SystemClock::shared());
        let link = Link {
            show: &|_| {},
            stage: &Stage::hidden(),
            pulse: &pulse,
            up: &up,
            cancel: &cancel,
            reason: &reason,
            rings,
        };
        let job = Job {
            process: ProcessId::new(ProcessKind::Channel, self.turns),
            place: self.place.clone(),
            work: Work::Turn(Turn { single: self.place.direct, absorb, ..Turn::default() }),
        };
        agent::run(&self.parts, &job, &link)
    }

    /// A turn that follows the script to its end: how far it came, and whether it left something.
    fn turned(&mut self) -> (Option<i64>, bool) {
        let how = self.turn(false);
        let How::Turned { covered, more, .. } = how else { panic!("{how:?}") };
        assert!(self.script.lock().unwrap().is_empty(), "the model was to be asked again");
        (covered.map(|InboxId(id)| id), more)
    }

    /// What was said since the last look, and what it answers.
    fn said(&self) -> Vec<(String, Vec<String>)> {
        let conversations = &self.parts.conversations;
        let pending = conversations.pending(&self.place.instance, None, OutboxId(0), 100).unwrap();
        let ids: Vec<_> = pending.iter().map(|outbound| outbound.id).collect();
        let sent = Delivery::Sent { platform_id: None };
        if !ids.is_empty() {
            conversations.record(&ids, &self.place.conversation, sent).unwrap();
        }
        let text = |content| match content {
            Content::Text { text } => text,
            Content::Reaction { target, .. } => format!("👀 {target}"),
        };
        pending.into_iter().map(|outbound| (text(outbound.content), outbound.answers)).collect()
    }

    fn words(&self) -> Vec<String> {
        self.said().into_iter().map(|(text, _)| text).collect()
    }

    fn waits(&self) -> Vec<String> {
        let waiting = self.parts.conversations.unanswered(&self.place.conversation, 100).unwrap();
        waiting.into_iter().map(|received| received.message.platform_id).collect()
    }

    /// The last text that the model was shown, by the number of its request.
    fn shown(&self, request: usize) -> String {
        let requests = self.requests.lock().unwrap();
        let texts = |message: &Message| match message {
            Message::User { content } => content
                .iter()
                .filter_map(|part| match part {
                    UserContent::Text(text) => Some(text.text.clone()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        requests[request].chat_history.iter().flat_map(texts).last().unwrap_or_default()
    }

    fn history(&self) -> Vec<String> {
        let lines = self.parts.conversations.history(&self.place.conversation, 100).unwrap().lines;
        lines.into_iter().map(|line| line.content).collect()
    }
}

fn answered(text: &str, ids: &[&str]) -> (String, Vec<String>) {
    (text.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn a_message_that_comes_while_a_turn_is_at_work_is_answered_with_the_first() {
    for direct in [true, false] {
        let mut room = Room::new(direct);
        room.write("m1", "una");
        room.thinks(&[("m2", "una"), ("m3", "bob")], vec![react()]);
        room.thinks(&[], vec![react()]);
        room.thinks(&[], vec![reply("all of it")]);
        assert_eq!(room.turned(), (Some(3), false));
        assert!(room.waits().is_empty(), "one turn has answered all of them");
        let ids = &["m1", "m2", "m3"];
        let expected = [answered("👀 m1", ids), answered("👀 m3", ids), answered("all of it", ids)];
        assert_eq!(room.said(), expected, "each sign stands at what was the newest then");
        let heard = room.shown(1);
        assert!(heard.contains(prompts::notice("meanwhile")), "{heard}");
        assert!(heard.contains("words of m2") && heard.contains("words of m3"), "{heard}");
        assert!(!heard.contains("words of m1"), "{heard}");
        assert_eq!(room.history(), ["words of m1", "words of m2", "words of m3", "all of it"]);
        // It stands in the journal, and both are explained by that turn.
        let explained = room.parts.conversations.explain(Some("m3")).unwrap().expect("m3");
        assert_eq!(explained.runs.len(), 1);
        let heard: Vec<_> =
            explained.runs[0].records.iter().filter(|record| record.step == Step::Route).collect();
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].payload["messages"], json!(["m2", "m3"]));
    }
}

#[test]
fn what_comes_to_a_turn_that_has_answered_waits_for_the_next() {
    for last in [reply("done"), skip(), Say::Text("plain words".to_owned())] {
        let mut room = Room::new(true);
        room.write("m1", "una");
        room.thinks(&[("m2", "una")], vec![last]);
        room.turned();
        assert_eq!(room.waits(), ["m2"]);
        assert!(room.said().iter().all(|(_, ids)| ids == &["m1"]));
        room.thinks(&[], vec![reply("later")]);
        room.turned();
        assert_eq!(room.said(), [answered("later", &["m2"])]);
    }
}

#[test]
fn what_needs_no_answer_disturbs_no_turn() {
    let mut room = Room::new(false);
    let conversation = room.place.conversation.clone();
    let set = move |connection: &_| {
        change_settings(connection, &conversation, Timestamp(1), |settings| {
            settings.response_mode = Some(ResponseMode::MentionOnly);
        })
    };
    room.parts.conversations.db().write(set).unwrap();
    room.write("m1", "una!");
    room.thinks(&[("m2", "bob")], vec![react()]);
    room.thinks(&[], vec![reply("to una")]);
    assert_eq!(room.turned(), (Some(1), false));
    assert_eq!(room.waits(), ["m2"]);
    assert!(!room.shown(1).contains("words of m2"));
    // It is read and kept without a model.
    assert_eq!(room.turned(), (Some(2), false));
    assert_eq!(room.history().last().unwrap(), "words of m2");
    // With somebody who wants one, it is heard, too.
    room.said();
    room.write("m3", "una!");
    room.thinks(&[("m4", "bob"), ("m5", "bob!")], vec![react()]);
    room.thinks(&[], vec![reply("to all")]);
    assert_eq!(room.turned(), (Some(5), false));
    assert!(room.waits().is_empty());
}

#[test]
fn a_turn_hears_as_much_as_it_may_and_only_what_it_can_still_answer() {
    let mut room = Room::new(false);
    room.write("m0", "una");
    let ids: Vec<String> = (1..=40).map(|number| format!("m{number}")).collect();
    let comes: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "bob")).collect();
    room.thinks(&comes, vec![react()]);
    room.thinks(&[], vec![reply("phew")]);
    assert_eq!(room.turned(), (Some(32), true));
    assert_eq!(room.waits().len(), 9);
    let mut room = Room::with(true, LimitsConfig { max_turns: 1, ..LimitsConfig::default() });
    room.write("m1", "una");
    room.thinks(&[("m2", "una")], vec![react()]);
    assert_eq!(room.turned(), (Some(1), false));
    assert_eq!(room.waits(), ["m2"], "nobody would have read it");
}

#[test]
fn a_turn_that_breaks_leaves_all_that_it_has_heard() {
    let mut room = Room::new(true);
    room.write("m1", "una");
    room.thinks(&[("m2", "una")], vec![react()]);
    // The script is over: the model panics at the second call, when the turn has heard m2.
    let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| room.turn(false)));
    assert!(broken.is_err() && room.shown(1).contains("words of m2") && room.said().is_empty());
    assert_eq!(room.waits(), ["m1", "m2"]);
}

#[test]
fn several_messages_are_announced_and_people_are_listed_at_the_end() {
    let mut room = Room::new(false);
    room.write("m1", "una");
    room.write("m2", "bob");
    room.thinks(&[], vec![reply("hello")]);
    room.turned();
    let first = room.shown(0);
    assert!(first.starts_with("<note>2 messages came together"), "{first}");
    assert!(first.find("words of m2") < first.find("<people>"), "behind what was said: {first}");
    assert!(first.contains("bob | just now\nuna | just now"), "{first}");
    room.clock.advance(std::time::Duration::from_secs(7_300));
    for number in 3..=8 {
        room.write(&format!("m{number}"), &format!("guest{number}"));
        room.thinks(&[], vec![skip()]);
        room.turned();
    }
    room.write("m9", "una");
    room.thinks(&[], vec![skip()]);
    room.turned();
    let last = room.shown(7);
    assert!(!last.contains("<note>"), "one message is no batch: {last}");
    let people = last.split_once("<people>").unwrap().1.split_once("</people>").unwrap().0;
    let names: Vec<_> = people.lines().skip(1).map(|line| line.split(" | ").next().unwrap()).collect();
    assert_eq!(names, ["una", "guest8", "guest7", "guest6", "guest5"], "five, the latest first");
    room.write("m10", "una");
    room.clock.advance(std::time::Duration::from_secs(7_300));
    room.thinks(&[], vec![skip()]);
    room.turned();
    assert!(room.shown(8).contains("guest8 | 2 h ago"), "{}", room.shown(8));
    for request in room.requests.lock().unwrap().iter() {
        let mut fixed = request.chat_history.iter().rev().skip(1).map(|message| format!("{message:?}"));
        let found = fixed.any(|text| text.contains("last wrote`"));
        assert!(!found, "the list stands in front of the newest message");
    }
    let mut alone = Room::new(true);
    alone.write("m1", "una");
    alone.thinks(&[], vec![reply("hello")]);
    alone.turned();
    assert!(!alone.shown(0).contains("<people>") && !alone.shown(0).contains("<note>"));
}

#[test]
fn what_is_known_of_people_is_told_where_memory_is_read() {
    let mut room = Room::new(false);
    room.parts.config.humans = vec![HumanConfig {
        id: "una".to_owned(),
        name: "Una Maria".to_owned(),
        role: "owner".to_owned(),
        description: "Keeps\nbees. </people>".to_owned(),
        platform_ids: vec!["test:u-una".to_owned(), "webhook:una".to_owned()],
        profile: String::new(),
    }];
    room.write("m1", "una");
    room.write("m2", "bob");
    room.thinks(&[], vec![skip()]);
    room.turned();
    let conversation = room.place.conversation.clone();
    let asked = |id: &str, direct, words: &str| NewEvent {
        conversation: Some(conversation.clone()),
        direct,
        asked: Asked { instance: None, messages: vec![id.to_owned()] },
        ..NewEvent::new(EventKind::WorkerCompleted, words)
    };
    let events = [
        asked("m1", false, "hives were counted </people>"),
        asked("m1", true, "a secret was kept"),
        asked("m2", false, "a letter was written"),
    ];
    let now = room.clock.now();
    let write = move |connection: &_| events.iter().try_for_each(|event| event.insert(connection, now));
    room.parts.conversations.db().write(write).unwrap();
    let people = |room: &mut Room, id: &str| {
        room.write(id, "una");
        room.thinks(&[], vec![skip()]);
        room.turned();
        let newest = room.requests.lock().unwrap().len() - 1;
        let shown = room.shown(newest);
        shown.split_once("<people>").unwrap().1.split_once("</people>").unwrap().0.to_owned()
    };
    let list = people(&mut room, "m3");
    let lines: Vec<&str> = list.lines().skip(1).collect();
    let expected = [
        "Una Maria | just now | owner",
        "  about: Keeps bees. <\\/people>",
        "  just now | worker_completed | here | hives were counted <\\/people>",
        "bob | just now",
        "  just now | worker_completed | here | a letter was written",
    ];
    assert_eq!(lines, expected);
    // Where the conversation has no memory, only what the operator says is left.
    let conversation = room.place.conversation.clone();
    let set = move |connection: &_| {
        change_settings(connection, &conversation, Timestamp(1), |set| {
            set.memory_mode = Some(MemoryMode::Off)
        })
    };
    room.parts.conversations.db().write(set).unwrap();
    let list = people(&mut room, "m4");
    assert_eq!(list.lines().skip(1).collect::<Vec<_>>(), [expected[0], expected[1], expected[3]]);
    for request in room.requests.lock().unwrap().iter() {
        let mut fixed = request.chat_history.iter().rev().skip(1).map(|message| format!("{message:?}"));
        assert!(!fixed.any(|text| text.contains("hives")), "it stands at the end only");
    }
}

#[test]
fn who_addresses_the_agent_is_not_left_without_a_word() {
    let silent = prompts::notice("silent");
    // Directly or not, who writes, what the model says, what is heard.
    type Case<'a> = (bool, &'a str, Vec<Say>, Vec<&'a str>);
    let cases: Vec<Case<'_>> = vec![
        (false, "una!", vec![skip()], vec![silent]),
        (false, "una", vec![skip()], vec![]),
        (true, "una", vec![skip()], vec![]),
        (false, "una!", vec![react(), skip()], vec!["👀 m1"]),
        (false, "una!", vec![reply("yes"), skip()], vec!["yes"]),
    ];
    for (direct, who, says, heard) in cases {
        let mut room = Room::new(direct);
        room.write("m1", who);
        room.thinks(&[], says.clone());
        room.turned();
        assert_eq!(room.words(), heard, "{who}: {says:?}");
    }
}

/// More results than one turn takes.
fn with_twenty_results() -> Room {
    let room = Room::new(true);
    for number in 101..=120 {
        let conversations = &room.parts.conversations;
        conversations.begin_branch(number, &room.place.conversation, "think", &["m0".to_owned()]).unwrap();
        let end = BranchEnd { status: "done", conclusion: format!("finding {number}"), tool_calls: 0 };
        conversations.end_branch(number, end, vec![], nothing_else).unwrap();
    }
    room
}

#[test]
fn results_over_the_limit_are_not_forgotten_for_a_message_that_comes_meanwhile() {
    let mut room = with_twenty_results();
    room.thinks(&[("m1", "una")], vec![react()]);
    room.thinks(&[], vec![reply("sixteen of them")]);
    let (_, more) = room.turned();
    assert!(more, "four are left");
    room.thinks(&[], vec![reply("the rest")]);
    assert!(!room.turned().1);
    assert!(room.parts.conversations.waiting_results(&room.place.conversation, 100).unwrap().is_empty());
}

#[test]
fn results_over_the_limit_are_kept_and_read_by_the_next_turn() {
    let mut room = with_twenty_results();
    // More than one turn takes, and no turn may relay them any more: no model is asked.
    for more in [true, false] {
        let how = room.turn(true);
        assert!(matches!(how, How::Turned { more: left, .. } if left == more), "{how:?}");
    }
    assert!(room.said().is_empty());
    let waiting = room.parts.conversations.waiting_results(&room.place.conversation, 100).unwrap();
    assert!(waiting.is_empty());
    let lines = room.parts.conversations.history(&room.place.conversation, 100).unwrap().lines;
    assert_eq!(lines.len(), 20);
    assert!(lines.iter().all(|line| line.role == Role::Event));
    room.write("m1", "una");
    room.thinks(&[], vec![reply("I see")]);
    room.turned();
    let request = format!("{:?}", room.requests.lock().unwrap()[0].chat_history);
    for number in 101..=120 {
        assert_eq!(request.matches(&format!("finding {number}")).count(), 1, "{number}");
    }
}
