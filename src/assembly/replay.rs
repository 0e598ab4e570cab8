//! `spacebot replay`: a recorded run once more from its journal, step by step, and whether it came to the same.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use spacebot::agent::{self, ReplayError, Replayed, Verdict};
use spacebot::clock::{SystemClock, Timestamp};
use spacebot::config::Config;
use spacebot::conversation::{Conversations, Record, Step};
use spacebot::db::{Db, DbError};
use spacebot::error::{Fault, Kind};
use spacebot::secrets::Scrubber;
use spacebot::text;
use spacebot::tools::speech::Speech;

/// Runs that `--all` replays; the journal of `keep_days` has fewer.
const RUNS_MAX: usize = 1_000_000;
/// Bytes of a step that are shown.
const SHOWN_BYTES: usize = 100;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayFailed {
    #[error("{0}")]
    Replay(#[from] ReplayError),
    #[error("there is no agent {0:?} in the config")]
    Agent(String),
    #[error("{0:?} is no run; `spacebot why` shows the runs of a message")]
    NoNumber(String),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
}

impl From<DbError> for ReplayFailed {
    fn from(error: DbError) -> Self {
        Self::Replay(error.into())
    }
}

impl Fault for ReplayFailed {
    fn kind(&self) -> Kind {
        match self {
            ReplayFailed::Replay(error) => error.kind(),
            ReplayFailed::Agent(_) | ReplayFailed::NoNumber(_) | ReplayFailed::Output(_) => Kind::Invalid,
        }
    }
}

/// Replays one run (the last one without a name), or all of them with one line for each. True when
/// everything was the same.
///
/// # Errors
/// The run cannot be replayed at all.
pub(crate) fn run(
    config: &Config,
    agent: Option<&str>,
    run: Option<&str>,
    all: bool,
) -> Result<bool, ReplayFailed> {
    let no_agent = || ReplayFailed::Agent(agent.unwrap_or_default().to_owned());
    let agent = config.agent(agent).ok_or_else(no_agent)?;
    let path = config.data_folder.join("agents").join(agent.id.as_str()).join("data").join("spacebot.db");
    let wanted = run.map(number).transpose()?;
    if !path.exists() {
        return Err(ReplayError::NoRun(wanted.unwrap_or_default()).into());
    }
    let conversations = Conversations::new(Db::open_inline(&path, None)?, SystemClock::shared());
    let speech = Speech::new(Arc::new(Scrubber::new(config.secrets.iter())));
    let mut out = BufWriter::new(io::stdout().lock());
    if all {
        let mut good = true;
        for (run, _) in conversations.runs_begun(Timestamp(i64::MIN), RUNS_MAX)? {
            let replayed = agent::replay(&conversations, &speech, run);
            // A kill leaves runs without an end, and that is no fault of theirs.
            good &= replayed
                .as_ref()
                .is_ok_and(|replayed| is_good(replayed) || matches!(replayed.verdict, Verdict::CutOff));
            writeln!(out, "{run}: {}", line(&replayed))?;
        }
        out.flush()?;
        return Ok(good);
    }
    let run = match wanted {
        Some(run) => run,
        None => conversations.runs_begun(Timestamp(i64::MIN), RUNS_MAX)?.last().map_or(0, |(run, _)| *run),
    };
    let replayed = agent::replay(&conversations, &speech, run)?;
    writeln!(out, "{} {run}, journal of version {}", replayed.kind, replayed.version)?;
    for record in &replayed.records[..replayed.replayed] {
        writeln!(out, "  {:>3} {}", record.number, step(record))?;
    }
    for file in &replayed.gone {
        writeln!(out, "not kept any more, and not needed for this: {} ({})", file.line(), file.hash)?;
    }
    writeln!(out, "{}", verdict(&replayed))?;
    out.flush()?;
    Ok(is_good(&replayed))
}

/// `12`, or with its kind: `branch:12`.
fn number(run: &str) -> Result<u64, ReplayFailed> {
    let digits = run.rsplit(':').next().unwrap_or(run);
    digits.parse().map_err(|_| ReplayFailed::NoNumber(run.to_owned()))
}

fn is_good(replayed: &Replayed) -> bool {
    !matches!(replayed.verdict, Verdict::CutOff | Verdict::Differs { .. })
}

fn line(replayed: &Result<Replayed, ReplayError>) -> String {
    match replayed {
        Ok(replayed) => format!("{}, {}", replayed.kind, verdict(replayed)),
        Err(error) => error.to_string(),
    }
}

fn verdict(replayed: &Replayed) -> String {
    match &replayed.verdict {
        Verdict::Same { hash } => format!("same: {hash}"),
        Verdict::NoHash => format!("as recorded; a journal of version {} has no hash", replayed.version),
        Verdict::Failed { error } => {
            let error = text::one_line(&error.to_string(), SHOWN_BYTES).replace(char::is_control, " ");
            format!("as recorded; its model failed: {error}")
        }
        Verdict::Stopped { reason } => format!("as recorded; it was told to stop: {reason}"),
        Verdict::Waits => "as recorded; it waits for input".to_owned(),
        Verdict::CutOff => "as recorded, and then nothing: it runs still, or was cut off there".to_owned(),
        Verdict::Differs { step, what } => format!("differs at step {step}: {what}"),
    }
}

fn step(record: &Record) -> String {
    let said = |key: &str| record.payload[key].as_str().unwrap_or("?");
    let told = match record.step {
        Step::Start => said("kind").to_owned(),
        Step::Model => said("model").to_owned(),
        Step::Failed => record.payload["error"].to_string(),
        Step::Tool => format!("{}: {}", said("tool"), said("result")),
        Step::Guard => format!("{} {} ({})", said("tool"), said("verdict"), said("rule")),
        Step::Nudge | Step::Route => said("text").to_owned(),
        Step::Trim => format!("{} messages leave", record.payload["drop"]),
        Step::Wait => String::new(),
        Step::Resume => "goes on after the daemon has started again".to_owned(),
        Step::Stop => said("reason").to_owned(),
        Step::End => record.payload.to_string(),
    };
    // One line without signs that a terminal would obey.
    let told = text::one_line(&told, SHOWN_BYTES).replace(char::is_control, " ");
    format!("{:<6} {told}", record.step.as_str())
}
