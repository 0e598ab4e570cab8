//! Rig's HTTP client trait over a blocking ureq agent.
//!
//! The futures do their input and output on the thread that polls them and yield once before each
//! blocking step, so that whoever drives several of them on one thread gets a look in between.
//! One [`HttpTransport`] serves one call at a time: [`HttpTransport::stop`] ends that call, and the
//! transport with it, without touching anybody else's. What is expensive to make or worth sharing,
//! the TLS settings with their session tickets and the resolved names, lives in a [`Network`] that
//! all transports share.

mod aside;
mod names;
mod overheard;
mod socket;

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use rig_core::http_client::{
    BoxedStream, Error as RigError, HttpClientExt, LazyBody, MultipartForm, Request, Response,
    StreamingResponse,
};
use rig_core::wasm_compat::WasmCompatSend;
use ureq::unversioned::transport::{Connector, RustlsConnector};

use crate::clock::SharedClock;
use crate::error::{Fault, Kind};

use names::{NameCache, Names};
use overheard::Overheard;
use socket::{Dialler, SharedTls, Undialled};

/// Waiting for a TCP connection and its TLS handshake; a server farther away than this is down.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Waiting for the name service, for the same reason.
const RESOLVE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Waiting for the other side to take what we send.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);
/// One whole response body, unpacked. The longest answers of models are far below; a server that sends
/// more is broken or hostile.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// One event stream. It wraps every few characters of an answer in some 350 bytes, and 128,000 tokens
/// are 45 MB of it; nothing of that is kept here.
pub const STREAM_BYTES_MAX: usize = 64 << 20;
/// Header block of a response; it has to fit into the input buffer as well.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Buffers of a connection. ureq's own default of 128 KiB each would cost 16 conversations 4 MiB.
const INPUT_BUFFER_BYTES: usize = 32 << 10;
const OUTPUT_BUFFER_BYTES: usize = 16 << 10;
/// Idle connections of one transport: a model and its fallbacks seldom live on more hosts.
const IDLE_CONNECTIONS_MAX: usize = 3;
/// Providers close idle connections after minutes; later reuse would only find them dead.
const IDLE_AGE_MAX: Duration = Duration::from_secs(90);
/// One read of a streamed body.
const CHUNK_BYTES: usize = 8 << 10;
/// Reads after the answer's end that look for the end of the body, so that the connection can be
/// used again. Together with `socket::DRAIN_WAIT` this bounds what the courtesy may cost.
const DRAIN_READS_MAX: usize = 4;

/// Why no complete response arrived. A response with an error status is not among these.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("stopped")]
    Stopped,
    #[error("time-out: {0}")]
    TimedOut(String),
    #[error("the answer is longer than {0} bytes")]
    BodyTooLong(usize),
    #[error("not a usable address: {0}")]
    BadAddress(String),
    #[error("TLS: {0}")]
    Tls(String),
    /// Within the handshake, before anything of a request.
    #[error("TLS: {0}")]
    Handshake(String),
    #[error("not HTTP: {0}")]
    Protocol(String),
    #[error("a web page came in place of an answer")]
    Page,
    #[error("network: {0}")]
    Network(String),
    /// There was no connection, so nothing has been sent.
    #[error("network: {0}")]
    Unconnected(String),
}

impl Fault for TransportError {
    fn kind(&self) -> Kind {
        match self {
            Self::Stopped => Kind::Cancelled,
            Self::TimedOut(_) | Self::Network(_) | Self::Unconnected(_) | Self::Protocol(_) | Self::Page => {
                Kind::Transient
            }
            Self::BodyTooLong(_) | Self::BadAddress(_) | Self::Tls(_) | Self::Handshake(_) => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Page => Some("does this network want a log-in? does base_url lead to the API?"),
            Self::BadAddress(_) => Some("base_url must look like https://host/path"),
            Self::Tls(_) | Self::Handshake(_) => {
                Some("the server's certificate is not trusted, or the clock is wrong")
            }
            _ => None,
        }
    }
}

