//! The journal in the place of everything outside: it answers what the run asks for, in the recorded
//! order, and compares what the run notes with what was recorded. The first difference is the last thing
//! that it looks at.

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;

use rig_core::completion::{
    CompletionRequest, CompletionResponse, Message, ProviderCapabilities, ToolDefinition,
};
use serde::Deserialize;
use serde_json::Value;

use super::older;
use super::{ReplayError, Verdict};
use crate::agent::driver::{Conduct, Heard};
use crate::agent::journal::Ledger;
use crate::agent::link::ProcessDesk;
use crate::agent::outside::{Acts, Answers};
use crate::agent::room::Trim;
use crate::agent::worker::Berth;
use crate::conversation::{Record, Step};
use crate::db::DbError;
use crate::effect::Effect;
use crate::event::{How, StopReason};
use crate::llm::{Delta, LlmError, Reply};
use crate::message::Attachment;
use crate::text;
use crate::thread::Cancel;

/// Bytes of a value that are shown of a difference.
const SHOWN_BYTES: usize = 160;

pub(super) struct Player<'a> {
    records: &'a [Record],
    version: u64,
    next: Cell<usize>,
    verdict: RefCell<Option<Result<Verdict, ReplayError>>>,
    /// The run was cut off here, and goes on.
    cut: Cell<bool>,
    pub(super) cancel: Cancel,
    pub(super) reason: OnceLock<StopReason>,
}

impl<'a> Player<'a> {
    /// Stands behind the first record, with which the caller starts the run.
    pub(super) fn new(records: &'a [Record], version: u64) -> Self {
        let player = Self::at(records, version, 1);
        player.stop_before(1);
        player
    }

    fn at(records: &'a [Record], version: u64, next: usize) -> Self {
        Self {
            records,
            version,
            next: Cell::new(next),
            verdict: RefCell::new(None),
            cut: Cell::new(false),
            cancel: Cancel::new(),
            reason: OnceLock::new(),
        }
    }

    /// For what comes after the run was cut off; `None`: it came to an end.
    pub(super) fn resumed(&self) -> Option<Self> {
        let goes_on = self.cut.get() && self.verdict.borrow().is_none();
        goes_on.then(|| Self::at(self.records, self.version, self.next.get()))
    }

    /// So many records have been replayed.
    pub(super) fn replayed(&self) -> usize {
        self.next.get()
    }

    /// What came out, and how many records were replayed.
    pub(super) fn verdict(self) -> Result<(Verdict, usize), ReplayError> {
        let (replayed, without_end) = (self.next.get(), self.without_end());
        let verdict = self.verdict.into_inner().unwrap_or_else(|| {
            let left = self.records.get(replayed);
            Ok(left.map_or(without_end, |left| Verdict::Differs {
                step: left.number,
                what: format!("the run ends before the recorded {}", left.step.as_str()),
            }))
        });
        Ok((verdict?, replayed))
    }

    /// Of a run that has no end: what its last record says of that.
    fn without_end(&self) -> Verdict {
        let Some(last) = self.records.last() else { return Verdict::CutOff };
        match last.step {
            Step::Failed => Verdict::Failed { error: last.payload["error"].clone() },
            Step::Stop => {
                let reason = last.payload["reason"].as_str().unwrap_or_default();
                Verdict::Stopped { reason: reason.to_owned() }
            }
            Step::Wait => Verdict::Waits,
            _ => Verdict::CutOff,
        }
    }

    fn is_over(&self) -> bool {
        self.cut.get() || self.verdict.borrow().is_some()
    }

    /// Whether what is recorded at `at` is that the run goes on: then it was cut off before, and what it
    /// did after that is lost.
    fn is_cut(&self, at: usize) -> bool {
        let is_cut = self.records.get(at).is_some_and(|record| record.step == Step::Resume);
        if is_cut {
            self.cut.set(true);
            self.cancel.cancel();
        }
        is_cut
    }

    /// Ends the run at the next occasion.
    fn close(&self, verdict: Result<Verdict, ReplayError>) {
        self.verdict.borrow_mut().get_or_insert(verdict);
        self.cancel.cancel();
    }

