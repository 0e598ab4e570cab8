//! From the configured name to a socket that is ready to talk, without a wait that a stop cannot end.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{bounded, select};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::socket::{Behind, Socket};
use super::{Bell, IrcError};
use crate::clock::SharedClock;
use crate::config::IrcConfig;
use crate::thread::{self, Cancel};

/// For one address of the server.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// For the TLS handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);
/// Addresses of a name that are tried; more only make the wait longer.
const MAX_ADDRESSES: usize = 4;
/// For the name and all its addresses together.
const DIAL_WITHIN: Duration = Duration::from_secs(45);
/// Certificates taken from `tls_ca_file`; a whole system bundle has about 150.
const MAX_CERTIFICATES: usize = 1000;

pub(super) struct Dialer {
    name: String,
    server: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The thread of the last try; name lookups and connects cannot be interrupted.
    trying: Option<JoinHandle<()>>,
}

impl Dialer {
    pub(super) fn new(config: &IrcConfig) -> Result<Self, IrcError> {
        let wrong = |key, reason: String| {
            let instance = config.instance.clone();
            IrcError::Configuration { instance, key, reason }
        };
        let tls = if config.tls {
            let ca = config.tls_ca_file.as_deref();
            let client = client(ca).map_err(|reason| wrong("tls_ca_file", reason))?;
            let name = ServerName::try_from(config.server.clone());
            let name =
                name.map_err(|_| wrong("server", "is no name that a certificate can have".to_owned()))?;
            Some((Arc::new(client), name))
        } else {
            None
        };
        let name = format!("dial:{}", config.instance);
        Ok(Self { name, server: config.server.clone(), port: config.port, tls, trying: None })
    }

    /// `None` when the stop came first.
    pub(super) fn dial(
        &mut self,
        bell: &Bell,
        cancel: &Cancel,
        clock: &SharedClock,
    ) -> io::Result<Option<Socket>> {
        let Some(tcp) = self.connect(cancel)? else { return Ok(None) };
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        let tls = match &self.tls {
            Some((config, name)) => {
                Some(ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?)
            }
            None => None,
        };
        shake_hands(Socket::new(tcp, tls), bell, cancel, clock)
    }

    /// Looks the name up and connects on a thread of its own. After a stop that thread ends by
    /// itself, at its own time-outs, and its socket is closed with it.
    fn connect(&mut self, cancel: &Cancel) -> io::Result<Option<TcpStream>> {
        if self.trying.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Err(io::Error::other("the lookup of the server's name from before still hangs"));
        }
        let (server, port) = (self.server.clone(), self.port);
        let (found, finding) = bounded(1);
        let body = move || {
            // Nobody listens any more after a stop.
            found.send(connect(&server, port)).ok();
        };
        self.trying = Some(thread::spawn(self.name.clone(), body)?);
        select! {
            recv(finding) -> tcp => match tcp {
                Ok(tcp) => tcp.map(Some),
                Err(_) => Err(io::Error::other("the lookup of the server's name broke")),
            },
            recv(cancel.receiver()) -> _ => Ok(None),
            default(DIAL_WITHIN) => Err(io::Error::other("the lookup of the server's name hangs")),
        }
    }
}

fn connect(server: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name of the server leads to no address");
    for address in (server, port).to_socket_addrs()?.take(MAX_ADDRESSES) {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

fn shake_hands(
    mut socket: Socket,
    bell: &Bell,
    cancel: &Cancel,
    clock: &SharedClock,
) -> io::Result<Option<Socket>> {
    let until = clock.monotonic() + HANDSHAKE_WITHIN;
    loop {
        socket.flush()?;
        if !socket.is_handshaking() {
            return Ok(Some(socket));
        }
        if cancel.is_cancelled() {
            return Ok(None);
        }
        let left = until.saturating_sub(clock.monotonic());
        if left.is_zero() {
            return Err(io::Error::other("the server did not finish the TLS handshake in time"));
        }
        wait(&socket, true, bell, left);
        // No server talks before we do, and bytes after the handshake stay in the TLS buffers.
        let mut early = Vec::new();
        if socket.read(&mut early)? == Behind::End {
            return Err(io::Error::other("the server closed the connection in the TLS handshake"));
        }
        if !early.is_empty() {
            return Err(io::Error::other("the server spoke before its turn"));
        }
    }
}

/// Until the socket is ready, the bell rings, or `longest` is over; true when the bell rang.
pub(super) fn wait(socket: &Socket, read: bool, bell: &Bell, longest: Duration) -> bool {
    let mut events = PollFlags::empty();
    events.set(PollFlags::POLLIN, read);
    events.set(PollFlags::POLLOUT, socket.wants_write());
    let mut watched = vec![PollFd::new(bell.0.as_fd(), PollFlags::POLLIN)];
    if !events.is_empty() {
        watched.push(PollFd::new(socket.as_fd(), events));
    }
    // A millisecond more, because the time is cut to whole ones.
    let timeout = PollTimeout::try_from(longest.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    let timeout = if longest.is_zero() { PollTimeout::ZERO } else { timeout };
    // Interrupted or not: the caller looks at everything again.
    poll(&mut watched, timeout).ok();
    bell.0.read().is_ok()
}

fn client(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = ca {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let certificates = CertificateDer::pem_file_iter(file).map_err(|error| failed(&error))?;
        let before = roots.len();
        for certificate in certificates.take(MAX_CERTIFICATES) {
            let certificate = certificate.map_err(|error| failed(&error))?;
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
        if roots.len() == before {
            return Err(failed(&"holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.map_err(|error| error.to_string())?;
    Ok(client.with_root_certificates(roots).with_no_client_auth())
}