impl TransportError {
    /// False only where no byte of the request can have left: no connection, or a certificate that was refused.
    pub fn may_have_been_sent(&self) -> bool {
        let before = [ureq::Timeout::Resolve, ureq::Timeout::Connect].map(|phase| phase.to_string());
        match self {
            Self::Unconnected(_) | Self::BadAddress(_) | Self::Handshake(_) => false,
            Self::TimedOut(phase) => !before.contains(phase),
            _ => true,
        }
    }

    fn of_rustls(error: &rustls::Error) -> Self {
        match error {
            // Certificates are looked at in the handshake only.
            rustls::Error::InvalidCertificate(_) => Self::Handshake(error.to_string()),
            _ => Self::Tls(error.to_string()),
        }
    }

    fn from_ureq(error: ureq::Error) -> Self {
        use ureq::Error as E;
        match error {
            E::Timeout(phase) => Self::TimedOut(phase.to_string()),
            E::BadUri(text) => Self::BadAddress(text),
            E::Tls(text) => Self::Tls(text.to_owned()),
            E::Rustls(error) => Self::of_rustls(&error),
            E::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<Undialled>()) => {
                Self::Unconnected(error.to_string())
            }
            // A failed handshake arrives as an I/O error around what rustls says.
            E::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                inner.map_or_else(|| Self::Tls(error.to_string()), Self::of_rustls)
            }
            E::Io(error) => Self::Network(error.to_string()),
            E::HostNotFound => Self::Unconnected("host not found".to_owned()),
            E::ConnectionFailed => Self::Unconnected("connection failed".to_owned()),
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// What the transports of one program share.
#[derive(Clone)]
pub struct Network {
    tls: Arc<RustlsConnector>,
    names: Arc<NameCache>,
}

impl Network {
    pub fn new(clock: SharedClock) -> Self {
        Self { tls: Arc::default(), names: Arc::new(NameCache::new(clock)) }
    }
}

/// What a transport's sockets look at while they wait.
#[derive(Debug, Default)]
struct Signal {
    stopped: AtomicBool,
    /// The answer is complete; only the end of the body is still looked for.
    draining: AtomicBool,
}

impl Signal {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// One exclusive line to servers. Clones are the same line.
#[derive(Clone)]
pub struct HttpTransport {
    agent: ureq::Agent,
    signal: Arc<Signal>,
    /// Added to every request, in place of what it has under the same name.
    headers: Arc<http::HeaderMap>,
    overheard: Overheard,
}

impl HttpTransport {
    /// `read_wait_max` is the longest silence within a response.
    pub fn new(network: &Network, read_wait_max: Duration) -> Self {
        let signal = Arc::new(Signal::default());
        let config = ureq::Agent::config_builder()
            // The body of an error response says what is wrong: Rig wants to read it.
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A key must not travel through a proxy that the environment happened to name.
            .proxy(None)
            .timeout_connect(Some(CONNECT_WAIT_MAX))
            .timeout_resolve(Some(RESOLVE_WAIT_MAX))
            .timeout_per_read(Some(read_wait_max))
            .timeout_per_write(Some(WRITE_WAIT_MAX))
            .max_response_header_size(HEADER_BYTES_MAX)
            .input_buffer_size(INPUT_BUFFER_BYTES)
            .output_buffer_size(OUTPUT_BUFFER_BYTES)
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(1)
            .max_idle_age(IDLE_AGE_MAX)
            .user_agent(concat!("spacebot/", env!("CARGO_PKG_VERSION")))
            .build();
        let dialler = Dialler::new(signal.clone(), network.names.clone());
        let connector = dialler.chain(SharedTls(network.tls.clone()));
        let names = Names::new(signal.clone(), network.names.clone());
        let agent = ureq::Agent::with_parts(config, connector, names);
        Self { agent, signal, headers: Arc::default(), overheard: Overheard::default() }
    }

