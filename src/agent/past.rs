//! What a run saw of its conversation, by the ids of what it saw, so that it can be read again: by a
//! branch that forks from a turn, and by a replay.

use rig_core::completion::Message;
use serde_json::{Value, json};

use super::prompt;
use crate::conversation::{Conversations, Summary};
use crate::db::DbError;
use crate::id::ConversationId;

/// Summaries in front, lines behind them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) summaries: Vec<i64>,
    /// Those of the summaries that had no text yet; they may have one by now.
    pub(super) markers: Vec<i64>,
    /// The first and the last line.
    pub(super) lines: Option<(i64, i64)>,
}

impl Past {
    pub(super) fn of(summaries: &[Summary], lines: Option<(i64, i64)>) -> Self {
        let markers = summaries.iter().filter(|one| one.text.is_none()).map(|one| one.id).collect();
        Self { summaries: summaries.iter().map(|one| one.id).collect(), markers, lines }
    }

    pub(super) fn messages(
        &self,
        conversations: &Conversations,
        conversation: &ConversationId,
    ) -> Result<Vec<Message>, DbError> {
        let lines = match self.lines {
            Some((first, last)) => conversations.lines(conversation, first, last)?,
            None => Vec::new(),
        };
        let mut summaries = conversations.summaries(&self.summaries)?;
        for summary in summaries.iter_mut().filter(|one| self.markers.contains(&one.id)) {
            summary.text = None;
        }
        Ok(summaries.iter().map(prompt::summary).chain(lines.iter().map(prompt::line)).collect())
    }

    /// Puts it into what a run was started with.
    pub(super) fn write(&self, start: &mut Value) {
        start["summaries"] = json!(self.summaries);
        if !self.markers.is_empty() {
            start["markers"] = json!(self.markers);
        }
        if let Some(lines) = self.lines {
            start["lines"] = json!(lines);
        }
    }

    pub(super) fn read(start: &Value) -> Self {
        let ids = |key: &str| {
            start[key].as_array().into_iter().flatten().filter_map(Value::as_i64).collect::<Vec<i64>>()
        };
        let lines = match ids("lines")[..] {
            [first, last] => Some((first, last)),
            _ => None,
        };
        Self { summaries: ids("summaries"), markers: ids("markers"), lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let past = Past { summaries: vec![3, 4], markers: vec![4], lines: Some((7, 9)) };
        for past in [past, Past::default()] {
            let mut start = json!({ "kind": "channel" });
            past.write(&mut start);
            assert_eq!(Past::read(&start), past);
        }
    }
}
