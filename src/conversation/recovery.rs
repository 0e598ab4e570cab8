//! After a start: what a crash or a stop cut off is set right, once.

use super::{Conversations, CutOff, Recovered, Resumed, Verdict, history, outbox, runs};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::Connection;

impl Conversations {
    /// After a start: runs that a crash cut off are marked as interrupted, sends that were under way
    /// as unknown (P2); then every conversation with work to do is listed.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn recover(&self, interrupted: &str) -> Result<Recovered, DbError> {
        self.recover_and(interrupted, |_, _, _| Ok(Verdict::default()))
    }

    /// As [`Conversations::recover`]; `judge` gets the runs that were cut off, says which of them go on, and
    /// writes in the same transaction what depends on them.
    ///
    /// # Errors
    /// As there.
    pub fn recover_and(
        &self,
        interrupted: &str,
        judge: impl FnOnce(&Connection, &[CutOff], Timestamp) -> Result<Verdict, DbError> + Send + 'static,
    ) -> Result<Recovered, DbError> {
        let now = self.now();
        let text = interrupted.to_owned();
        let (runs_cut_off, sends_cut_off) = self
            .db
            .read(|connection| Ok((runs::any_running(connection)?, outbox::any_sending(connection)?)))?;
        let (resumed, unknown_sends) = if runs_cut_off || sends_cut_off {
            self.db.write(move |connection| {
                let cut_off = runs::running(connection)?;
                let verdict = judge(connection, &cut_off, now)?;
                let (mut resumed, mut named) = (Vec::new(), Vec::new());
                for run in cut_off {
                    let place = history::place(connection, &run.conversation)?;
                    match place.filter(|_| verdict.go_on.contains(&run.process)) {
                        Some(place) => {
                            runs::go_on(connection, &run)?;
                            resumed.push(Resumed { run, place });
                        }
                        None => {
                            if runs::interrupt(connection, &run, &text, now)? {
                                named.push(run.process.number);
                            }
                        }
                    }
                }
                // Whoever wrote to it hears that nobody has read that, although the task is tried again.
                let quiet = verdict.quiet.into_iter().filter(|worker| !named.contains(worker));
                for worker in quiet {
                    runs::hush(connection, worker)?;
                }
                Ok((resumed, outbox::forget_sending(connection, now)?))
            })?
        } else {
            (Vec::new(), 0)
        };
        Ok(Recovered { unfinished: self.unfinished()?, unknown_sends, runs_cut_off, resumed })
    }
}
