//! The transport against a server that is one closure per connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::result_large_err)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use futures::StreamExt;
use pollster::block_on;

use super::aside::Aside;
use super::*;
use crate::clock::SystemClock;
use crate::thread::spawn;

/// A stop has to be through by then.
const STOP_MAX: Duration = Duration::from_millis(250);
const PATIENT: Duration = Duration::from_secs(10);

/// Serves every connection with `handle` and counts them.
fn server(handle: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let handle = Arc::new(handle);
    spawn("test-server", move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let handle = handle.clone();
            spawn("test-line", move || handle(&mut stream)).unwrap();
        }
    })
    .unwrap();
    (format!("http://{address}/"), count)
}

/// Reads one request without a body's length; false when the client has gone.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut byte = [0_u8; 1];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn transport(read_wait: Duration) -> HttpTransport {
    HttpTransport::new(&Network::new(SystemClock::shared()), read_wait)
}

fn get(transport: &HttpTransport, url: &str) -> Result<(u16, Vec<u8>), RigError> {
    block_on(async {
        let request = Request::get(url).body(Bytes::new()).unwrap();
        let response = transport.send::<_, Bytes>(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().await?.to_vec()))
    })
}

fn ours(error: RigError) -> TransportError {
    match error {
        RigError::Instance(error) => *error.downcast::<TransportError>().unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn an_error_status_and_a_redirect_are_responses() {
    let (url, _) = server(|stream| {
        for status in ["404 Not Found", "302 Found\r\nlocation: http://127.0.0.1:9/"] {
            assert!(read_request(stream));
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 3\r\n\r\nabc").unwrap();
        }
    });
    let transport = transport(PATIENT);
    assert_eq!(get(&transport, &url).unwrap(), (404, b"abc".to_vec()));
    assert_eq!(get(&transport, &url).unwrap(), (302, b"abc".to_vec()));
}

#[test]
fn a_connection_that_the_server_closed_meanwhile_is_not_used() {
    let (closed, has_closed) = crossbeam_channel::bounded(2);
    let (url, connections) = server(move |stream| {
        assert!(read_request(stream));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
        closed.send(()).unwrap();
    });
    let transport = transport(PATIENT);
    for _ in 0..2 {
        assert_eq!(get(&transport, &url).unwrap().1, b"ok");
        has_closed.recv_timeout(PATIENT).unwrap();
    }
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_packed_body_is_unpacked() {
    /// `gzip -n` of "packed".
    const PACKED: &[u8] = &[
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x2b, 0x48, 0x4c, 0xce, 0x4e, 0x4d, 0x01,
        0x00, 0x10, 0xb4, 0xf6, 0x21, 0x06, 0x00, 0x00, 0x00,
    ];
    let (url, _) = server(|stream| {
        assert!(read_request(stream));
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", PACKED.len());
        stream.write_all(&[head.as_bytes(), PACKED].concat()).unwrap();
    });
    assert_eq!(get(&transport(PATIENT), &url).unwrap(), (200, b"packed".to_vec()));
}

#[test]
fn a_body_beyond_the_limit_is_an_error() {
    let (url, _) = server(|stream| {
        assert!(read_request(stream));
        let body = vec![b'x'; BODY_BYTES_MAX + 1];
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
        // The client hangs up before the end.
        stream.write_all(&body).ok();
    });
    assert!(matches!(
        ours(get(&transport(PATIENT), &url).unwrap_err()),
        TransportError::BodyTooLong(BODY_BYTES_MAX)
    ));
}

#[test]
fn silence_is_a_time_out() {
    let (url, _) = server(|stream| {
        assert!(read_request(stream));
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na").unwrap();
        read_request(stream);
    });
    let error = ours(get(&transport(Duration::from_millis(50)), &url).unwrap_err());
    assert!(matches!(error, TransportError::TimedOut(_)), "{error}");
}

/// Events, then after a moment the end of the body, as many servers do.
fn event_stream(stream: &mut TcpStream) {
    while read_request(stream) {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        for event in ["data: one\n\n", "data: two\n\n", "data: [DONE]\n\n"] {
            write!(stream, "{:x}\r\n{event}\r\n", event.len()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
        stream.write_all(b"0\r\n\r\n").unwrap();
    }
}

/// Reads until the last event has come, and drops the body then.
fn read_events(transport: &HttpTransport, url: &str) -> usize {
    let mut polls = 0;
    let future = async {
        let request = Request::post(url).body(Bytes::new()).unwrap();
        let mut body = transport.send_streaming(request).await.unwrap().into_body();
        let mut text = Vec::new();
        while !text.ends_with(b"[DONE]\n\n") {
            text.extend_from_slice(&body.next().await.unwrap().unwrap());
        }
    };
    let mut future = Box::pin(future);
    block_on(std::future::poll_fn(|context| {
        polls += 1;
        future.as_mut().poll(context)
    }));
    polls
}

#[test]
fn a_stream_that_is_dropped_after_its_last_event_gives_its_connection_back() {
    let (url, connections) = server(event_stream);
    let transport = transport(PATIENT);
    for _ in 0..3 {
        // Once for the response, once for each read, once to be done.
        assert!(read_events(&transport, &url) >= 3);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_stream_that_never_ends_delays_nobody() {
    let (url, connections) = server(|stream| {
        assert!(read_request(stream));
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\ne\r\ndata: [DONE]\n\n\r\n")
            .unwrap();
        read_request(stream);
    });
    let transport = transport(PATIENT);
    let started = Instant::now();
    read_events(&transport, &url);
    read_events(&transport, &url);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_stop_ends_a_read_even_where_the_body_has_no_length() {
    let (begun, has_begun) = crossbeam_channel::bounded(1);
    let (url, _) = server(move |stream| {
        assert!(read_request(stream));
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it").unwrap();
        begun.send(()).unwrap();
        read_request(stream);
    });
    let transport = transport(PATIENT);
    let stopping = transport.clone();
    let stopper = spawn("stopper", move || {
        has_begun.recv_timeout(PATIENT).unwrap();
        stopping.stop();
        Instant::now()
    });
    let error = ours(get(&transport, &url).unwrap_err());
    assert!(matches!(error, TransportError::Stopped), "{error}");
    assert!(stopper.unwrap().join().unwrap().elapsed() < STOP_MAX);
    assert!(transport.is_stopped());
    // It stays stopped.
    assert!(matches!(ours(get(&transport, &url).unwrap_err()), TransportError::Stopped));
}

#[test]
fn a_stop_and_the_end_of_the_wait_leave_a_system_call_behind() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let hang = move || {
        // Ends with the test, when `release` is dropped.
        released.recv().ok();
        Ok(())
    };
    let signal = Arc::new(Signal::default());
    let aside = Aside::default();
    let error = aside.run("silent", Duration::from_millis(60), &signal, hang.clone()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let stopping = signal.clone();
    let stopper = spawn("stopper", move || {
        stopping.stopped.store(true, Ordering::SeqCst);
        Instant::now()
    });
    let error = aside.run("silent", PATIENT, &signal, hang).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    assert!(stopper.unwrap().join().unwrap().elapsed() < STOP_MAX);
    drop(release);
}

#[test]
fn names_are_looked_up_once_and_forgotten_when_nobody_answers() {
    let (url, _) = server(|stream| {
        while read_request(stream) {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        }
    });
    let url = url.replace("127.0.0.1", "localhost");
    let transport = transport(PATIENT);
    assert_eq!(get(&transport, &url).unwrap().1, b"ok");
    let port: u16 = url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let network = Network::new(SystemClock::shared());
    let closed = HttpTransport::new(&network, PATIENT);
    assert_eq!(network.names.kept_for_tests(), 0);
    assert_eq!(
        get(&HttpTransport::new(&network, PATIENT), &format!("http://localhost:{port}/")).unwrap().0,
        200
    );
    assert_eq!(network.names.kept_for_tests(), 1);
    // Nobody listens there any more.
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://localhost:{}/", listener.local_addr().unwrap().port())
    };
    assert!(matches!(ours(get(&closed, &refused).unwrap_err()), TransportError::Unconnected(_)));
    assert_eq!(network.names.kept_for_tests(), 1);
}

#[test]
fn what_is_no_address_or_no_tls_says_so() {
    let (url, _) = server(|stream| {
        stream.write_all(b"this is not TLS").unwrap();
        read_request(stream);
    });
    let transport = transport(Duration::from_secs(2));
    let error = ours(get(&transport, &url.replace("http:", "https:")).unwrap_err());
    assert!(matches!(error, TransportError::Tls(_)), "{error}");
    assert_eq!(error.kind(), Kind::Invalid);
    let error = ours(get(&transport, "ftp://127.0.0.1/").unwrap_err());
    assert!(matches!(error, TransportError::BadAddress(_)), "{error}");
}