    pub(super) fn differs(&self, at: usize, what: String) {
        let step = self.records.get(at).map_or(0, |record| record.number);
        self.close(Ok(Verdict::Differs { step, what }));
    }

    /// The record at `at` for somebody who needs one of `wanted`.
    fn take(&self, at: usize, wanted: &[Step], needs: &str) -> Option<&'a Record> {
        if self.is_over() {
            return None;
        }
        let Some(record) = self.records.get(at) else {
            self.close(Ok(self.without_end()));
            return None;
        };
        if self.is_cut(at) {
            return None;
        }
        if wanted.contains(&record.step) {
            return Some(record);
        }
        if self.version == 0 && record.step == Step::End {
            // It does not tell what failed or who stopped it.
            self.next.set(self.records.len());
            self.close(Ok(Verdict::NoHash));
        } else {
            self.differs(at, format!("the run {needs}; recorded is {}", record.step.as_str()));
        }
        None
    }

    fn read<T: serde::de::DeserializeOwned>(&self, record: &Record, value: &Value) -> Option<T> {
        match serde_json::from_value(value.clone()) {
            Ok(read) => Some(read),
            Err(error) => {
                self.close(Err(ReplayError::Unreadable { step: record.number, reason: error.to_string() }));
                None
            }
        }
    }

    fn compare(&self, at: usize, made: &Record) {
        let recorded = &self.records[at];
        if let Some(what) = difference(recorded, made, self.version) {
            return self.differs(at, what);
        }
        self.next.set(at + 1);
        if recorded.step == Step::End {
            let hash = recorded.payload["state"].as_str();
            let hash = hash.map_or(Verdict::NoHash, |hash| Verdict::Same { hash: hash.to_owned() });
            return self.close(Ok(hash));
        }
        self.stop_before(at + 1);
    }

    /// Wants the run to stop if it noticed at `at` that somebody did.
    fn stop_before(&self, at: usize) {
        if let Some(stop) = self.records.get(at).filter(|next| next.step == Step::Stop)
            && stop.payload["waiting"] != true
        {
            self.stop(stop);
        }
    }

    /// How much of the result at `at` is the tool's own.
    fn own_bytes(&self, at: usize, result: &str) -> usize {
        if self.version == 0 {
            return older::own_bytes(result, &self.records[at - 1]);
        }
        let own = self.records[at].payload["own_bytes"].as_u64().and_then(|own| usize::try_from(own).ok());
        own.filter(|own| result.is_char_boundary(*own)).unwrap_or(result.len())
    }

    fn stop(&self, stop: &Record) {
        let reason = match stop.payload["reason"].as_str() {
            Some("timeout") => StopReason::Timeout,
            Some("asked") => StopReason::Asked(stop.payload["words"].as_str().unwrap_or_default().to_owned()),
            _ => StopReason::Shutdown,
        };
        self.reason.get_or_init(|| reason);
        self.cancel.cancel();
    }

    /// The message that came at this place of the run.
    fn heard(&self, waited: bool) -> Option<String> {
        let at = self.next.get();
        let record = self.records.get(at).filter(|record| record.step == Step::Route && !self.is_over())?;
        if self.version == 0 && older::came_waiting(self.records, at) != waited {
            return None;
        }
        record.payload["text"].as_str().map(str::to_owned)
    }

    /// What left the history at this place of the run.
    fn trimmed(&self) -> Option<Trim> {
        let record = self.records.get(self.next.get()).filter(|record| record.step == Step::Trim)?;
        if self.is_over() { None } else { self.read(record, &record.payload) }
    }
}

