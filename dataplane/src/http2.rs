//! HTTP/2 to a server: connections that requests share.

use crate::balance::Active;
use crate::body::Up;
use crate::config::Upstream;
use crate::connect::Connector;
use crate::upstream::{Failure, UpstreamError, not_connected};
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::client::legacy::connect::{Connection as _, HttpInfo};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;

/// How long a connection with requests may be silent before it is pinged.
const PING: Duration = Duration::from_secs(15);
/// How often to check whether a server supports WebSockets, which hyper does not report by itself.
const LOOK: Duration = Duration::from_millis(5);

/// The connections to one server.
pub struct Http2 {
    uri: Uri,
    connector: Connector,
    builder: http2::Builder<TokioExecutor>,
    connect_timeout: Duration,
    keepalive: Duration,
    open: Arc<Mutex<Vec<Connection>>>,
    connecting: tokio::sync::Mutex<()>,
    declined: AtomicBool,
}

#[derive(Clone)]
struct Connection {
    sender: SendRequest<Up>,
    streams: Arc<AtomicUsize>,
    /// Most streams that the server allows.
    most: Arc<AtomicUsize>,
    used: Arc<Mutex<Instant>>,
    /// Whether the server supports WebSockets (RFC 8441, section 3), and a signal that a request waits for this.
    websockets: (watch::Receiver<bool>, Arc<Notify>),
    remote: Option<SocketAddr>,
}

impl Connection {
    fn is_idle(&self, since: Instant) -> bool {
        self.streams.load(Relaxed) == 0 && *self.used.lock().unwrap() <= since
    }
}

/// A response, and the stream that carries it.
pub struct Answer {
    pub response: Response<Incoming>,
    pub remote: Option<SocketAddr>,
    pub stream: Active,
}

