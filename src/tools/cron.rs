//! `cron`: make, list, delete and switch the jobs that report to this conversation. Jobs of other
//! conversations are not shown and not touched: they may be private.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, arguments_of, number, schema_of, switch};
use crate::conversation::{self, Conversations, SCHEDULED};
use crate::cron::schedule::{ActiveHours, Rhythm};
use crate::cron::{Cron, CronError, Job, NewJob, Target};
use crate::effect::Effect;
use crate::id::ConversationId;
use crate::text;

/// Longest prompt in a listing, in bytes.
const LISTED_PROMPT_BYTES: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    Create,
    List,
    Delete,
    Enable,
    Disable,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    action: Action,
    /// Name of the job: a-z, 0-9, - and _. One is given to a new job without it.
    #[serde(default)]
    id: Option<String>,
    /// What to do at that time, in full sentences that stand alone.
    #[serde(default)]
    prompt: Option<String>,
    /// Minute, hour, day of the month, month, day of the week, such as `30 9 * * 1-5`.
    #[serde(default)]
    cron_expr: Option<String>,
    /// Instead of cron_expr: seconds between runs, at least 60; with run_once the seconds from now.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    interval_secs: Option<usize>,
    /// Run at the next time only.
    #[serde(default, deserialize_with = "switch")]
    #[schemars(with = "Option<bool>")]
    run_once: Option<bool>,
    /// Id of another conversation that shall hear of it (this one).
    #[serde(default)]
    delivery_target: Option<String>,
    /// Run only from this hour of the day on, 0 to 23.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    active_start_hour: Option<usize>,
    /// And only before this one; may lie behind midnight.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    active_end_hour: Option<usize>,
    /// Longest run, 10 to 86400.
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    timeout_secs: Option<usize>,
}

pub struct CronTool {
    cron: Cron,
    conversations: Conversations,
    here: Target,
    /// Of a job that names none.
    timeout: Duration,
}

impl CronTool {
    pub fn new(cron: Cron, conversations: Conversations, here: Target, timeout: Duration) -> Self {
        Self { cron, conversations, here, timeout }
    }

    fn create(&self, arguments: Arguments) -> Result<Value, ToolError> {
        let new = NewJob {
            name: arguments.id.clone(),
            prompt: arguments.prompt.clone().ok_or_else(|| missing("prompt"))?,
            expression: arguments.cron_expr.clone(),
            interval: arguments.interval_secs.map(|seconds| Duration::from_secs(seconds as u64)),
            active: active(&arguments)?,
            once: arguments.run_once.unwrap_or(false),
            target: self.target(arguments.delivery_target.as_deref())?,
            timeout: arguments
                .timeout_secs
                .map_or(self.timeout, |seconds| Duration::from_secs(seconds as u64)),
        };
        let job = self.cron.create(new, self.conversations.now()).map_err(refused)?;
        Ok(json!({ "created": self.show(&job) }))
    }

    fn target(&self, wanted: Option<&str>) -> Result<Target, ToolError> {
        let Some(wanted) = wanted.filter(|wanted| *wanted != self.here.conversation.as_str()) else {
            return Ok(self.here.clone());
        };
        let wanted_id = ConversationId::new(wanted);
        let found = self
            .cron
            .db()
            .read(|connection| conversation::place(connection, &wanted_id))
            .map_err(|error| ToolError::Failed(error.to_string()))?;
        let place = found.filter(|place| place.instance.as_str() != SCHEDULED);
        let place =
            place.ok_or_else(|| ToolError::NotFound(format!("no conversation has the id {wanted:?}")))?;
        Ok(Target {
            conversation: place.conversation,
            instance: place.instance,
            direct: place.direct,
            name: place.name,
        })
    }

    /// The jobs that report here and are not over.
    fn jobs(&self) -> Result<Vec<Job>, ToolError> {
        let mut jobs = self.cron.jobs().map_err(|error| ToolError::Failed(error.to_string()))?;
        jobs.retain(|job| job.target.conversation == self.here.conversation && !job.done);
        Ok(jobs)
    }

    /// The name of a job that reports here.
    fn own(&self, id: Option<String>) -> Result<String, ToolError> {
        let id = id.ok_or_else(|| missing("id"))?;
        if self.jobs()?.iter().any(|job| job.name == id) {
            return Ok(id);
        }
        Err(ToolError::NotFound(format!("this conversation has no job {id:?}")))
    }

    fn show(&self, job: &Job) -> Value {
        let next = self.cron.next_slot(job, self.conversations.now());
        let mut shown = json!({
            "id": job.name,
            "prompt": text::one_line(&job.prompt, LISTED_PROMPT_BYTES),
            "next_run": next.map(|next| self.cron.local_time(next)),
            "timezone": self.cron.zone().name(),
            "enabled": job.enabled,
            "run_once": job.timing.once,
        });
        let (key, value) = match &job.timing.rhythm {
            Rhythm::Expression(expression) => ("cron_expr", json!(expression.to_string())),
            Rhythm::Every(interval) => ("interval_secs", json!(interval.as_secs())),
        };
        shown[key] = value;
        shown
    }
}

impl Tool for CronTool {
    fn name(&self) -> &'static str {
        "cron"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let arguments: Arguments = arguments_of(arguments)?;
        let result = match arguments.action {
            Action::List => {
                let jobs = self.jobs()?;
                return Ok(
                    json!({ "jobs": jobs.iter().map(|job| self.show(job)).collect::<Vec<_>>() }).to_string()
                );
            }
            Action::Create => self.create(arguments)?,
            Action::Delete => {
                let id = self.own(arguments.id)?;
                self.cron.delete(&id).map_err(refused)?;
                json!({ "deleted": id })
            }
            Action::Enable | Action::Disable => {
                let enabled = arguments.action == Action::Enable;
                let id = self.own(arguments.id)?;
                let job = self.cron.toggle(&id, enabled, self.conversations.now()).map_err(refused)?;
                json!({ if enabled { "enabled" } else { "disabled" }: self.show(&job) })
            }
        };
        context.desk.tell(Effect::Scheduled);
        Ok(result.to_string())
    }
}

fn missing(field: &str) -> ToolError {
    ToolError::Invalid(format!("{field} is needed for this action"))
}

/// Both or none: one alone is a mistake.
fn active(arguments: &Arguments) -> Result<ActiveHours, ToolError> {
    let hour = |hour: usize| u8::try_from(hour).unwrap_or(u8::MAX);
    match (arguments.active_start_hour, arguments.active_end_hour) {
        (None, None) => Ok(ActiveHours::ALWAYS),
        (Some(start), Some(end)) => Ok(ActiveHours { start: hour(start), end: hour(end) }),
        _ => Err(ToolError::Invalid("active_start_hour and active_end_hour belong together".to_owned())),
    }
}

fn refused(error: CronError) -> ToolError {
    match error {
        CronError::Db(error) => ToolError::Failed(error.to_string()),
        CronError::NotFound(_) => ToolError::NotFound(error.to_string()),
        CronError::Full => ToolError::Denied(error.to_string()),
        CronError::Invalid(_) | CronError::Expression(_) | CronError::Exists(_) => {
            ToolError::Invalid(error.to_string())
        }
    }
}
