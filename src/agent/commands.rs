//! Slash commands: answered from the database and the hub's view, without a model, beside the turns of
//! their conversation. What a command changes is in the same transaction as its answer.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::AgentParts;
use super::job::{Job, Running, Troubles};
use super::link::Link;
use crate::clock::Timestamp;
use crate::config::ResponseMode;
use crate::conversation::change_settings;
use crate::cron;
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::effect::TaskNews;
use crate::error::{Fault, Kind};
use crate::event::{How, Received, What};
use crate::id::{ConversationId, InboxId};
use crate::message::slash::{self, Slash};
use crate::prompts::{self, PromptError, Template};
use crate::tasks::{self, Actor, Filter, Status, Task};
use crate::text;

/// Commands that one process answers; the rest gets the next one.
const COMMANDS_MAX: usize = 32;
/// Tasks, and lines of any other list, that one answer shows.
const SHOWN_MAX: usize = 30;
/// Longest line of a list, in bytes.
const LINE_BYTES: usize = 160;

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("{0}")]
    Prompt(#[from] PromptError),
}

impl Fault for CommandError {
    fn kind(&self) -> Kind {
        match self {
            CommandError::Database(error) => error.kind(),
            CommandError::Prompt(error) => error.kind(),
        }
    }
}

/// Answers the commands of a conversation that wait, in their order.
pub(super) fn run(
    parts: &AgentParts,
    job: &Job,
    (running, troubles): (&[(ConversationId, Running)], &Troubles),
    mut apology: Option<Kind>,
    link: &Link<'_>,
) -> How {
    let mut covered: Option<InboxId> = None;
    for _ in 0..COMMANDS_MAX {
        let next =
            parts.conversations.commands(&job.place.conversation, 1).map(|rows| rows.into_iter().next());
        let command = match next {
            Ok(Some(command)) => command,
            Ok(None) => return turned(job, covered, false),
            Err(error) => return failed(&error),
        };
        let answered = match apology.take() {
            Some(kind) => {
                let sentence = prompts::notice(kind.notice()).to_owned();
                let say = move |_: &Connection| Ok((sentence, ()));
                parts.conversations.commit_command(&job.place, &command, say).map_err(CommandError::from)
            }
            None => Answering { parts, job, running, troubles, link, command: &command }.answer(),
        };
        if let Err(error) = answered {
            return failed(&error);
        }
        covered = Some(command.id);
    }
    turned(job, covered, true)
}

fn turned(job: &Job, covered: Option<InboxId>, more: bool) -> How {
    let outbox = covered.map(|_| job.place.instance.clone()).into_iter().collect();
    How::Turned { covered, more, outbox }
}

fn failed(error: &dyn Fault) -> How {
    How::Failed(error.kind(), error.to_string())
}

struct Answering<'a> {
    parts: &'a AgentParts,
    job: &'a Job,
    running: &'a [(ConversationId, Running)],
    troubles: &'a Troubles,
    link: &'a Link<'a>,
    command: &'a Received,
}

