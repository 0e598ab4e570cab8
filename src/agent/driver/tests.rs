//! The loop with a model of the test: a tool that panics is an error that the model can read.

#[path = "../../../tests/support/local_model.rs"]
pub(in crate::agent) mod local_model;

use std::sync::OnceLock;

use rig_core::completion::ToolDefinition;
use serde_json::{Value, json};

use super::super::toolbox::Toolbox;
use super::*;
use crate::agent::{Pulse, Stage};
use crate::clock::{SimulatedClock, SystemClock, Timestamp};
use crate::config::{LlmConfig, LoopGuardConfig, RoutingConfig};
use crate::conversation::{Conversations, Record};
use crate::db::Db;
use crate::effect::Effect;
use crate::event::{Origin, What};
use crate::id::ProcessKind;
use crate::llm::LlmManager;
use crate::thread::Cancel;
use crate::tools::{Tool, ToolContext, reply};
use local_model::{Say, local_model};

struct Broken;

impl Tool for Broken {
    fn name(&self) -> &'static str {
        "react"
    }

    fn parameters(&self) -> Value {
        json!({ "type": "object" })
    }

    fn call(&mut self, _arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        panic!("a tool of the test breaks")
    }
}

struct UntilReply;

impl Conduct for UntilReply {
    fn on_tools(&mut self, desk: &mut ProcessDesk<'_>) -> bool {
        desk.effects.iter().any(|effect| matches!(effect, Effect::Reply { .. }))
    }
}

static DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();

#[test]
fn a_panic_in_a_tool_is_a_result_that_the_model_reads_and_the_run_goes_on() {
    let folder = tempfile::tempdir().expect("folder");
    let db = Db::open_inline(&folder.path().join("t.db"), None).expect("open");
    let clock = SimulatedClock::starting_at(Timestamp(1000));
    let conversations = Conversations::new(db, clock.clone());
    let model = local_model(|request| {
        let words = format!("{:?}", request.chat_history);
        let call = |tool: &str, arguments: Value| {
            Ok(vec![Say::Call(format!("call_{tool}"), tool.to_owned(), arguments.to_string())])
        };
        match words.contains("react broke") {
            false => call("react", json!({})),
            true => call("reply", json!({ "content": "that did not work" })),
        }
    });
    let llm = LlmManager::new(&LlmConfig::default(), clock, model);
    let (cancel, reason) = (Cancel::new(), OnceLock::new());
    let up = |_: What| {};
    let pulse = Pulse::new(SystemClock::shared());
    let link = Link {
        show: &|_| {},
        stage: &Stage::hidden(),
        pulse: &pulse,
        up: &up,
        cancel: &cancel,
        reason: &reason,
        rings: &crossbeam_channel::never(),
    };
    let mut driver = Driver {
        link: &link,
        model: Box::new(llm.model_for(&RoutingConfig::default(), ProcessKind::Channel)),
        toolbox: Box::new(Toolbox::new(
            vec![Box::new(Broken), Box::new(reply::Reply::new(Default::default()))],
            &DEFINITIONS,
        )),
        desk: ProcessDesk::new(&link, Origin::default()),
        journal: RunJournal::new(&conversations, 1),
        spec: RunSpec { max_turns: Some(5), ..RunSpec::new() },
        counts: Counts { max_model_calls: 4, ..Counts::default() },
        guard: LoopGuard::new(LoopGuardConfig::default().channel),
    };
    for turn in 1..=2 {
        driver.desk.effects.clear();
        let (ended, _) = driver.drive(Message::user("hello"), Vec::new(), &mut UntilReply);
        assert!(matches!(ended, Ended::Tools), "{ended:?}");
        assert!(
            matches!(&driver.desk.effects[..], [Effect::Reply { content }] if content == "that did not work")
        );
        assert_eq!(driver.counts.model_calls, 2 * turn);
    }
    let mut records: Vec<Record> = conversations.records(1).expect("read");
    records.extend(driver.journal.take());
    let broken: Vec<_> = records
        .iter()
        .filter(|record| record.step == Step::Tool && record.payload["tool"] == "react")
        .collect();
    assert_eq!(broken.len(), 2);
    assert!(broken.iter().all(|record| record.payload["error"] == true), "{broken:?}");
}
