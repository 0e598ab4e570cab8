//! What can be written about a task, with its bounds; pure.

use super::metadata::{self, Metadata};
use super::{Actor, Asked, Priority, Status, Subtask, Task, TaskError};
use crate::message::Place;

/// A line of a list.
pub const TITLE_BYTES_MAX: usize = 200;
/// A page; more belongs into a file of the workspace.
pub(super) const DESCRIPTION_BYTES_MAX: usize = 16 << 10;
pub const SUBTASKS_MAX: usize = 50;
/// What a worker left behind; the whole of it stands with its run.
pub const RESULT_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Clone)]
pub struct NewTask {
    pub title: String,
    pub description: String,
    pub status: Status,
    pub priority: Priority,
    pub subtasks: Vec<Subtask>,
    pub metadata: Metadata,
    /// Where its result is told.
    pub place: Option<Place>,
    pub asked: Option<Asked>,
    pub by: Actor,
}

impl NewTask {
    pub fn new(title: impl Into<String>, by: Actor) -> Self {
        Self {
            title: title.into(),
            description: String::new(),
            status: Status::PendingApproval,
            priority: Priority::default(),
            subtasks: Vec::new(),
            metadata: Metadata::new(),
            place: None,
            asked: None,
            by,
        }
    }

    pub(super) fn checked(mut self) -> Result<Self, TaskError> {
        self.title = title(&self.title)?;
        self.description = description(self.description)?;
        self.subtasks = subtasks(self.subtasks)?;
        metadata::merge(&mut Metadata::new(), self.metadata.clone())?;
        if matches!(self.status, Status::InProgress | Status::Done | Status::Failed) {
            return Err(TaskError::Invalid(format!("a task cannot begin as {}", self.status.as_str())));
        }
        Ok(self)
    }
}

/// What is to be changed; everything else stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    pub title: Option<String>,
    pub description: Option<String>,
    pub status: Option<Status>,
    pub priority: Option<Priority>,
    /// All of them anew.
    pub subtasks: Option<Vec<Subtask>>,
    /// One of them is done, by its number from 1.
    pub complete_subtask: Option<usize>,
    /// Merged into what is there.
    pub metadata: Option<Metadata>,
    /// Refuse if somebody was quicker.
    pub expected_revision: Option<u64>,
    /// Refuse if the task is not bound to this worker.
    pub bound_to: Option<u64>,
}

impl Change {
    pub fn to(status: Status) -> Self {
        Self { status: Some(status), ..Self::default() }
    }

    /// The task with the change; its revision, times and worker are the store's business.
    pub(super) fn apply(self, task: &Task, by: &Actor) -> Result<Task, TaskError> {
        let number = task.number;
        if let Some(expected) = self.expected_revision
            && expected != task.revision
        {
            return Err(TaskError::Conflict { number, expected, found: task.revision });
        }
        if self.bound_to.is_some_and(|worker| task.worker != Some(worker)) {
            return Err(TaskError::Forbidden(format!("task {number} was taken back")));
        }
        let mut changed = task.clone();
        if let Some(to) = self.status {
            may_become(task, to, by)?;
            changed.status = to;
            // Who says that it is ready means now.
            changed.retry_at = None;
        }
        if let Some(text) = self.title {
            changed.title = title(&text)?;
        }
        if let Some(text) = self.description {
            changed.description = description(text)?;
        }
        changed.priority = self.priority.unwrap_or(task.priority);
        if let Some(all) = self.subtasks {
            changed.subtasks = subtasks(all)?;
        }
        if let Some(which) = self.complete_subtask {
            let count = changed.subtasks.len();
            let subtask = which.checked_sub(1).and_then(|index| changed.subtasks.get_mut(index));
            let missing = || TaskError::Invalid(format!("task {number} has no subtask {which}, but {count}"));
            subtask.ok_or_else(missing)?.completed = true;
        }
        if let Some(change) = self.metadata {
            metadata::merge(&mut changed.metadata, change)?;
        }
        Ok(changed)
    }
}

fn may_become(task: &Task, to: Status, by: &Actor) -> Result<(), TaskError> {
    let (number, from) = (task.number, task.status);
    if !from.can_become(to) {
        return Err(TaskError::Transition { number, from, to });
    }
    if from != to && to == Status::InProgress {
        let reason = "only the daemon puts a task in progress, when it gives it to a worker; make it ready";
        return Err(TaskError::Forbidden(reason.to_owned()));
    }
    // Otherwise the approval would be nobody's.
    if from == Status::PendingApproval && to == Status::Ready && *by == task.created_by && by.is_process() {
        let reason = format!("task {number} was created by this same process; a person has to approve it");
        return Err(TaskError::Forbidden(reason));
    }
    Ok(())
}

fn title(text: &str) -> Result<String, TaskError> {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.len() {
        0 => Err(TaskError::Invalid("the title is empty".to_owned())),
        length if length > TITLE_BYTES_MAX => Err(TaskError::Invalid(format!(
            "the title has {length} bytes, at most {TITLE_BYTES_MAX} fit; put the rest into the description"
        ))),
        _ => Ok(line),
    }
}

fn description(text: String) -> Result<String, TaskError> {
    if text.len() > DESCRIPTION_BYTES_MAX {
        let length = text.len();
        return Err(TaskError::Invalid(format!(
            "the description has {length} bytes, at most {DESCRIPTION_BYTES_MAX} fit"
        )));
    }
    Ok(text)
}

fn subtasks(all: Vec<Subtask>) -> Result<Vec<Subtask>, TaskError> {
    if all.len() > SUBTASKS_MAX {
        return Err(TaskError::Invalid(format!("{} subtasks, at most {SUBTASKS_MAX} fit", all.len())));
    }
    all.into_iter().map(|subtask| Ok(Subtask { title: title(&subtask.title)?, ..subtask })).collect()
}
