//! The table `tasks`.

use super::attempts;
use super::{
    Actor, Asked, Change, Changed, Filter, LISTED_MAX, NewTask, OPEN_TASKS_MAX, Priority, Status, Task,
};
use super::{AttemptEnd, TaskError};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::types::Value;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use crate::id::{AgentId, ConversationId, InstanceId, ProcessId, ProcessKind};
use crate::message::Place;

const COLUMNS: &str = "number, title, description, status, priority, subtasks, metadata, revision, attempts, worker,
    conversation_id, instance, direct, place, created_by, approved_by, result, created_at, updated_at, completed_at, asked_by, asked_key, retry_at";

/// The order of work.
const ORDER: &str =
    "CASE priority WHEN 'critical' THEN 0 WHEN 'high' THEN 1 WHEN 'medium' THEN 2 ELSE 3 END, number";

fn damaged(what: &str) -> DbError {
    DbError::Corrupt(format!("task board: {what}"))
}

/// A row before what is written in it as text has been understood.
type Raw = (Task, String, String, String, String, String, Option<String>);

fn raw(row: &Row<'_>) -> Result<Raw, crate::db::rusqlite::Error> {
    let place = match row.get::<_, Option<String>>(10)? {
        Some(conversation) => Some(Place {
            conversation: ConversationId::new(conversation),
            instance: InstanceId::new(row.get_ref(11)?.as_str()?),
            direct: row.get(12)?,
            name: row.get(13)?,
        }),
        None => None,
    };
    let task = Task {
        number: row.get(0)?,
        title: row.get(1)?,
        description: row.get(2)?,
        status: Status::Backlog,
        priority: Priority::Medium,
        subtasks: Vec::new(),
        metadata: super::Metadata::new(),
        revision: row.get(7)?,
        attempts: row.get(8)?,
        worker: row.get(9)?,
        place,
        created_by: Actor::Operator,
        approved_by: None,
        result: row.get(16)?,
        asked: match row.get::<_, Option<String>>(20)? {
            Some(by) => Some(Asked { by: AgentId::new(by), key: row.get(21)? }),
            None => None,
        },
        retry_at: row.get::<_, Option<i64>>(22)?.map(Timestamp),
        created_at: Timestamp(row.get(17)?),
        updated_at: Timestamp(row.get(18)?),
        completed_at: row.get::<_, Option<i64>>(19)?.map(Timestamp),
    };
    Ok((task, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?, row.get(14)?, row.get(15)?))
}

fn understood(raw: Raw) -> Result<Task, DbError> {
    let (task, status, priority, subtasks, metadata, created_by, approved_by) = raw;
    Ok(Task {
        status: Status::parse(&status).ok_or_else(|| damaged(&status))?,
        priority: Priority::parse(&priority).ok_or_else(|| damaged(&priority))?,
        subtasks: serde_json::from_str(&subtasks).map_err(|error| damaged(&error.to_string()))?,
        metadata: serde_json::from_str(&metadata).map_err(|error| damaged(&error.to_string()))?,
        created_by: actor(&created_by)?,
        approved_by: approved_by.as_deref().map(actor).transpose()?,
        ..task
    })
}

fn actor(text: &str) -> Result<Actor, DbError> {
    let process = |text: &str| {
        let (kind, number) = text.split_once(':')?;
        let kinds = [ProcessKind::Channel, ProcessKind::Branch, ProcessKind::Worker];
        let kind = kinds.into_iter().find(|known| known.as_str() == kind)?;
        Some(Actor::Process(ProcessId::new(kind, number.parse().ok()?)))
    };
    match text.split_once(':') {
        None if text == "operator" => Ok(Actor::Operator),
        Some(("agent", name)) => Ok(Actor::Agent(AgentId::new(name))),
        Some(("person", name)) => Ok(Actor::Person(name.to_owned())),
        Some(("process", rest)) => process(rest).ok_or_else(|| damaged(text)),
        _ => Err(damaged(text)),
    }
}

pub(super) fn get(connection: &Connection, number: u64) -> Result<Option<Task>, DbError> {
    let Ok(number) = i64::try_from(number) else { return Ok(None) };
    let sql = format!("SELECT {COLUMNS} FROM tasks WHERE number = ?1");
    connection.prepare_cached(&sql)?.query_row([number], raw).optional()?.map(understood).transpose()
}

