//! An answer that is made elsewhere: the worker that took the request goes on to others, and whoever
//! holds the promise answers from any thread.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::table::Token;
use super::worker::internal_error;
use super::{Response, ServerHandle};
use crate::thread::lock;

/// The handler's half, for `Outcome::Later`; see [`promise`].
pub struct Later {
    pub(super) wait: Duration,
    pub(super) late: fn() -> Response,
    /// The wait is over.
    pub(super) is_overdue: bool,
    pub(super) cell: Arc<Cell>,
}

/// The half of whoever answers. Dropped without an answer, it answers with an internal error.
pub struct Promise(Option<Arc<Cell>>);

/// A request and who answers it. `late` is the answer when `wait` after the request had come in
/// there is no other; what comes after that is dropped.
pub fn promise(wait: Duration, late: fn() -> Response) -> (Promise, Later) {
    let cell = Arc::new(Cell(Mutex::new(State::New)));
    (Promise(Some(cell.clone())), Later { wait, late, is_overdue: false, cell })
}

impl Later {
    /// The answer if it is there already, for tests of handlers.
    pub fn answer(self) -> Option<Response> {
        self.cell.close()
    }
}

pub(super) struct Cell(Mutex<State>);

enum State {
    /// Neither is the connection in the table nor the answer there.
    New,
    /// The connection lies in the table and is to be told.
    Awaited(ServerHandle, Token),
    Kept(Response),
    Over,
}

impl Promise {
    /// Does not block.
    pub fn keep(mut self, response: Response) {
        self.give(response);
    }

    fn give(&mut self, response: Response) {
        let Some(cell) = self.0.take() else { return };
        let mut state = lock(&cell.0);
        match std::mem::replace(&mut *state, State::Over) {
            State::New => *state = State::Kept(response),
            State::Awaited(server, token) => {
                *state = State::Kept(response);
                drop(state);
                server.0.answered(token);
            }
            State::Kept(_) | State::Over => {}
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.0.is_some() {
            log::error!("an HTTP request was left without an answer");
            self.give(internal_error());
        }
    }
}

impl Cell {
    /// The answer, if it is there. Else `put` lays the connection into the table, and the promise
    /// finds it there.
    pub(super) fn take_or(
        &self,
        server: &ServerHandle,
        token: Token,
        put: impl FnOnce(),
    ) -> Option<Response> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Over) {
            State::Kept(response) => Some(response),
            _ => {
                put();
                *state = State::Awaited(server.clone(), token);
                None
            }
        }
    }

    /// The answer, if it came in time; what comes later is dropped.
    pub(super) fn close(&self) -> Option<Response> {
        match std::mem::replace(&mut *lock(&self.0), State::Over) {
            State::Kept(response) => Some(response),
            _ => None,
        }
    }
}
