//! The socket of a connection, plain or TLS, without blocking.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::config::IrcConfig;

/// For one address of the server.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// Bytes that wait to be written; a server that takes nothing for so long is lost.
const MAX_WAITING: usize = 64 << 10;
const READ_BYTES: usize = 8 << 10;

pub(super) struct Socket {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    waiting: Vec<u8>,
}

impl Socket {
    /// Connects; the TLS handshake happens with the first reads and writes.
    pub(super) fn connect(config: &IrcConfig) -> io::Result<Self> {
        let tls = if config.tls { Some(client(config)?) } else { None };
        let mut last = io::Error::other("the name of the server leads to no address");
        for address in (config.server.as_str(), config.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
                Ok(tcp) => {
                    tcp.set_nonblocking(true)?;
                    tcp.set_nodelay(true)?;
                    return Ok(Self { tcp, tls, waiting: Vec::new() });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Queues a line; [`Socket::flush`] sends it.
    pub(super) fn push(&mut self, line: &str) -> io::Result<()> {
        let bytes = [line.as_bytes(), b"\r\n"].concat();
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(&bytes),
            None if self.waiting.len() + bytes.len() > MAX_WAITING => {
                Err(io::Error::other("the server takes nothing"))
            }
            None => {
                self.waiting.extend_from_slice(&bytes);
                Ok(())
            }
        }
    }

    /// Writes what the kernel takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let outcome = match &mut self.tls {
            Some(tls) => loop {
                if !tls.wants_write() {
                    break Ok(());
                }
                if let Err(error) = tls.write_tls(&mut self.tcp) {
                    break Err(error);
                }
            },
            None => loop {
                if self.waiting.is_empty() {
                    break Ok(());
                }
                match self.tcp.write(&self.waiting) {
                    Ok(count) => drop(self.waiting.drain(..count)),
                    Err(error) => break Err(error),
                }
            },
        };
        unless_later(outcome)
    }

    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().map_or(!self.waiting.is_empty(), |tls| tls.wants_write())
    }

    /// Appends what has come; false at the end of the connection.
    pub(super) fn read(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        let mut buffer = [0; READ_BYTES];
        loop {
            let outcome = match &mut self.tls {
                Some(tls) => {
                    let came = tls.read_tls(&mut self.tcp);
                    if let Ok(count) = came {
                        let state = tls.process_new_packets().map_err(io::Error::other)?;
                        let mut plain = vec![0; state.plaintext_bytes_to_read()];
                        tls.reader().read_exact(&mut plain)?;
                        into.extend_from_slice(&plain);
                        if count == 0 {
                            return Ok(false);
                        }
                    }
                    came
                }
                None => self.tcp.read(&mut buffer).inspect(|count| into.extend_from_slice(&buffer[..*count])),
            };
            match outcome {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) => return unless_later(Err(error)).map(|()| true),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

fn unless_later(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
        outcome => outcome,
    }
}

fn client(config: &IrcConfig) -> io::Result<ClientConnection> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = &config.tls_ca_file {
        let certificates =
            rustls::pki_types::CertificateDer::pem_file_iter(file).map_err(io::Error::other)?;
        for certificate in certificates {
            roots.add(certificate.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let tls = tls.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(config.server.clone()).map_err(io::Error::other)?;
    ClientConnection::new(Arc::new(tls), name).map_err(io::Error::other)
}