pub(super) fn list(connection: &Connection, filter: &Filter) -> Result<Vec<Task>, DbError> {
    let mut values: Vec<Value> = Vec::new();
    let mut conditions = vec!["true".to_owned()];
    let mut only = |condition: &str, value: Option<Value>| {
        if let Some(value) = value {
            values.push(value);
            conditions.push(format!("{condition} ?{}", values.len()));
        }
    };
    let text = |text: &str| Value::Text(text.to_owned());
    only("status =", filter.status.map(|status| text(status.as_str())));
    only("priority =", filter.priority.map(|priority| text(priority.as_str())));
    only("conversation_id =", filter.conversation.as_deref().map(text));
    only("updated_at >=", filter.since.map(|since| Value::Integer(since.0)));
    if filter.open {
        conditions.push("status NOT IN ('done', 'failed')".to_owned());
    }
    let limit = filter.limit.min(LISTED_MAX);
    let sql = format!(
        "SELECT {COLUMNS} FROM tasks WHERE {} ORDER BY {ORDER} LIMIT {limit}",
        conditions.join(" AND ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), raw)?.collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().map(understood).collect()
}

/// Those that are ready, last those that still pause.
pub(super) fn ready(connection: &Connection, now: Timestamp, limit: usize) -> Result<Vec<Task>, DbError> {
    let limit = limit.min(LISTED_MAX);
    let sql = format!(
        "SELECT {COLUMNS} FROM tasks WHERE status = 'ready'
         ORDER BY coalesce(retry_at, 0) > ?1, {ORDER} LIMIT {limit}"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([now.0], raw)?.collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().map(understood).collect()
}

pub(super) fn counts(connection: &Connection) -> Result<Vec<(Status, usize)>, DbError> {
    let mut statement = connection.prepare_cached("SELECT status, count(*) FROM tasks GROUP BY status")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let found = rows.collect::<Result<Vec<(String, usize)>, _>>()?;
    let count = |status: Status| {
        let (_, count) = found.iter().find(|(name, _)| name == status.as_str())?;
        Some((status, *count))
    };
    Ok(Status::ALL.into_iter().filter_map(count).collect())
}

/// Puts a task onto the board.
///
/// # Errors
/// As [`change`].
pub fn create(
    connection: &Connection,
    new: NewTask,
    now: Timestamp,
) -> Result<Result<Changed, TaskError>, DbError> {
    let new = match new.checked() {
        Ok(new) => new,
        Err(refused) => return Ok(Err(refused)),
    };
    let open: usize = connection
        .prepare_cached("SELECT count(*) FROM tasks WHERE status NOT IN ('done', 'failed')")?
        .query_row([], |row| row.get(0))?;
    if open >= OPEN_TASKS_MAX {
        return Ok(Err(TaskError::Full(OPEN_TASKS_MAX)));
    }
    let sql = "INSERT INTO tasks (title, description, status, priority, subtasks, metadata, conversation_id, instance,
                   direct, place, created_by, approved_by, approved_at, created_at, updated_at,
                   asked_by, asked_key)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, ?15, ?16) RETURNING number";
    let place = new.place.as_ref();
    let approved = new.status == Status::Ready;
    let values = params![
        new.title,
        new.description,
        new.status.as_str(),
        new.priority.as_str(),
        json(&new.subtasks)?,
        json(&new.metadata)?,
        place.map(|place| place.conversation.as_str()),
        place.map(|place| place.instance.as_str()),
        place.map(|place| place.direct),
        place.map(|place| place.name.as_str()),
        new.by.to_string(),
        approved.then(|| new.by.to_string()),
        approved.then_some(now.0),
        now.0,
        new.asked.as_ref().map(|asked| asked.by.as_str()),
        new.asked.as_ref().map(|asked| asked.key.as_str()),
    ];
    let number: u64 = connection.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
    let task = get(connection, number)?.ok_or_else(|| damaged("a new task is not there"))?;
    Ok(Ok(Changed::between(Status::PendingApproval, task, now)))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, DbError> {
    serde_json::to_string(value).map_err(|error| DbError::Sql(error.to_string()))
}

/// Changes one task within the caller's transaction. Nothing is written when it is refused.
///
/// # Errors
/// Outer: the database; inner: what the board says.
pub fn change(
    connection: &Connection,
    number: u64,
    change: Change,
    by: &Actor,
    now: Timestamp,
) -> Result<Result<Changed, TaskError>, DbError> {
    let Some(before) = get(connection, number)? else { return Ok(Err(TaskError::NotFound(number))) };
    let mut task = match change.apply(&before, by) {
        Ok(task) => task,
        Err(refused) => return Ok(Err(refused)),
    };
    if task == before {
        return Ok(Ok(Changed { task, before: before.status, news: Vec::new() }));
    }
    let moved = task.status != before.status;
    if moved && before.status == Status::InProgress {
        attempts::end_live(connection, number, AttemptEnd::Cancelled, None, now)?;
        task.worker = None;
    }
    if moved && task.status == Status::Ready {
        task.attempts = 0;
        task.approved_by = Some(by.clone());
        set_approved_at(connection, number, now)?;
    }
    save(connection, &mut task, before.revision, now)?;
    Ok(Ok(Changed::between(before.status, task, now)))
}

/// Makes a task ready that waits, was put aside, has failed, or pauses after a failure. One that is ready, in
/// progress or done stays as it is, so that the same approval may come twice.
///
/// # Errors
/// As [`change`].
pub fn approve(
    connection: &Connection,
    number: u64,
    by: &Actor,
    now: Timestamp,
) -> Result<Result<Changed, TaskError>, DbError> {
    match get(connection, number)? {
        Some(task)
            if task.retry_at.is_none()
                && matches!(task.status, Status::Ready | Status::InProgress | Status::Done) =>
        {
            Ok(Ok(Changed { before: task.status, task, news: Vec::new() }))
        }
        _ => change(connection, number, Change::to(Status::Ready), by, now),
    }
}

/// Puts a task aside that is not over; its worker stops.
///
/// # Errors
/// As [`change`].
pub fn cancel(
    connection: &Connection,
    number: u64,
    by: &Actor,
    now: Timestamp,
) -> Result<Result<Changed, TaskError>, DbError> {
    match get(connection, number)? {
        Some(task) if task.status.is_over() => {
            let status = task.status.as_str();
            Ok(Err(TaskError::Invalid(format!("task {number} is {status}: there is nothing to cancel"))))
        }
        _ => change(connection, number, Change::to(Status::Backlog), by, now),
    }
}

fn set_approved_at(connection: &Connection, number: u64, now: Timestamp) -> Result<(), DbError> {
    let sql = "UPDATE tasks SET approved_at = ?2 WHERE number = ?1";
    connection.prepare_cached(sql)?.execute(params![number, now.0])?;
    Ok(())
}

/// Writes the task over its `revision`; refused if it is another by now.
pub(super) fn save(
    connection: &Connection,
    task: &mut Task,
    revision: u64,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "UPDATE tasks SET title = ?3, description = ?4, status = ?5, priority = ?6, subtasks = ?7, metadata = ?8,
                   attempts = ?9, worker = ?10, approved_by = ?11, result = ?12, updated_at = ?13, completed_at = ?14,
                   retry_at = ?15, revision = revision + 1
               WHERE number = ?1 AND revision = ?2";
    task.revision = revision + 1;
    task.updated_at = now;
    task.completed_at = match task.status.is_over() {
        true => Some(task.completed_at.unwrap_or(now)),
        false => None,
    };
    let changed = connection.prepare_cached(sql)?.execute(params![
        task.number,
        revision,
        task.title,
        task.description,
        task.status.as_str(),
        task.priority.as_str(),
        json(&task.subtasks)?,
        json(&task.metadata)?,
        task.attempts,
        task.worker,
        task.approved_by.as_ref().map(Actor::to_string),
        task.result,
        now.0,
        task.completed_at.map(|at| at.0),
        task.retry_at.map(|at| at.0),
    ])?;
    if changed == 1 {
        return Ok(());
    }
    Err(DbError::Refused(format!("task {} was changed meanwhile", task.number)))
}
