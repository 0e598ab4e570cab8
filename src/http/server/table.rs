//! Where connections lie while nobody serves them, and who is parked for what.
//!
//! A connection is either in the table and armed for one event, or in the hand of the one thread
//! that took it. The lock is held for a few lines at a time, never over a read, a write, a handler
//! or the end of a connection (which may run a handler's callback).

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::connection::{Connection, Phase};
use super::{Handler, Later, Limits, Response, ServerHandle, ServerOptions};
use crate::clock::{SharedClock, Timestamp};
use crate::thread::{Cancel, CloserGuard, lock};

/// Connections over the limit that may wait for their 503 to be read; more are just closed.
const SPARE_CONNECTIONS: usize = 32;
/// How long a client may take to notice that its answer came early.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away meanwhile.
const DRAIN_BYTES: usize = 4 << 20;
/// Wakes are remembered per hash of their key: a few collisions cost a needless look, a list of
/// keys would have to be bounded and cleaned.
const WAKE_BUCKETS: usize = 64;
/// Never the number of a connection.
const ENDED: u64 = u64::MAX;
const NEVER: Duration = Duration::MAX;

/// Names a connection: the place in the table, and a serial number against late events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Token {
    index: usize,
    serial: u32,
}

impl Token {
    fn to_event(self) -> u64 {
        u64::from(self.serial) << 32 | self.index as u64
    }

    fn from_event(data: u64) -> Self {
        let low = data & u64::from(u32::MAX);
        Self {
            index: usize::try_from(low).unwrap_or_default(),
            serial: u32::try_from(data >> 32).unwrap_or_default(),
        }
    }
}

/// What a worker gets to do.
pub(super) enum Job {
    Serve(Box<Connection>, EpollFlags),
    /// An event for a connection that is gone or in another hand.
    Nothing,
    End,
}

/// Why a request was not parked; it is to be dispatched again.
pub(super) struct NotParked {
    pub(super) connection: Box<Connection>,
    pub(super) expired: bool,
}

pub(super) struct Shared {
    pub(super) clock: SharedClock,
    pub(super) cancel: Cancel,
    pub(super) limits: Limits,
    /// Bytes held by all connections, see `Reservation`.
    pub(super) held: Arc<AtomicUsize>,
    /// Wakes the accepting thread.
    pub(super) nudge: Arc<EventFd>,
    epoll: Epoll,
    /// Readable for every worker once the server has ended.
    ended: EventFd,
    wakes: AtomicU64,
    table: Mutex<Table>,
    _stop_nudge: CloserGuard,
}

#[derive(Default)]
struct Slot {
    serial: u32,
    /// None while free or in hand.
    connection: Option<Box<Connection>>,
}

struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    open: usize,
    parked: usize,
    /// When the accepting thread looks at the deadlines next.
    next_check: Duration,
    stopping: bool,
    finished: bool,
    /// The number of the last wake, per bucket.
    last_wake: [u64; WAKE_BUCKETS],
}

