//! The run of a turn, live or from its journal: from what it was started with to what is said.

use rig_core::completion::Message;
use serde_json::json;

use super::{Input, heard_by_nobody, outcome, said};
use crate::agent::driver::{Conduct, Driver};
use crate::event::How;
use crate::message::Content;
use crate::tools::speech::Speech;

/// What decides, besides the run, what a turn says.
pub(in crate::agent) struct About {
    /// Platform id of the latest message.
    pub(in crate::agent) target: Option<String>,
    pub(in crate::agent) direct: bool,
    /// It is the turn of a job.
    pub(in crate::agent) visit: bool,
}

impl About {
    pub(super) fn of(input: &Input, direct: bool, visit: bool) -> Self {
        let target = input.messages.last().map(|received| received.message.platform_id.clone());
        Self { target, direct, visit }
    }
}

/// The run of a turn, from what it was started with to what it says and, if it is a job's, its outcome.
pub(in crate::agent) fn talk(
    driver: &mut Driver<'_>,
    words: String,
    history: Vec<Message>,
    about: &About,
    speech: &Speech,
    conduct: &mut dyn Conduct,
) -> Result<(Vec<Content>, Option<String>), How> {
    let (ended, run) = driver.drive(Message::user(words), history, conduct);
    let outcome = outcome(&driver.desk).filter(|_| about.visit);
    let say = match about.visit {
        true => heard_by_nobody(ended, outcome.is_some())?,
        false => said(ended, &driver.desk, about, speech)?,
    };
    let came_to = json!({ "say": say, "outcome": outcome });
    let end = json!({ "say": say.len(), "started": driver.desk.started });
    driver.end(end, &came_to, &run.full_history());
    Ok((say, outcome))
}
