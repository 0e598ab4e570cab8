//! `spacebot why`: what became of a message: the processes that it led to, what they cost, which memories
//! and tools they used, and how they ended.

mod elsewhere;

use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};

use crate::config::{AgentConfig, Config, NANO_PLACES, decimal_text};
use crate::conversation::{Conversations, Explanation, Record, Run, Step};
use crate::db::DbError;
use crate::id::AgentId;
use crate::text;
use crate::usage::cost_of_process;
use elsewhere::Elsewhere;

/// Bytes of a text that are shown in one line.
const SHOWN_BYTES: usize = 120;

#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("there is no agent {0:?} in the config")]
    Agent(String),
    #[error("there is no message {0:?}; messages are deleted after `keep_days`")]
    NoMessage(String),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
}

impl crate::error::Fault for WhyError {
    fn kind(&self) -> crate::error::Kind {
        match self {
            WhyError::Database(error) => error.kind(),
            WhyError::Agent(_) | WhyError::Output(_) => crate::error::Kind::Invalid,
            WhyError::NoMessage(_) => crate::error::Kind::NotFound,
        }
    }
}

/// Dollars for all of its runs, and calls without a price; none: none of them asked a model on the network.
fn cost(
    config: &Config,
    agent: &AgentConfig,
    explanation: &Explanation,
) -> Result<Option<(String, u64)>, DbError> {
    let Some(accounts) = super::usage::open(config)? else { return Ok(None) };
    let costs = accounts.read(|connection| {
        let of = |run: &Run| cost_of_process(connection, &agent.id, run.number);
        explanation.runs.iter().map(of).collect::<Result<Vec<_>, _>>()
    })?;
    let known: Vec<(u64, u64)> = costs.into_iter().flatten().collect();
    let nano = known.iter().map(|(nano, _)| nano).sum();
    let unpriced = known.iter().map(|(_, unpriced)| unpriced).sum();
    Ok((!known.is_empty()).then(|| (decimal_text(nano, NANO_PLACES), unpriced)))
}

/// What a run has used, added up.
#[derive(Debug, Default)]
struct Sum {
    calls: u64,
    tokens_in: u64,
    tokens_out: u64,
    model_milliseconds: u64,
    tool_milliseconds: u64,
}

impl Sum {
    fn of(records: &[Record]) -> Self {
        let mut sum = Self::default();
        for record in records {
            let milliseconds = record.payload["milliseconds"].as_u64().unwrap_or_default();
            match record.step {
                Step::Model => {
                    let usage = &record.payload["response"]["usage"];
                    sum.calls += 1;
                    sum.tokens_in += usage["input_tokens"].as_u64().unwrap_or_default();
                    sum.tokens_out += usage["output_tokens"].as_u64().unwrap_or_default();
                    sum.model_milliseconds += milliseconds;
                }
                Step::Tool => sum.tool_milliseconds += milliseconds,
                _ => {}
            }
        }
        sum
    }

    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.tokens_in += other.tokens_in;
        self.tokens_out += other.tokens_out;
        self.model_milliseconds += other.model_milliseconds;
        self.tool_milliseconds += other.tool_milliseconds;
    }

    fn line(&self) -> String {
        format!(
            "{} model calls, {} tokens in, {} out; {} ms in models, {} ms in tools",
            self.calls, self.tokens_in, self.tokens_out, self.model_milliseconds, self.tool_milliseconds
        )
    }

    fn json(&self) -> Value {
        json!({
            "model_calls": self.calls, "tokens_in": self.tokens_in, "tokens_out": self.tokens_out,
            "model_milliseconds": self.model_milliseconds, "tool_milliseconds": self.tool_milliseconds,
        })
    }
}