impl Shared {
    pub(super) fn new(options: ServerOptions) -> nix::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let ended = EventFd::from_flags(flags)?;
        epoll.add(&ended, EpollEvent::new(EpollFlags::EPOLLIN, ENDED))?;
        let nudge = Arc::new(EventFd::from_flags(flags)?);
        let nudged = nudge.clone();
        let ServerOptions { clock, cancel, limits } = options;
        let stop_nudge = cancel.on_cancel(move || {
            // A full counter means that the thread is nudged already.
            nudged.write(1).ok();
        });
        let table = Table {
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            parked: 0,
            next_check: NEVER,
            stopping: false,
            finished: false,
            last_wake: [0; WAKE_BUCKETS],
        };
        Ok(Self {
            clock,
            cancel,
            limits,
            held: Arc::default(),
            nudge,
            epoll,
            ended,
            wakes: AtomicU64::new(0),
            table: Mutex::new(table),
            _stop_nudge: stop_nudge,
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.clock.now()
    }

    fn nudge(&self) {
        // A full counter means that the thread is nudged already.
        self.nudge.write(1).ok();
    }

    /// True when one more connection would be too many.
    pub(super) fn is_full(&self) -> bool {
        lock(&self.table).open >= self.limits.connections
    }

    /// A new connection; `is_refused` when its answer is written already.
    pub(super) fn admit(&self, stream: TcpStream, handler: Arc<dyn Handler>, is_refused: bool) {
        let now = self.now();
        let (phase, deadline) = match is_refused {
            true => Self::draining(now),
            false => (Phase::Reading, now + self.limits.idle_time),
        };
        let mut connection = Box::new(Connection::new(stream, handler, phase, deadline));
        let mut table = lock(&self.table);
        if table.open >= self.limits.connections + SPARE_CONNECTIONS {
            drop(table);
            return;
        }
        let index = table.free.pop().unwrap_or_else(|| {
            table.slots.push(Slot::default());
            table.slots.len() - 1
        });
        let slot = &mut table.slots[index];
        connection.token = Token { index, serial: slot.serial };
        let event = event(EpollFlags::EPOLLIN, connection.token);
        let added = self.epoll.add(&connection.stream, event);
        slot.connection = Some(connection);
        table.open += 1;
        if let Err(error) = added {
            let refused = table.remove(index);
            drop(table);
            log::warn!("a connection cannot be watched and is closed: {error}");
            drop(refused);
        }
    }

    pub(super) fn draining(now: Duration) -> (Phase, Duration) {
        (Phase::Draining { left: DRAIN_BYTES }, now + DRAIN_TIME)
    }

    /// Waits for the next event of any connection.
    pub(super) fn next_job(&self) -> Job {
        // One event at a time, so that the others go to the other workers.
        let mut events = [EpollEvent::empty()];
        match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(0) | Err(nix::Error::EINTR) => return Job::Nothing,
            Ok(_) => {}
            Err(error) => {
                log::error!("the HTTP server cannot wait for its connections: {error}");
                return Job::End;
            }
        }
        if events[0].data() == ENDED {
            return Job::End;
        }
        match lock(&self.table).take(Token::from_event(events[0].data())) {
            Some(connection) => Job::Serve(connection, events[0].events()),
            None => Job::Nothing,
        }
    }

    /// Puts a connection back, armed for `interest`, with its phase and deadline set.
    pub(super) fn give(&self, connection: Box<Connection>, interest: EpollFlags) {
        let mut table = lock(&self.table);
        let is_idle = matches!(connection.phase, Phase::Reading) && connection.buffer.is_empty();
        let (token, deadline) = (connection.token, connection.deadline);
        let unwanted = if table.finished || (table.stopping && is_idle) {
            table.release(token.index);
            Some(connection)
        } else {
            table.put(connection);
            self.arm(&mut table, token, interest).err()
        };
        let must_nudge = deadline < table.next_check || (table.stopping && table.open == 0);
        table.next_check = table.next_check.min(deadline);
        drop(table);
        drop(unwanted);
        if must_nudge {
            self.nudge();
        }
    }

    /// Ends a connection that is in hand.
    pub(super) fn close(&self, connection: Box<Connection>) {
        let mut table = lock(&self.table);
        table.release(connection.token.index);
        let is_last = table.stopping && table.open == 0;
        drop(table);
        drop(connection);
        if is_last {
            self.nudge();
        }
    }

    /// Arms a connection that lies in the table; on failure it is taken out again.
    fn arm(&self, table: &mut Table, token: Token, interest: EpollFlags) -> Result<(), Box<Connection>> {
        let Some(connection) = &table.slots[token.index].connection else { return Ok(()) };
        match self.epoll.modify(&connection.stream, &mut event(interest, token)) {
            Ok(()) => Ok(()),
            Err(error) => {
                log::warn!("a connection cannot be watched and is closed: {error}");
                table.remove(token.index).map_or(Ok(()), Err)
            }
        }
    }