    /// The same line, for requests that carry `headers` too.
    #[must_use]
    pub fn with_headers(&self, headers: http::HeaderMap) -> Self {
        Self { headers: Arc::new(headers), ..self.clone() }
    }

    /// Ends the call in flight, wherever it waits, and makes the transport unusable. Does not block.
    pub fn stop(&self) {
        self.signal.stopped.store(true, Ordering::SeqCst);
        self.agent.clone().shutdown();
    }

    pub fn is_stopped(&self) -> bool {
        self.signal.is_stopped()
    }

    /// Beginning and end of the last stream, as far as it came; nothing after a response in one piece.
    pub fn overheard(&self) -> Vec<u8> {
        self.overheard.all()
    }

    fn rig_error(&self, error: ureq::Error) -> RigError {
        match error {
            // Whatever a stopped socket reports, the reason is the stop.
            _ if self.is_stopped() => RigError::instance(TransportError::Stopped),
            ureq::Error::Http(error) => RigError::Protocol(error),
            other => RigError::instance(TransportError::from_ureq(other)),
        }
    }

    fn run(&self, request: Request<Bytes>) -> Result<Response<ureq::Body>, ureq::Error> {
        let (mut parts, body) = request.into_parts();
        for (name, value) in self.headers.iter() {
            parts.headers.insert(name, value.clone());
        }
        if body.is_empty() && parts.method != http::Method::POST {
            self.agent.run(Request::from_parts(parts, ()))
        } else {
            self.agent.run(Request::from_parts(parts, &body[..]))
        }
    }

    /// The same for calls of models.
    fn run_call(&self, request: Request<Bytes>) -> Result<Response<ureq::Body>, RigError> {
        self.overheard.clear();
        let response = self.run(request).map_err(|error| self.rig_error(error))?;
        match is_page(&response) {
            true => Err(RigError::instance(TransportError::Page)),
            false => Ok(response),
        }
    }

    /// One request without Rig, for the little that is no call of a model: blocks, and keeps at most
    /// `body_max` bytes of the answer, whose rest is not read.
    ///
    /// # Errors
    /// No response came.
    pub fn fetch(
        &self,
        request: Request<Bytes>,
        body_max: usize,
    ) -> Result<Response<Vec<u8>>, TransportError> {
        let response = self.run(request).map_err(|error| match self.is_stopped() {
            true => TransportError::Stopped,
            false => TransportError::from_ureq(error),
        })?;
        let (parts, body) = response.into_parts();
        let mut kept = Vec::new();
        let limit = u64::try_from(body_max).unwrap_or(u64::MAX);
        // What had arrived before it broke off still says something.
        body.into_reader().take(limit).read_to_end(&mut kept).ok();
        Ok(Response::from_parts(parts, kept))
    }

    fn chunks(&self, body: ureq::Body, bytes_max: usize) -> Chunks {
        Chunks {
            reader: Box::new(body.into_reader()),
            transport: self.clone(),
            bytes_max,
            bytes_left: bytes_max,
            is_stream: false,
            ended: false,
            yielded: false,
        }
    }

    async fn whole<U>(self, request: Request<Bytes>) -> Result<Response<LazyBody<U>>, RigError>
    where
        U: From<Bytes> + WasmCompatSend + 'static,
    {
        yield_once().await;
        let response = self.run_call(request)?;
        Ok(response.map(|body| -> LazyBody<U> {
            let mut chunks = self.chunks(body, BODY_BYTES_MAX);
            Box::pin(async move {
                let mut whole = Vec::new();
                loop {
                    yield_once().await;
                    match chunks.read_next() {
                        Some(chunk) => whole.extend_from_slice(&chunk?),
                        None => return Ok(U::from(Bytes::from(whole))),
                    }
                }
            })
        }))
    }
}

impl HttpClientExt for HttpTransport {
    fn send<T, U>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>, RigError>> + WasmCompatSend + 'static
    where
        T: Into<Bytes> + WasmCompatSend,
        U: From<Bytes> + WasmCompatSend + 'static,
    {
        self.clone().whole(request.map(Into::into))
    }