/// # Errors
/// There is no such message, or it cannot be read.
pub fn run(config: &Config, agent: Option<&str>, id: Option<&str>, json: bool) -> Result<(), WhyError> {
    let agent = config.agent(agent).ok_or_else(|| WhyError::Agent(agent.unwrap_or_default().to_owned()))?;
    let database = |agent: &AgentId| {
        config.data_folder.join("agents").join(agent.as_str()).join("data").join("spacebot.db")
    };
    let path = database(&agent.id);
    let missing = || WhyError::NoMessage(id.unwrap_or("of any kind").to_owned());
    if !path.exists() {
        return Err(missing());
    }
    let db = crate::db::Db::open_inline(&path, None)?;
    let conversations = Conversations::new(db, crate::clock::SystemClock::shared());
    let mut explanation = conversations.explain(id)?.ok_or_else(missing)?;
    let requests = std::mem::take(&mut explanation.requests).into_iter();
    let elsewhere: Vec<Elsewhere> = requests
        .map(|request| {
            let file = database(&request.target);
            Elsewhere::look(&agent.id, request, &file)
        })
        .collect();
    let cost = cost(config, agent, &explanation)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if json {
        let mut value = as_json(&explanation, &elsewhere);
        value["cost_usd"] = cost.as_ref().map_or(Value::Null, |(usd, _)| json!(usd));
        writeln!(out, "{value}")?;
    } else {
        tell(&explanation, &elsewhere, agent, &mut out)?;
        if let Some((usd, unpriced)) = cost {
            let note =
                if unpriced > 0 { format!(" and {unpriced} calls without a price") } else { String::new() };
            writeln!(out, "cost {usd} USD{note}")?;
        }
    }
    Ok(out.flush()?)
}

fn tell(
    explanation: &Explanation,
    elsewhere: &[Elsewhere],
    agent: &AgentConfig,
    out: &mut impl Write,
) -> io::Result<()> {
    let Explanation { platform_id, conversation, sender, content, received_at, .. } = explanation;
    let at = agent.timezone.format(*received_at, "%Y-%m-%d %H:%M:%S");
    writeln!(out, "{} in {}, {at}", shown(sender), shown(conversation))?;
    writeln!(out, "  {}", shown(content))?;
    writeln!(out, "  id {}", shown(platform_id))?;
    let mut all = Sum::default();
    for run in &explanation.runs {
        let sum = Sum::of(&run.records);
        all.add(&sum);
        tell_run(run, &sum, out)?;
    }
    for other in elsewhere {
        all.add(&other.sum());
        other.tell(out)?;
    }
    if explanation.runs.len() > 1 {
        writeln!(out, "in all: {}", all.line())?;
    }
    for answer in &explanation.answers {
        let after = answer.created_at.since(*received_at).as_secs_f64();
        let said = answer.content["text"].as_str().map_or_else(|| answer.content.to_string(), str::to_owned);
        writeln!(out, "answered after {after:.2} s ({}): {}", answer.state, shown(&said))?;
    }
    match (explanation.answers.is_empty(), explanation.answered_at) {
        (true, None) => writeln!(out, "not answered yet"),
        (true, Some(_)) => writeln!(out, "read, and nothing was said"),
        (false, _) => Ok(()),
    }
}

