//! The bytes of a connection, plain or TLS, without ever blocking.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ClientConnection;

/// Bytes that wait to be written; a server that takes none of them for so long is lost.
const MAX_WAITING: usize = 64 << 10;
/// Bytes of one read.
const READ_BYTES: usize = 8 << 10;
/// Reads before others get their turn: a server that floods us must not keep us from stopping.
const READS: usize = 8;

pub(super) struct Socket {
    tcp: TcpStream,
    tls: Option<ClientConnection>,
    waiting: Vec<u8>,
}

/// What stands behind the bytes that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing has come yet.
    Nothing,
    /// Perhaps more; read again.
    More,
    /// The end of the connection.
    End,
}

impl Socket {
    /// `tcp` must be non-blocking.
    pub(super) fn new(tcp: TcpStream, tls: Option<ClientConnection>) -> Self {
        Self { tcp, tls, waiting: Vec::new() }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Queues a line; [`Socket::flush`] sends it.
    pub(super) fn push(&mut self, line: &str) -> io::Result<()> {
        if self.waiting.len() + line.len() > MAX_WAITING {
            return Err(io::Error::other("the server takes nothing"));
        }
        self.waiting.extend_from_slice(line.as_bytes());
        self.waiting.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes what the kernel takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        loop {
            let wrote = match &mut self.tls {
                Some(tls) => {
                    let sealed = tls.writer().write(&self.waiting)?;
                    self.waiting.drain(..sealed);
                    if !tls.wants_write() {
                        return Ok(());
                    }
                    tls.write_tls(&mut self.tcp)
                }
                None if self.waiting.is_empty() => return Ok(()),
                None => self.tcp.write(&self.waiting).inspect(|count| drop(self.waiting.drain(..*count))),
            };
            match wrote {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn wants_write(&self) -> bool {
        !self.waiting.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Appends what has come, up to a limit.
    pub(super) fn read(&mut self, into: &mut Vec<u8>) -> io::Result<Behind> {
        for _ in 0..READS {
            let came = match &mut self.tls {
                Some(tls) => read_tls(tls, &mut self.tcp, into),
                None => {
                    let mut buffer = [0; READ_BYTES];
                    self.tcp.read(&mut buffer).inspect(|count| into.extend_from_slice(&buffer[..*count]))
                }
            };
            match came {
                Ok(0) => return Ok(Behind::End),
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(Behind::Nothing),
                Err(error) => return Err(error),
            }
        }
        Ok(Behind::More)
    }

    /// Says that nothing more will be written, after what is written already.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()?;
        self.tcp.shutdown(Shutdown::Write)
    }
}

/// Bytes from the network; 0 at its end.
fn read_tls(tls: &mut ClientConnection, tcp: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let count = tls.read_tls(tcp)?;
    let state = match tls.process_new_packets() {
        Ok(state) => state,
        Err(error) => {
            // The server may learn why (its certificate, most often); we go either way.
            tls.write_tls(tcp).ok();
            return Err(io::Error::other(error));
        }
    };
    let before = into.len();
    into.resize(before + state.plaintext_bytes_to_read(), 0);
    tls.reader().read_exact(&mut into[before..])?;
    Ok(count)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