impl Answering<'_> {
    fn answer(&self) -> Result<(), CommandError> {
        match slash::parse(&self.command.message.content) {
            Some(Slash::Active) => self.set_mode(ResponseMode::Active),
            Some(Slash::Quiet) => self.set_mode(ResponseMode::Observe),
            Some(Slash::MentionOnly) => self.set_mode(ResponseMode::MentionOnly),
            Some(Slash::Approve(number)) => self.approve(number),
            Some(Slash::Status) => self.say("status", &self.status()?),
            Some(Slash::Tasks) => self.say("tasks", &self.tasks()?),
            Some(Slash::Today) => self.say("today", &self.today()?),
            Some(Slash::Digest) => self.say("digest", &self.digest()?),
            Some(Slash::Whoami) => self.say("whoami", &self.whoami()),
            Some(Slash::AgentId) => {
                let config = &self.parts.config;
                self.say("agent_id", &json!({ "id": config.id.as_str(), "name": config.display_name }))
            }
            // Also for a command of another version of this program.
            Some(Slash::Help) | None => self.say("help", &json!({ "direct": self.direct() })),
        }
    }

    /// In company only what belongs to the conversation is told and changed.
    fn direct(&self) -> bool {
        self.job.place.direct
    }

    fn here(&self) -> Option<&ConversationId> {
        (!self.direct()).then_some(&self.job.place.conversation)
    }

    fn say(&self, name: &'static str, context: &impl Serialize) -> Result<(), CommandError> {
        let words = prompts::render(Template::Command(name), context)?;
        self.commit(move |_| Ok((words, ())))
    }

    fn commit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<(String, T), DbError> + Send + 'static,
    ) -> Result<T, CommandError> {
        Ok(self.parts.conversations.commit_command(&self.job.place, self.command, work)?)
    }

    fn set_mode(&self, mode: ResponseMode) -> Result<(), CommandError> {
        let context = json!({ "direct": self.direct(), "mode": mode.as_str() });
        let words = prompts::render(Template::Command("mode"), &context)?;
        let (conversation, now, direct) =
            (self.job.place.conversation.clone(), self.parts.conversations.now(), self.direct());
        self.commit(move |connection| {
            if !direct {
                change_settings(connection, &conversation, now, |settings| {
                    settings.response_mode = Some(mode)
                })?;
            }
            Ok((words, ()))
        })
    }

    fn approve(&self, number: Option<u64>) -> Result<(), CommandError> {
        if !self.direct() {
            return self.say("approve", &json!({ "outcome": "in_company" }));
        }
        let Some(number) = number else { return self.say("approve", &json!({ "outcome": "no_number" })) };
        let by = Actor::Person(self.command.message.sender_name.clone());
        let now = self.parts.conversations.now();
        let news = self.commit(move |connection| approve(connection, number, &by, now))?;
        news.into_iter().for_each(|news| (self.link.up)(What::Task(news)));
        Ok(())
    }

    fn status(&self) -> Result<Value, CommandError> {
        let line = |(conversation, running): &(ConversationId, Running)| {
            let elsewhere = *conversation != self.job.place.conversation;
            json!({
                "process": running.process.to_string(), "seconds": running.seconds, "waiting": running.waiting,
                "what": text::one_line(&running.what, LINE_BYTES),
                "status": text::one_line(&running.status, LINE_BYTES),
                "where": if elsewhere { conversation.as_str() } else { "" },
            })
        };
        let shown = |(conversation, _): &&(ConversationId, Running)| {
            self.here().is_none_or(|here| here == conversation)
        };
        let counts = if self.direct() { self.parts.tasks().counts()? } else { Vec::new() };
        let counts: Vec<_> = counts
            .into_iter()
            .map(|(status, count)| json!({ "status": spoken(status), "count": count }))
            .collect();
        Ok(json!({
            "name": self.parts.config.display_name, "version": env!("CARGO_PKG_VERSION"),
            "model": self.parts.routing(&self.job.place)?.channel, "direct": self.direct(),
            "mode": self.parts.settings(&self.job.place)?.response_mode.as_str().replace('_', " "),
            "running": self.running.iter().filter(shown).take(SHOWN_MAX).map(line).collect::<Vec<_>>(),
            "counts": counts, "troubles": if self.direct() { self.troubles()? } else { Value::Null },
        }))
    }

    /// What is not used for a while because it failed, and what fails.
    fn troubles(&self) -> Result<Value, CommandError> {
        let (now, zone) = (self.parts.conversations.now(), &self.parts.config.timezone);
        let line = |name: &str, left: Duration| {
            let until = (!left.is_zero()).then(|| zone.format(now.plus(left), "%H:%M:%S"));
            json!({ "name": text::one_line(name, LINE_BYTES), "until": until })
        };
        let lost = self.parts.llm.lost();
        let models = lost.iter().map(|lost| line(&lost.model, Duration::from_secs(lost.rests_seconds)));
        let resting = self.troubles.resting.iter().map(|(errand, left)| line(errand, *left));
        let jobs =
            self.parts.cron().jobs()?.into_iter().filter(cron::Job::is_switched_off).map(|job| job.name);
        Ok(json!({
            "models": models.take(SHOWN_MAX).collect::<Vec<_>>(), "resting": resting.collect::<Vec<_>>(),
            "failing": self.troubles.failing.iter().take(SHOWN_MAX).collect::<Vec<_>>(),
            "jobs": jobs.take(SHOWN_MAX).collect::<Vec<_>>(),
            "ceilings": self.parts.llm.strained(Some(&self.parts.config.id)),
        }))
    }

    fn list(&self, filter: Filter) -> Result<Vec<Task>, CommandError> {
        let conversation = self.here().map(ToString::to_string);
        Ok(self.parts.tasks().list(&Filter { conversation, ..filter })?)
    }

    fn tasks(&self) -> Result<Value, CommandError> {
        let mut tasks = self.list(Filter { open: true, limit: SHOWN_MAX + 1, ..Filter::default() })?;
        let more = tasks.len() > SHOWN_MAX;
        tasks.truncate(SHOWN_MAX);
        Ok(json!({
            "direct": self.direct(), "more": more, "tasks": tasks.iter().map(task_line).collect::<Vec<_>>(),
            "pending": tasks.iter().any(|task| task.status == Status::PendingApproval),
        }))
    }

    fn today(&self) -> Result<Value, CommandError> {
        let (since, shown) = self.start_of_day();
        let mut day = self.parts.conversations.day(since, self.here())?;
        for run in &mut day.runs {
            run.what = text::one_line(&run.what, LINE_BYTES);
        }
        let tasks = self.list(Filter { since: Some(since), limit: SHOWN_MAX, ..Filter::default() })?;
        Ok(json!({
            "since": shown, "talks": day.talks, "runs": day.runs,
            "tasks": tasks.iter().map(task_line).collect::<Vec<_>>(),
        }))
    }

    fn digest(&self) -> Result<Value, CommandError> {
        let (since, shown) = self.start_of_day();
        let day = self.parts.conversations.day(since, self.here())?;
        let moved =
            self.list(Filter { since: Some(since), limit: tasks::LISTED_MAX, ..Filter::default() })?;
        let open = self.list(Filter { open: true, limit: tasks::LISTED_MAX, ..Filter::default() })?;
        let titles = |tasks: &[Task], status: Status| {
            let titles = tasks.iter().filter(|task| task.status == status).take(SHOWN_MAX);
            titles.map(|task| format!("#{} {}", task.number, task.title)).collect::<Vec<_>>().join(", ")
        };
        Ok(json!({
            "since": shown, "messages": day.messages, "answers": day.answers,
            "conversations": day.conversations, "branches": day.branches, "workers": day.workers,
            "failed_runs": day.failed_runs,
            "done": titles(&moved, Status::Done), "failed": titles(&moved, Status::Failed),
            "working": titles(&open, Status::InProgress), "pending": titles(&open, Status::PendingApproval),
        }))
    }

    /// Where the agent lives, and as people read it.
    fn start_of_day(&self) -> (Timestamp, String) {
        let zone = &self.parts.config.timezone;
        let since = zone.day_start(self.parts.conversations.now(), 0);
        (since, zone.format(since, "%Y-%m-%d %H:%M"))
    }

    fn whoami(&self) -> Value {
        let message = &self.command.message;
        let mut humans = self.parts.config.humans.iter();
        let known = humans.find(|human| human.is(&message.instance, &message.sender_id));
        let known = known.map(|human| json!({ "name": human.name, "role": human.role }));
        json!({
            "sender_id": message.sender_id, "sender_name": message.sender_name, "known": known,
            "instance": message.instance.as_str(), "conversation": message.conversation.as_str(),
            "direct": self.direct(),
        })
    }
}