fn tell_run(run: &Run, sum: &Sum, out: &mut impl Write) -> io::Result<()> {
    let start = &run.records.first().map(|record| record.payload.clone()).unwrap_or_default();
    let kind = start["kind"].as_str().unwrap_or("process");
    let task = start["description"].as_str().or(start["task"].as_str()).unwrap_or_default();
    let task = if task.is_empty() { String::new() } else { format!(": {}", shown(task)) };
    writeln!(out, "{kind} {}{task}", run.number)?;
    writeln!(out, "  {}", sum.line())?;
    for record in &run.records {
        match record.step {
            Step::Start => {}
            Step::Model => {
                let model = record.payload["model"].as_str().unwrap_or("?");
                let attempts = record.payload["attempts"].as_u64().unwrap_or(1);
                let tries =
                    if attempts > 1 { format!(" (after {attempts} attempts)") } else { String::new() };
                writeln!(out, "  asked {}{tries}", shown(model))?;
            }
            Step::Failed => {
                let error = record.payload["error"].to_string();
                writeln!(out, "  no model answered: {}", shown(&error))?;
            }
            Step::Tool => tell_tool(&record.payload, out)?,
            Step::Guard => {
                let said = |key: &str| shown(record.payload[key].as_str().unwrap_or("?"));
                writeln!(out, "  {}: {} ({})", said("tool"), said("verdict"), said("rule"))?;
            }
            Step::Nudge => {
                writeln!(out, "  told it: {}", shown(record.payload["text"].as_str().unwrap_or_default()))?;
            }
            Step::Route => {
                writeln!(out, "  heard: {}", shown(record.payload["text"].as_str().unwrap_or_default()))?;
            }
            Step::Stop => {
                writeln!(out, "  was to stop: {}", shown(record.payload["reason"].as_str().unwrap_or("?")))?;
            }
            Step::Trim => {
                let drop = record.payload["drop"].as_u64().unwrap_or_default();
                writeln!(out, "  its {drop} oldest messages have left it for want of room")?;
            }
            Step::Wait => writeln!(out, "  waits for more words")?,
            Step::Resume => writeln!(out, "  goes on after the daemon has started again")?,
            Step::End => writeln!(out, "  ended: {}", ending(&record.payload))?,
        }
    }
    if run.records.iter().all(|record| record.step != Step::End) {
        writeln!(out, "  has not ended, or was cut off")?;
    }
    Ok(())
}

fn tell_tool(payload: &Value, out: &mut impl Write) -> io::Result<()> {
    let tool = payload["tool"].as_str().unwrap_or("?");
    let result = payload["result"].as_str().unwrap_or_default();
    let failed = if payload["error"].as_bool().unwrap_or(false) { " failed" } else { "" };
    let memories: Value = serde_json::from_str(result).unwrap_or_default();
    match memories["memories"].as_array() {
        Some(memories) => {
            writeln!(out, "  {tool}{failed}: {} memories", memories.len())?;
            for memory in memories {
                let (relevance, content) = (&memory["relevance"], memory["content"].as_str());
                let source = memory["source"].as_str().unwrap_or("no source");
                writeln!(out, "    {relevance} {} [{}]", shown(content.unwrap_or_default()), shown(source))?;
            }
            Ok(())
        }
        None => writeln!(out, "  {tool}{failed}: {}", shown(result)),
    }
}

/// `status done`, `outcome success`, or for a turn how many answers it gave and what it started.
fn ending(payload: &Value) -> String {
    let word = payload["status"].as_str().or(payload["outcome"].as_str());
    match (word, payload["say"].as_u64()) {
        (Some(word), _) => shown(word),
        (None, Some(said)) => {
            format!("said {said}, started {}", payload["started"].as_u64().unwrap_or_default())
        }
        (None, None) => shown(&payload.to_string()),
    }
}

/// One line without signs that a terminal would obey.
fn shown(text: &str) -> String {
    text::one_line(text, SHOWN_BYTES).replace(char::is_control, " ")
}

fn run_json(run: &Run) -> Value {
    let record = |record: &Record| json!({ "step": record.step.as_str(), "payload": record.payload });
    let records: Vec<Value> = run.records.iter().map(record).collect();
    json!({ "run": run.number, "sum": Sum::of(&run.records).json(), "records": records })
}

fn as_json(explanation: &Explanation, elsewhere: &[Elsewhere]) -> Value {
    let answers: Vec<Value> = explanation
        .answers
        .iter()
        .map(|answer| {
            json!({
                "content": answer.content, "state": answer.state,
                "after_milliseconds": u64::try_from(answer.created_at.since(explanation.received_at).as_millis()).unwrap_or(u64::MAX),
            })
        })
        .collect();
    json!({
        "message": explanation.platform_id,
        "conversation": explanation.conversation,
        "sender": explanation.sender,
        "content": explanation.content,
        "received_at": explanation.received_at.to_rfc3339_milliseconds(),
        "runs": explanation.runs.iter().map(run_json).collect::<Vec<_>>(),
        "delegations": elsewhere.iter().map(Elsewhere::json).collect::<Vec<_>>(),
        "answers": answers,
    })
}
