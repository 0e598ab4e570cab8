//! Open batches of the server: a replayed history, or the responses to one labelled line.

use super::super::grammar::Message;

/// Open at once; the oldest is forgotten beyond that.
const MAX_OPEN: usize = 8;
/// Kinds of batch that hold what was said before, by what their names end with
/// (`chathistory`, `draft/chathistory`, `znc.in/playback`).
const HISTORY: [&str; 2] = ["chathistory", "playback"];

#[derive(Debug, Default)]
pub(super) struct Batches(Vec<Batch>);

#[derive(Debug)]
struct Batch {
    reference: String,
    history: bool,
    label: Option<String>,
}

impl Batches {
    pub(super) fn handle(&mut self, message: &Message) {
        let reference = message.param(0);
        if let Some(ended) = reference.strip_prefix('-') {
            self.0.retain(|batch| batch.reference != ended);
        } else if let Some(begun) = reference.strip_prefix('+') {
            let outer = message.tag("batch");
            let kind = message.param(1);
            let batch = Batch {
                reference: begun.to_owned(),
                history: HISTORY.iter().any(|name| kind.ends_with(name)) || self.is_history(outer),
                label: message.tag("label").or_else(|| self.label(outer)).map(str::to_owned),
            };
            if self.0.len() >= MAX_OPEN {
                self.0.remove(0);
            }
            self.0.push(batch);
        }
    }

    pub(super) fn is_history(&self, reference: Option<&str>) -> bool {
        self.find(reference).is_some_and(|batch| batch.history)
    }

    pub(super) fn label(&self, reference: Option<&str>) -> Option<&str> {
        self.find(reference)?.label.as_deref()
    }

    fn find(&self, reference: Option<&str>) -> Option<&Batch> {
        let reference = reference?;
        self.0.iter().find(|batch| batch.reference == reference)
    }
}