    fn send_multipart<U>(
        &self,
        request: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>, RigError>> + WasmCompatSend + 'static
    where
        U: From<Bytes> + WasmCompatSend + 'static,
    {
        let transport = self.clone();
        async move {
            let (mut parts, form) = request.into_parts();
            let (boundary, body) = form.encode();
            let content_type = format!("multipart/form-data; boundary={boundary}");
            parts.headers.insert(http::header::CONTENT_TYPE, content_type.parse()?);
            transport.whole(Request::from_parts(parts, body)).await
        }
    }

    fn send_streaming<T>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<StreamingResponse, RigError>> + WasmCompatSend
    where
        T: Into<Bytes> + WasmCompatSend,
    {
        let (transport, request) = (self.clone(), request.map(Into::into));
        async move {
            yield_once().await;
            let response = transport.run_call(request)?;
            Ok(response.map(|body| -> BoxedStream {
                let mut chunks = transport.chunks(body, STREAM_BYTES_MAX);
                chunks.is_stream = true;
                Box::pin(chunks)
            }))
        }
    }
}

/// With a status that promises an answer: networks that want a log-in do that. With any other, the status says more.
fn is_page<T>(response: &Response<T>) -> bool {
    let kind = response.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    response.status().is_success()
        && ["text/html", "application/xhtml+xml"].iter().any(|page| kind.eq_ignore_ascii_case(page))
}

/// Pending once, woken at once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A response body as it arrives.
struct Chunks {
    reader: Box<dyn Read + Send>,
    transport: HttpTransport,
    bytes_max: usize,
    bytes_left: usize,
    /// Its beginning and end are kept.
    is_stream: bool,
    /// The body's end or an error was seen.
    ended: bool,
    yielded: bool,
}

impl Chunks {
    fn read_next(&mut self) -> Option<Result<Bytes, RigError>> {
        if self.ended {
            return None;
        }
        let mut buffer = [0_u8; CHUNK_BYTES];
        let failure = match self.reader.read(&mut buffer) {
            // A stopped socket reads as ended; without a length the body would look complete.
            _ if self.transport.is_stopped() => RigError::instance(TransportError::Stopped),
            Ok(0) => {
                self.ended = true;
                return None;
            }
            Ok(length) if length > self.bytes_left => {
                RigError::instance(TransportError::BodyTooLong(self.bytes_max))
            }
            Ok(length) => {
                self.bytes_left -= length;
                if self.is_stream {
                    self.transport.overheard.hear(&buffer[..length]);
                }
                return Some(Ok(Bytes::copy_from_slice(&buffer[..length])));
            }
            Err(error) => self.transport.rig_error(ureq::Error::from(error)),
        };
        self.ended = true;
        Some(Err(failure))
    }
}

impl futures::Stream for Chunks {
    type Item = Result<Bytes, RigError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !std::mem::replace(&mut self.yielded, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        Poll::Ready(self.read_next())
    }
}

/// An event stream's answer is complete before its body is, and ureq keeps a connection only when
/// the body was read to its end. The rest is on its way or already here.
impl Drop for Chunks {
    fn drop(&mut self) {
        if self.ended || self.transport.is_stopped() {
            return;
        }
        let mut rest = [0_u8; CHUNK_BYTES];
        self.transport.signal.draining.store(true, Ordering::SeqCst);
        for _ in 0..DRAIN_READS_MAX {
            // An error means that the connection is lost for reuse, which is where we were.
            if !matches!(self.reader.read(&mut rest), Ok(1..)) {
                break;
            }
        }
        self.transport.signal.draining.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests;
