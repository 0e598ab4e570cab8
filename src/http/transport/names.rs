//! Host names to addresses. ureq asks before every request, also when it then reuses a connection,
//! so answers are kept for a while; a lookup that waits ends on a stop request.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::aside::Aside;
use super::{RESOLVE_WAIT_MAX, Signal};
use crate::clock::SharedClock;
use crate::thread::lock;

/// How long an answer is believed. The system's resolver does not tell the record's own time.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Hosts of one program's providers; more means that somebody walks through names.
const KEPT_MAX: usize = 64;
/// Addresses of one host that are worth trying.
const ADDRESSES_MAX: usize = 8;

type Host = (String, u16);

pub(super) struct NameCache {
    clock: SharedClock,
    kept: Mutex<HashMap<Host, (Vec<SocketAddr>, Duration)>>,
    aside: Aside,
}

impl std::fmt::Debug for NameCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NameCache").finish_non_exhaustive()
    }
}

impl NameCache {
    pub(super) fn new(clock: SharedClock) -> Self {
        Self { clock, kept: Mutex::default(), aside: Aside::default() }
    }

    pub(super) fn aside(&self) -> &Aside {
        &self.aside
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    #[cfg(test)]
    pub(super) fn kept_for_tests(&self) -> usize {
        lock(&self.kept).len()
    }

    pub(super) fn forget(&self, uri: &Uri) {
        if let Some(host) = host_of(uri) {
            lock(&self.kept).remove(&host);
        }
    }

    fn get(&self, host: &Host) -> Option<Vec<SocketAddr>> {
        let now = self.clock.monotonic();
        lock(&self.kept).get(host).filter(|(_, until)| now < *until).map(|(addresses, _)| addresses.clone())
    }

    fn keep(&self, host: Host, addresses: Vec<SocketAddr>) {
        let until = self.clock.monotonic() + KEPT_FOR;
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(host, (addresses, until));
    }
}

fn host_of(uri: &Uri) -> Option<Host> {
    let port = uri.port_u16().or(match uri.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })?;
    Some((uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

/// The resolver of one transport.
#[derive(Debug)]
pub(super) struct Names {
    signal: Arc<Signal>,
    cache: Arc<NameCache>,
}

impl Names {
    pub(super) fn new(signal: Arc<Signal>, cache: Arc<NameCache>) -> Self {
        Self { signal, cache }
    }

    fn look_up(&self, host: &Host, wait: Duration) -> Result<Vec<SocketAddr>, Error> {
        if let Ok(address) = host.0.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, host.1)]);
        }
        if let Some(addresses) = self.cache.get(host) {
            return Ok(addresses);
        }
        let addresses = self.ask_system(host.clone(), wait)?;
        self.cache.keep(host.clone(), addresses.clone());
        Ok(addresses)
    }

    fn ask_system(&self, host: Host, wait: Duration) -> Result<Vec<SocketAddr>, Error> {
        let look_up = move || Ok(host.to_socket_addrs()?.take(ADDRESSES_MAX).collect());
        self.cache.aside.run("resolve", wait, &self.signal, look_up).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Error::Timeout(ureq::Timeout::Resolve),
            _ => Error::Io(error),
        })
    }
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let host = host_of(uri).ok_or_else(|| Error::BadUri(uri.to_string()))?;
        let wait = timeout.not_zero().map_or(RESOLVE_WAIT_MAX, |left| *left);
        let mut addresses = self.empty();
        for address in self.look_up(&host, wait)? {
            addresses.push(address);
        }
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}