impl Ledger for &Player<'_> {
    fn noted(&self, record: &Record) {
        let at = self.next.get();
        if self.is_over() || self.version == 0 && older::does_not_tell(record.step, self.records.get(at)) {
            return;
        }
        if at == self.records.len() {
            self.close(Ok(self.without_end()));
        } else if record.step == Step::Resume || !self.is_cut(at) {
            self.compare(at, record);
        }
    }

    /// What stands there is a nudge, a warning behind a result, or an error in place of one.
    fn wording(&self, words: String) -> String {
        let at = self.next.get();
        let Some(record) = self.records.get(at).filter(|_| !self.is_over()) else { return words };
        let payload = &record.payload;
        let result = payload["result"].as_str().unwrap_or_default();
        let recorded = match record.step {
            Step::Nudge => payload["text"].as_str(),
            Step::Tool if self.records[at - 1].payload["verdict"] == "warned" => {
                result.get(self.own_bytes(at, result) + older::BETWEEN.len()..)
            }
            Step::Tool => Some(result),
            _ => None,
        };
        recorded.map_or(words, str::to_owned)
    }

    fn write(&self, _records: Vec<Record>) -> Result<(), DbError> {
        Ok(())
    }

    fn write_durably(&self, _records: Vec<Record>) -> Result<(), DbError> {
        Ok(())
    }
}

impl Answers for &Player<'_> {
    fn capabilities(&self) -> ProviderCapabilities {
        ProviderCapabilities::new()
    }

    fn answer(
        &mut self,
        _request: &CompletionRequest,
        _patient: bool,
        _cancel: &Cancel,
        _on_delta: &mut dyn FnMut(&Delta<'_>),
    ) -> Result<Reply, LlmError> {
        let at = self.next.get();
        let Some(record) = self.take(at, &[Step::Model, Step::Failed], "asks the model") else {
            return Err(LlmError::Cancelled);
        };
        if record.step == Step::Failed {
            return Err(self.read(record, &record.payload["error"]).unwrap_or(LlmError::Cancelled));
        }
        let response: Option<CompletionResponse> = self.read(record, &record.payload["response"]);
        let attempts = record.payload["attempts"].as_u64().and_then(|count| u32::try_from(count).ok());
        Ok(Reply {
            response: response.ok_or(LlmError::Cancelled)?,
            model: record.payload["model"].as_str().unwrap_or_default().to_owned(),
            attempts: attempts.unwrap_or(1),
            fell_back: false,
        })
    }
}

impl Acts for &Player<'_> {
    fn definitions(&self) -> &[ToolDefinition] {
        &[]
    }

    fn is_external(&self, _name: &str) -> bool {
        false
    }

    fn changes(&self, _name: &str) -> bool {
        false
    }

    fn remember(&mut self, _called: &mut dyn Iterator<Item = &str>) {}

    /// Tells what the call has told, and does nothing else.
    fn act(
        &mut self,
        name: &str,
        arguments: Value,
        cancel: &Cancel,
        desk: &mut ProcessDesk<'_>,
    ) -> Result<String, String> {
        let mut at = self.next.get();
        // A warning is noted in front of its result.
        while self.records.get(at).is_some_and(|record| record.step == Step::Guard) {
            at += 1;
        }
        let needs = format!("calls {name}");
        let Some(record) = self.take(at, &[Step::Tool], &needs) else { return Err(String::new()) };
        let payload = &record.payload;
        if payload["tool"] != name {
            self.differs(at, format!("the run {needs}; recorded is {}", payload["tool"]));
            return Err(String::new());
        }
        let failed = payload["error"] == true;
        let mut result = payload["result"].as_str().unwrap_or_default().to_owned();
        result.truncate(self.own_bytes(at, &result));
        if self.version == 0 {
            if !failed {
                older::tell(name, arguments, &result, cancel, desk);
            }
        } else {
            let before = desk.started;
            if let Some(effects) = payload.get("effects") {
                let effects: Vec<Effect> = self.read(record, effects).unwrap_or_default();
                effects.into_iter().for_each(|effect| crate::tools::Desk::tell(desk, effect));
            }
            let started = payload["started"].as_u64().and_then(|count| usize::try_from(count).ok());
            // What an effect stands for is counted in it.
            desk.started = before + started.unwrap_or_default();
        }
        if failed { Err(result) } else { Ok(result) }
    }
}

