//! The sockets of a transport. They differ from ureq's own in two ways: a stop request also ends a
//! connect that waits, and a transport that drains the end of a body waits briefly instead of long.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, RustlsConnector, ShutdownHandle,
    Transport,
};

use super::names::NameCache;
use super::{CONNECT_WAIT_MAX, Signal};

/// One read while draining; the rest of a body follows its last event closely or not at all.
const DRAIN_WAIT: Duration = Duration::from_millis(50);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Undialled(io::Error);

/// Opens TCP connections.
#[derive(Debug)]
pub(super) struct Dialler {
    signal: Arc<Signal>,
    names: Arc<NameCache>,
}

impl Dialler {
    pub(super) fn new(signal: Arc<Signal>, names: Arc<NameCache>) -> Self {
        Self { signal, names }
    }

    /// Tries the addresses in turn; each but the last may use half of the time that is left.
    fn dial(&self, addresses: &[SocketAddr], wait: Duration) -> io::Result<TcpStream> {
        let mut left = wait;
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (index, address) in addresses.iter().copied().enumerate() {
            let share = if index + 1 == addresses.len() { left } else { left / 2 };
            let started = self.names.now();
            let dialled = self
                .names
                .aside()
                .run("connect", share, &self.signal, move || TcpStream::connect_timeout(&address, share));
            match dialled {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
            left = left.saturating_sub(self.names.now().saturating_sub(started));
            if self.signal.is_stopped() || left.is_zero() {
                break;
            }
        }
        Err(failure)
    }
}

impl Connector<()> for Dialler {
    type Out = Socket;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Socket>, Error> {
        let wait = details.timeout.not_zero().map_or(CONNECT_WAIT_MAX, |left| *left);
        let stream = match self.dial(&details.addrs, wait) {
            Ok(stream) => Arc::new(stream),
            Err(error) => {
                // The host may have moved: the next call asks the name service again.
                self.names.forget(details.uri);
                return Err(match error.kind() {
                    io::ErrorKind::TimedOut => Error::Timeout(ureq::Timeout::Connect),
                    kind => Error::Io(io::Error::new(kind, Undialled(error))),
                });
            }
        };
        let closer = Arc::new(Closer(stream.clone()));
        let handle: Weak<dyn ShutdownHandle> = Arc::downgrade(&closer) as Weak<dyn ShutdownHandle>;
        (details.register_shutdown)(handle)?;
        Ok(Some(Socket {
            stream,
            _closer: closer,
            signal: self.signal.clone(),
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
            read_wait: None,
            write_wait: None,
        }))
    }
}

struct Closer(Arc<TcpStream>);

impl ShutdownHandle for Closer {
    fn shutdown(&self) {
        // Fails only on a socket that is closed already.
        self.0.shutdown(Shutdown::Both).ok();
    }
}

/// One TCP connection.
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// ureq holds it weakly: it lives exactly as long as the socket.
    _closer: Arc<Closer>,
    signal: Arc<Signal>,
    buffers: LazyBuffers,
    /// The waits that are set on the socket, to spare the system call when nothing changes.
    read_wait: Option<Duration>,
    write_wait: Option<Duration>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Socket").field("peer", &self.stream.peer_addr().ok()).finish()
    }
}

/// The time that is left, or the time-out error when none is.
fn left_of(timeout: NextTimeout) -> Result<Option<Duration>, Error> {
    match timeout.after.is_zero() {
        true => Err(Error::Timeout(timeout.reason)),
        false => Ok(timeout.not_zero().map(|left| *left)),
    }
}

fn timed_out_or(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let wait = left_of(timeout)?;
        if wait != self.write_wait {
            self.stream.set_write_timeout(wait)?;
            self.write_wait = wait;
        }
        let output = &self.buffers.output()[..amount];
        (&*self.stream).write_all(output).map_err(|error| timed_out_or(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let timeout = timeout.for_read();
        let mut wait = left_of(timeout)?;
        if self.signal.draining.load(Ordering::SeqCst) {
            wait = Some(wait.map_or(DRAIN_WAIT, |wait| wait.min(DRAIN_WAIT)));
        }
        if wait != self.read_wait {
            self.stream.set_read_timeout(wait)?;
            self.read_wait = wait;
        }
        let amount = loop {
            match (&*self.stream).read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| timed_out_or(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// An idle connection is open when nothing is there to be read: neither an end nor stray bytes.
    fn is_open(&mut self) -> bool {
        let look = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.stream.as_raw_fd(), &mut [0_u8; 1], look) == Err(Errno::EAGAIN)
    }
}

/// One TLS set-up for all transports: roots are parsed once, and a session that one line opened is
/// resumed by another.
#[derive(Debug)]
pub(super) struct SharedTls(pub(super) Arc<RustlsConnector>);

impl<In: Transport> Connector<In> for SharedTls {
    type Out = <RustlsConnector as Connector<In>>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        self.0.connect(details, chained)
    }
}