impl Http2 {
    pub fn new(uri: Uri, connector: Connector, settings: &Upstream) -> Http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .max_header_list_size(settings.max_header_size as u32);
        Http2 {
            uri,
            connector,
            builder,
            connect_timeout: settings.connect_timeout.0,
            keepalive: settings.keepalive.0,
            open: Arc::default(),
            connecting: tokio::sync::Mutex::default(),
            declined: AtomicBool::new(false),
        }
    }

    /// Whether the server has chosen HTTP/1.1 in TLS (ALPN).
    pub fn is_declined(&self) -> bool {
        self.declined.load(Relaxed)
    }

    /// Connect if no connection is free. Afterwards `is_declined` says whether the server uses HTTP/1.1.
    pub async fn ready(&self, known: bool) -> Result<(), UpstreamError> {
        if !self.is_declined() && self.free().is_none() {
            self.connect(known).await?;
        }
        Ok(())
    }

    /// Send a request. If its connection has just closed, it goes over another. A request for a WebSocket waits until
    /// the server has announced its support.
    pub async fn send(&self, mut request: Request<Up>) -> Result<Answer, Failed> {
        for again in [true, false] {
            let mut connection = match self.free() {
                Some(connection) => connection,
                None => match self.connect(true).await.map_err(Failed::Upstream)? {
                    Some(connection) => connection,
                    None => {
                        return Err(Failed::Upstream(UpstreamError::reset(503, "connection termination")));
                    }
                },
            };
            if *request.method() == Method::CONNECT {
                let (they, wanted) = &mut connection.websockets;
                wanted.notify_one();
                let told = timeout(self.connect_timeout, they.wait_for(|they| *they)).await;
                if !matches!(told, Ok(Ok(_))) {
                    let failed = UpstreamError::reset(502, "no WebSockets over HTTP/2");
                    // not a failure of the server, which serves other requests
                    return Err(Failed::Upstream(UpstreamError { failure: Failure::Ours, ..failed }));
                }
            }
            let stream = Active::new(&connection.streams);
            let answered = connection.sender.try_send_request(request).await;
            *connection.used.lock().unwrap() = Instant::now();
            match answered {
                Ok(response) => {
                    return Ok(Answer { response, remote: connection.remote, stream });
                }
                Err(mut failed) => match failed.take_message().filter(|_| again) {
                    Some(message) => {
                        request = message;
                        self.open.lock().unwrap().retain(|each| !Arc::ptr_eq(&each.streams, &connection.streams));
                    }
                    None => return Err(Failed::Hyper(failed.into_error())),
                },
            }
        }
        unreachable!("the second attempt is the last")
    }

    /// A connection that has room for a request.
    fn free(&self) -> Option<Connection> {
        let mut open = self.open.lock().unwrap();
        open.retain(|connection| !connection.sender.is_closed());
        open.iter().find(|connection| connection.streams.load(Relaxed) < connection.most.load(Relaxed)).cloned()
    }

    /// Connect, or return a connection that was made meanwhile. `known`: the server supports HTTP/2, whatever TLS says;
    /// otherwise `None` if it has chosen HTTP/1.1.
    async fn connect(&self, known: bool) -> Result<Option<Connection>, UpstreamError> {
        let _one = self.connecting.lock().await;
        if let Some(connection) = self.free() {
            return Ok(Some(connection));
        }
        let connecting = async {
            let io = self.connector.clone().call(self.uri.clone()).await.map_err(|error| not_connected(&*error))?;
            let connected = io.connected();
            if !known && !connected.is_negotiated_h2() {
                self.declined.store(true, Relaxed);
                return Ok(None);
            }
            let mut extensions = http::Extensions::new();
            connected.get_extras(&mut extensions);
            let remote = extensions.get::<HttpInfo>().map(HttpInfo::remote_addr);
            let (sender, driver) =
                self.builder.handshake(io).await.map_err(|_| UpstreamError::reset(503, "connection termination"))?;
            let ((tell, they), wanted) = (watch::channel(false), Arc::new(Notify::new()));
            let connection = Connection {
                sender,
                streams: Arc::default(),
                most: Arc::new(AtomicUsize::new(usize::MAX)),
                used: Arc::new(Mutex::new(Instant::now())),
                websockets: (they, wanted.clone()),
                remote,
            };
            let (most, connect_timeout) = (connection.most.clone(), self.connect_timeout);
            tokio::spawn(async move {
                let (mut driver, mut looks, mut until) = (pin!(driver), false, Instant::now());
                loop {
                    let ended = poll_fn(|context| {
                        let polled = driver.as_mut().poll(context);
                        most.store(driver.current_max_send_streams(), Relaxed);
                        polled
                    });
                    tokio::select! {
                        _ = ended => return,
                        () = wanted.notified() => until = Instant::now() + connect_timeout,
                        () = sleep(LOOK), if looks => (),
                    }
                    let enabled = driver.is_extended_connect_protocol_enabled();
                    looks = !enabled && Instant::now() < until;
                    if enabled {
                        let _ = tell.send(true);
                    }
                }
            });
            let mut open = self.open.lock().unwrap();
            if open.is_empty() {
                tokio::spawn(close_idle(Arc::downgrade(&self.open), self.keepalive));
            }
            open.push(connection.clone());
            Ok(Some(connection))
        };
        timeout(self.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(UpstreamError::connect("connection timeout")))
    }
}

/// Close connections that stay idle, until none is left.
async fn close_idle(open: Weak<Mutex<Vec<Connection>>>, keepalive: Duration) {
    loop {
        sleep(keepalive).await;
        let Some(open) = open.upgrade() else { return };
        let mut open = open.lock().unwrap();
        let since = Instant::now() - keepalive;
        open.retain(|connection| !connection.sender.is_closed() && !connection.is_idle(since));
        if open.is_empty() {
            return;
        }
    }
}

/// Why a request has no response.
pub enum Failed {
    Upstream(UpstreamError),
    Hyper(hyper::Error),
}