/// Within the transaction of the answer: the words, and what the hub has to hear.
fn approve(
    connection: &Connection,
    number: u64,
    by: &Actor,
    now: Timestamp,
) -> Result<(String, Vec<TaskNews>), DbError> {
    let (context, news) = match tasks::approve(connection, number, by, now)? {
        Ok(changed) => {
            let outcome = if changed.news.is_empty() { "already" } else { "approved" };
            let context = json!({
                "outcome": outcome, "number": number, "title": changed.task.title,
                "status": spoken(changed.task.status),
            });
            (context, changed.news)
        }
        Err(tasks::TaskError::Database(error)) => return Err(error),
        Err(refused) => (json!({ "outcome": "refused", "reason": refused.to_string() }), Vec::new()),
    };
    let words = prompts::render(Template::Command("approve"), &context);
    Ok((words.map_err(|error| DbError::Refused(error.to_string()))?, news))
}

fn spoken(status: Status) -> String {
    status.as_str().replace('_', " ")
}

fn task_line(task: &Task) -> Value {
    json!({
        "number": task.number, "title": task.title, "status": spoken(task.status),
        "priority": task.priority.as_str(), "attempts": task.attempts, "subtasks": task.subtasks.len(),
        "completed": task.subtasks.iter().filter(|subtask| subtask.completed).count(),
    })
}
