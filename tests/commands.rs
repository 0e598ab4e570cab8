//! Slash commands and response modes, played from `tests/fixtures/commands/`: each file is a talk, what
//! is indented is what the agent says. Commands are answered without a model: one that is asked fails.
//!
//! ```text
//! board STATUS PRIORITY TITLE     puts a task onto the board
//! una: text                       directly
//! una@room: text                  in company; `una@room!: text` addresses the agent
//! restart                         everything but the database is made anew
//! history ROOM: words             what people have said there, as the next turn sees it
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/local_model.rs"]
mod local_model;

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use local_model::{Say, local_model};
use rig_core::completion::{CompletionRequest, Message};
use rig_core::message::UserContent;
use serde_json::json;
use spacebot::agent::{self, AgentParts, AgentPrompts, Job, Link, Pulse, Troubles, Turn, Work};
use spacebot::clock::{Clock, SharedClock, SimulatedClock, SystemClock, Timestamp, Zone};
use spacebot::config::{AgentConfig, LlmConfig};
use spacebot::conversation::{Conversations, Role};
use spacebot::db::Db;
use spacebot::event::How;
use spacebot::exec::Sandbox;
use spacebot::id::{AgentId, ConversationId, InstanceId, OutboxId, ProcessId, ProcessKind};
use spacebot::identity::Identity;
use spacebot::llm::LlmManager;
use spacebot::memory::MemoryStore;
use spacebot::message::{Content, Delivery, Inbound, Lane, Outbox, Place};
use spacebot::tasks::{Actor, NewTask, Priority, Status};
use spacebot::thread::Cancel;
use spacebot::tools::workspace::Workspace;
use spacebot::turn::{self, Part};

const INSTANCE: &str = "test";

/// Repeats the last thing that was said.
fn echo(request: &CompletionRequest) -> Result<Vec<Say>, String> {
    let Some(Message::User { content }) = request.chat_history.iter().last() else {
        return Err("nothing was said".to_owned());
    };
    let texts = content.iter().filter_map(|part| match part {
        UserContent::Text(text) => Some(text.text.clone()),
        _ => None,
    });
    let said = |part| match part {
        Part::Said { text, .. } => Some(text),
        _ => None,
    };
    let said: Vec<_> = texts.flat_map(|text| turn::read(&text)).filter_map(said).collect();
    let last = said.last().cloned().unwrap_or_default();
    assert!(!matches!(last.as_str(), "/status" | "/help"), "a model was asked for a command");
    let arguments = json!({ "content": format!("heard {last}") }).to_string();
    Ok(vec![Say::Call("c1".to_owned(), "reply".to_owned(), arguments)])
}

fn agent_in(folder: &Path, clock: &Arc<SimulatedClock>) -> AgentParts {
    let shared: SharedClock = clock.clone();
    let db = Db::open_inline(&folder.join("spacebot.db"), None).unwrap();
    let config = AgentConfig::new(AgentId::new("main"), "Bot", Zone::utc());
    let identity = Identity::load_or_seed(folder).unwrap();
    AgentParts {
        prompts: AgentPrompts::new(&config, &identity, "/workspace").unwrap(),
        memory: MemoryStore::open(db.clone(), folder.join("index"), shared.clone()).unwrap(),
        llm: Arc::new(LlmManager::new(&LlmConfig::default(), shared.clone(), local_model(echo))),
        workspace: Arc::new(Workspace::open(folder).unwrap()),
        sandbox: Arc::new(Sandbox::new(&config.sandbox, folder, folder)),
        config,
        conversations: Conversations::new(db, shared),
    }
}

struct Stage<'a> {
    folder: &'a Path,
    clock: Arc<SimulatedClock>,
    parts: AgentParts,
    /// Messages so far; also the number of the next process.
    count: u64,
}

impl<'a> Stage<'a> {
    fn new(folder: &'a Path) -> Self {
        let clock = SimulatedClock::starting_at(Timestamp(1_790_000_000_000));
        Self { folder, parts: agent_in(folder, &clock), clock, count: 0 }
    }

    /// Plays one line; what the agent says to it.
    fn play(&mut self, line: &str) -> Vec<String> {
        if let Some(rest) = line.strip_prefix("board ") {
            let words: Vec<_> = rest.splitn(3, ' ').collect();
            let (status, priority) = (Status::parse(words[0]).unwrap(), Priority::parse(words[1]).unwrap());
            let new = NewTask { status, priority, ..NewTask::new(words[2], Actor::Operator) };
            self.parts.tasks().create(new).unwrap();
        } else if line == "restart" {
            self.parts = agent_in(self.folder, &self.clock);
        } else if let Some(rest) = line.strip_prefix("history ") {
            let (room, wanted) = rest.split_once(": ").unwrap();
            assert_eq!(self.history(room), wanted, "{line}");
        } else {
            let (who, text) = line.split_once(": ").unwrap_or_else(|| panic!("no such line: {line}"));
            return self.say(who, text);
        }
        Vec::new()
    }