impl Berth for &Player<'_> {
    fn next_message(&mut self) -> Option<String> {
        self.heard(false)
    }

    fn before_model(&mut self, _messages: &[&Message]) -> Option<Trim> {
        self.trimmed()
    }

    fn too_long(&mut self, _messages: &[&Message]) -> Option<Trim> {
        self.trimmed()
    }

    fn wait(&mut self) -> Result<Option<String>, How> {
        if let Some(text) = self.heard(true) {
            return Ok(Some(text));
        }
        let at = self.next.get();
        if self.version == 0 && self.records.get(at).is_some_and(|record| record.step == Step::End) {
            self.reason.get_or_init(|| older::end_of_waiting(&self.records[at]));
            return Ok(None);
        }
        match self.take(at, &[Step::Stop], "waits for input") {
            Some(stop) => {
                self.stop(stop);
                Ok(None)
            }
            None => Err(How::Cancelled),
        }
    }
}

/// A conduct that hears what was heard then.
pub(super) struct Again<'a, C> {
    pub(super) player: &'a Player<'a>,
    pub(super) conduct: C,
}

impl<C: Conduct> Conduct for Again<'_, C> {
    fn on_text(&mut self, text: &str, desk: &mut ProcessDesk<'_>) -> Option<String> {
        self.conduct.on_text(text, desk)
    }

    fn on_tools(&mut self, desk: &mut ProcessDesk<'_>) -> bool {
        self.conduct.on_tools(desk)
    }

    fn next_message(&mut self, _desk: &mut ProcessDesk<'_>, _left: usize) -> Option<Heard> {
        let record = self.player.records.get(self.player.next.get());
        let text = self.player.heard(false)?;
        let messages = record.map(|record| ids(&record.payload)).unwrap_or_default();
        let shown = record.map(|record| attachments(&record.payload)).unwrap_or_default();
        Some(Heard { text, messages, shown, outside: false })
    }

    fn before_model(&mut self, _messages: &[&Message]) -> Option<Trim> {
        self.player.trimmed()
    }

    fn too_long(&mut self, _messages: &[&Message]) -> Option<Trim> {
        self.player.trimmed()
    }

    fn hears_after_text(&self) -> bool {
        self.conduct.hears_after_text()
    }
}

/// Platform ids of messages.
pub(super) fn ids(payload: &Value) -> Vec<String> {
    let ids = payload["messages"].as_array().into_iter().flatten().filter_map(Value::as_str);
    ids.map(str::to_owned).collect()
}

/// Files that were shown with what this record tells.
pub(super) fn attachments(payload: &Value) -> Vec<Attachment> {
    payload.get("attachments").and_then(|shown| Vec::deserialize(shown).ok()).unwrap_or_default()
}

/// What is not as it was recorded.
fn difference(recorded: &Record, made: &Record, version: u64) -> Option<String> {
    if recorded.step != made.step {
        let (was, is) = (recorded.step.as_str(), made.step.as_str());
        return Some(format!("recorded is {was}, replayed {is}"));
    }
    let keys: &[&str] = match recorded.step {
        Step::Start | Step::Wait | Step::Resume => &[],
        Step::Model | Step::Failed => &["request"],
        Step::Tool => &["tool", "error", "result", "effects", "started"],
        Step::Guard => &["tool", "verdict", "rule", "count"],
        Step::Nudge => &["text"],
        Step::Route => &["text", "messages"],
        Step::Trim => &["task", "drop", "recap"],
        Step::Stop => &["reason", "words", "waiting"],
        Step::End => &["say", "started", "status", "outcome", "bytes", "model_calls", "state"],
    };
    let is_told = |key: &str| version > 0 || recorded.payload.get(key).is_some();
    let (was, is) = (&recorded.payload, &made.payload);
    let key = keys.iter().find(|key| is_told(key) && was[**key] != is[**key])?;
    Some(match *key {
        "request" => "the model would read something else".to_owned(),
        "state" => format!("another state: recorded {}, replayed {}", shown(&was[*key]), shown(&is[*key])),
        key => format!("{key}: recorded {}, replayed {}", shown(&was[key]), shown(&is[key])),
    })
}

fn shown(value: &Value) -> String {
    text::one_line(&value.to_string(), SHOWN_BYTES)
}
