//! The end of a turn's run, live or from its journal: what is said, from how it ended and what it was about.

use rig_agent::run::AgentRun;
use serde_json::json;

use super::{heard_by_nobody, outcome, said};
use crate::agent::driver::{Driver, Ended};
use crate::event::How;
use crate::message::Content;
use crate::tools::speech::Speech;

/// What decides, besides the run, what a turn says.
#[derive(Default)]
pub(in crate::agent) struct About {
    pub(in crate::agent) direct: bool,
    /// It is the turn of a job.
    pub(in crate::agent) visit: bool,
    /// Somebody named the agent or answered it.
    pub(in crate::agent) addressed: bool,
    /// Platform id of the latest message.
    pub(in crate::agent) newest: Option<String>,
    /// Before which effect a newer message came, and which was the newest until then.
    pub(in crate::agent) heard: Vec<(usize, String)>,
}

impl About {
    /// The message that was the newest when this effect was told.
    pub(super) fn newest_at(&self, effect: usize) -> Option<String> {
        let earlier = self.heard.iter().find(|(effects, _)| effect < *effects);
        let earlier = earlier.map(|(_, newest)| newest.clone());
        earlier.or_else(|| self.newest.clone()).filter(|id| !id.is_empty())
    }
}

/// What the turn says and, if it is a job's, its outcome; writes the end.
pub(in crate::agent) fn conclude(
    driver: &mut Driver<'_>,
    ended: Ended,
    run: &AgentRun,
    about: &About,
    speech: &Speech,
) -> Result<(Vec<Content>, Option<String>), How> {
    let outcome = outcome(&driver.desk).filter(|_| about.visit);
    let say = match about.visit {
        true => heard_by_nobody(ended, outcome.is_some())?,
        false => said(ended, &driver.desk, about, speech)?,
    };
    let came_to = json!({ "say": say, "outcome": outcome });
    let end = json!({ "say": say.len(), "started": driver.desk.started, "addressed": about.addressed });
    driver.end(end, &came_to, &run.full_history());
    Ok((say, outcome))
}