    fn say(&mut self, who: &str, text: &str) -> Vec<String> {
        self.count += 1;
        let addressed = who.ends_with('!');
        let (sender, room) = who.trim_end_matches('!').split_once('@').unwrap_or((who, ""));
        let (direct, name) = if room.is_empty() { (true, sender) } else { (false, room) };
        let place = Place {
            conversation: ConversationId::new(format!("{INSTANCE}:{name}")),
            instance: InstanceId::new(INSTANCE),
            direct,
            name: name.to_owned(),
        };
        let message = Inbound {
            instance: place.instance.clone(),
            platform_id: self.count.to_string(),
            conversation: place.conversation.clone(),
            agent: None,
            sender_id: format!("u-{sender}"),
            sender_name: sender.to_owned(),
            content: text.to_owned(),
            sent_at: self.clock.now(),
            direct,
            addressed: addressed || direct,
            place: name.to_owned(),
        };
        let work = match message.lane() {
            Lane::Commands => {
                Work::Commands { running: Vec::new(), troubles: Troubles::default(), apology: None }
            }
            Lane::Talk => Work::Turn(Turn { single: direct, ..Turn::default() }),
        };
        self.parts.conversations.receive(message).unwrap().expect("a new message");
        self.run(Job {
            process: ProcessId::new(ProcessKind::Channel, self.count),
            place: place.clone(),
            work,
        });
        let unanswered = self.parts.conversations.unanswered(&place.conversation, 10).unwrap().len();
        assert_eq!(unanswered, 0, "{text:?} was left");
        self.take_said(&place)
    }

    fn run(&self, job: Job) {
        let (cancel, reason) = (Cancel::new(), OnceLock::new());
        let pulse = Pulse::new(SystemClock::shared());
        let link = Link {
            show: &|_| {},
            stage: &agent::Stage::hidden(),
            pulse: &pulse,
            up: &|_| {},
            cancel: &cancel,
            reason: &reason,
            rings: &crossbeam_channel::never(),
        };
        let how = agent::run(&self.parts, &job, &link);
        assert!(matches!(how, How::Turned { .. }), "{how:?}");
    }

    fn take_said(&self, place: &Place) -> Vec<String> {
        let conversations = &self.parts.conversations;
        let pending = conversations.pending(&place.instance, None, OutboxId(0), 10).unwrap();
        let ids: Vec<_> = pending.iter().map(|outbound| outbound.id).collect();
        conversations.record(&ids, &place.conversation, Delivery::Sent { platform_id: None }).unwrap();
        let text = |content| match content {
            Content::Text { text } => text,
            Content::Reaction { emoji, .. } => emoji,
        };
        let texts = pending.into_iter().map(|outbound| text(outbound.content));
        texts.flat_map(|text| text.lines().map(|line| self.timeless(line)).collect::<Vec<_>>()).collect()
    }

    fn timeless(&self, line: &str) -> String {
        // The clock stands at 2026-09-21 14:13:20 UTC.
        line.replace("2026-09-21 00:00", "{day}").replace(env!("CARGO_PKG_VERSION"), "{version}")
    }

    fn history(&self, room: &str) -> String {
        let conversation = ConversationId::new(format!("{INSTANCE}:{room}"));
        let lines = self.parts.conversations.history(&conversation, 100).unwrap().lines;
        let said = lines.into_iter().filter(|line| line.role == Role::User).map(|line| line.content);
        said.collect::<Vec<_>>().join(" ")
    }
}

/// Each line of a talk with the answer that follows it.
fn talk(text: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let mut talk: Vec<(usize, &str, Vec<&str>)> = Vec::new();
    for (number, line) in
        text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    {
        match line.strip_prefix("  ") {
            Some(answer) => talk.last_mut().unwrap().2.push(answer),
            None => talk.push((number + 1, line, Vec::new())),
        }
    }
    talk
}

#[test]
fn talks_go_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/commands");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 3);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let home = tempfile::tempdir().unwrap();
        let mut stage = Stage::new(home.path());
        for (number, line, wanted) in talk(&text) {
            assert_eq!(stage.play(line), wanted, "{}:{number}: {line}", file.display());
        }
    }
}

#[test]
fn a_command_that_comes_twice_changes_once() {
    let home = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(home.path());
    stage.play("board pending_approval high x");
    let command = || Work::Commands { running: Vec::new(), troubles: Troubles::default(), apology: None };
    stage.say("una", "/approve 1");
    let revision = stage.parts.tasks().get(1).unwrap().revision;
    // Nothing waits any more: a process that was started for it all the same changes nothing.
    let place = Place {
        conversation: ConversationId::new("test:una"),
        instance: InstanceId::new(INSTANCE),
        direct: true,
        name: "una".to_owned(),
    };
    stage.run(Job {
        process: ProcessId::new(ProcessKind::Channel, 9),
        place: place.clone(),
        work: command(),
    });
    assert_eq!(stage.parts.tasks().get(1).unwrap().revision, revision);
    assert!(stage.take_said(&place).is_empty());
}