    /// To be read before the handler looks; see [`Shared::park`].
    pub(super) fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }

    /// Parks a request, unless a wake for its key came after `seen` was read, there is no room, or
    /// the server stops.
    pub(super) fn park(
        &self,
        mut connection: Box<Connection>,
        key: String,
        expires: Duration,
        seen: u64,
    ) -> Option<NotParked> {
        connection.buffer.shrink();
        connection.deadline = expires;
        let mut table = lock(&self.table);
        if table.stopping || table.parked >= self.limits.parked {
            return Some(NotParked { connection, expired: true });
        }
        if table.last_wake[bucket(&key)] > seen {
            return Some(NotParked { connection, expired: false });
        }
        let token = connection.token;
        connection.phase = Phase::Parked { key, seen };
        table.put(connection);
        // While parked only the end of the client is of interest: nobody would read the answer.
        let lost = self.arm(&mut table, token, EpollFlags::EPOLLRDHUP).err();
        let must_nudge = expires < table.next_check;
        table.next_check = table.next_check.min(expires);
        drop(table);
        drop(lost);
        if must_nudge {
            self.nudge();
        }
        None
    }

    /// Lays a request down until it is answered; gives it back with the answer when that is there.
    /// Not armed: the client's end is of no interest meanwhile, and the wait is short.
    pub(super) fn await_answer(
        &self,
        server: &ServerHandle,
        mut connection: Box<Connection>,
        later: Later,
    ) -> Option<(Box<Connection>, Response)> {
        let (token, deadline, cell) = (connection.token, connection.deadline, later.cell.clone());
        connection.phase = Phase::Awaiting(later);
        let mut in_hand = Some(connection);
        let mut must_nudge = false;
        let response = cell.take_or(server, token, || {
            let mut table = lock(&self.table);
            if let Some(connection) = in_hand.take() {
                table.put(connection);
            }
            must_nudge = deadline < table.next_check;
            table.next_check = table.next_check.min(deadline);
        });
        if must_nudge {
            self.nudge();
        }
        let (mut connection, response) = in_hand.zip(response)?;
        connection.phase = Phase::Reading;
        Some((connection, response))
    }

    /// Lets a worker write the answer of a request that [`Shared::await_answer`] laid down.
    pub(super) fn answered(&self, token: Token) {
        let mut table = lock(&self.table);
        let awaits = |connection: &Connection| {
            connection.token == token && matches!(connection.phase, Phase::Awaiting(_))
        };
        let slot = table.slots.get(token.index);
        let lost = slot
            .is_some_and(|slot| slot.connection.as_deref().is_some_and(awaits))
            .then(|| self.arm(&mut table, token, EpollFlags::EPOLLOUT).err());
        drop(table);
        drop(lost);
    }

    pub(super) fn wake(&self, key: &str) {
        let mut table = lock(&self.table);
        // Counted under the lock: a request that is parked later finds it in `last_wake`, one that
        // is parked already is found below.
        let number = self.wakes.fetch_add(1, Ordering::SeqCst) + 1;
        table.last_wake[bucket(key)] = number;
        if table.parked == 0 {
            return;
        }
        let lost = self.unpark(
            &mut table,
            false,
            |connection| matches!(&connection.phase, Phase::Parked { key: parked, .. } if parked == key),
        );
        drop(table);
        drop(lost);
    }

    /// Makes the parked connections that `choose` names ready for a worker: a socket with room to
    /// write is an event, so that no other queue is needed.
    fn unpark(
        &self,
        table: &mut Table,
        expired: bool,
        choose: impl Fn(&Connection) -> bool,
    ) -> Vec<Connection> {
        let mut lost = Vec::new();
        let deadline = self.now() + self.limits.idle_time;
        for index in 0..table.slots.len() {
            let Some(connection) = &mut table.slots[index].connection else { continue };
            if !matches!(connection.phase, Phase::Parked { .. }) || !choose(connection) {
                continue;
            }
            connection.phase = Phase::Ready { expired };
            connection.deadline = deadline;
            let token = connection.token;
            table.parked -= 1;
            let armed = self.arm(table, token, EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP);
            lost.extend(armed.err().map(|connection| *connection));
        }
        lost
    }

    /// Dispatches parked requests whose time is over, lets late answers be told, takes out every other connection whose time
    /// is over, and says when to look again.
    pub(super) fn sweep(&self) -> (Vec<Connection>, Option<Duration>) {
        let now = self.now();
        let mut table = lock(&self.table);
        let mut expired = self.unpark(&mut table, true, |connection| connection.deadline <= now);
        let mut next = NEVER;
        let told_by = now + self.limits.response_time;
        for index in 0..table.slots.len() {
            let Some(connection) = &mut table.slots[index].connection else { continue };
            let token = connection.token;
            if connection.deadline > now {
                next = next.min(connection.deadline);
            } else if let Phase::Awaiting(later) = &mut connection.phase {
                later.is_overdue = true;
                connection.deadline = told_by;
                next = next.min(told_by);
                let armed = self.arm(&mut table, token, EpollFlags::EPOLLOUT);
                expired.extend(armed.err().map(|connection| *connection));
            } else {
                expired.extend(table.remove(index).map(|connection| *connection));
            }
        }
        table.next_check = next;
        (expired, (next != NEVER).then_some(next))
    }

    /// From now on: no idle connections, parked requests are answered with what there is. Returns
    /// the connections to close.
    pub(super) fn begin_stop(&self) -> Vec<Connection> {
        let mut table = lock(&self.table);
        table.stopping = true;
        let mut unwanted = self.unpark(&mut table, true, |_| true);
        for index in 0..table.slots.len() {
            let is_idle = table.slots[index].connection.as_ref().is_some_and(|connection| {
                matches!(connection.phase, Phase::Reading) && connection.buffer.is_empty()
            });
            if is_idle {
                unwanted.extend(table.remove(index).map(|connection| *connection));
            }
        }
        unwanted
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.cancel.is_cancelled()
    }

    pub(super) fn open_connections(&self) -> usize {
        lock(&self.table).open
    }

    #[cfg(test)]
    pub(super) fn parked_requests(&self) -> usize {
        lock(&self.table).parked
    }

    /// Closes what is left in the table and ends the workers.
    pub(super) fn finish(&self) {
        let mut table = lock(&self.table);
        table.stopping = true;
        table.finished = true;
        let rest: Vec<_> = (0..table.slots.len()).filter_map(|index| table.remove(index)).collect();
        drop(table);
        drop(rest);
        // Never read again, so that it stays readable for every worker.
        self.ended.write(1).ok();
    }
}

impl Table {
    fn take(&mut self, token: Token) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(token.index).filter(|slot| slot.serial == token.serial)?;
        let connection = slot.connection.take()?;
        self.parked -= usize::from(matches!(connection.phase, Phase::Parked { .. }));
        Some(connection)
    }

    fn put(&mut self, connection: Box<Connection>) {
        self.parked += usize::from(matches!(connection.phase, Phase::Parked { .. }));
        let index = connection.token.index;
        self.slots[index].connection = Some(connection);
    }

    /// Takes a connection that lies in the table out for good.
    fn remove(&mut self, index: usize) -> Option<Box<Connection>> {
        let connection = self.slots[index].connection.take()?;
        self.parked -= usize::from(matches!(connection.phase, Phase::Parked { .. }));
        self.release(index);
        Some(connection)
    }

    /// Frees the place of a connection that is not in the table any more.
    fn release(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.serial = slot.serial.wrapping_add(1);
        self.free.push(index);
        self.open -= 1;
    }
}

fn event(interest: EpollFlags, token: Token) -> EpollEvent {
    EpollEvent::new(interest | EpollFlags::EPOLLONESHOT, token.to_event())
}

fn bucket(key: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % WAKE_BUCKETS as u64).unwrap_or_default()
}
