//! HTTP/1.1 to a server: connections that carry one request at a time, and are kept for the next.

use crate::body::Up;
use crate::config::Upstream;
use crate::connect::Connector;
use crate::server::{AT_ONCE, HEADERS};
use crate::upstream::{UpstreamError, broken, not_connected};
use http::{Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::client::legacy::connect::{Connection as _, HttpInfo};
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service;

/// The connections to one server.
pub struct Http1 {
    uri: Uri,
    connector: Connector,
    builder: http1::Builder,
    keepalive: Duration,
    linger: Duration,
    kept: Arc<Mutex<Kept>>,
}

/// Idle connections, the one used last at the end.
#[derive(Default)]
struct Kept {
    idle: Vec<Idle>,
    /// Whether a task is closing those that stay idle.
    watched: bool,
}

struct Idle {
    sender: SendRequest<Up>,
    driver: AbortHandle,
    remote: Option<SocketAddr>,
    since: Instant,
}

/// A connection that carries a request. When dropped it is kept for others, as soon as it can carry another.
pub struct Connection {
    sender: Option<SendRequest<Up>>,
    driver: AbortHandle,
    pub remote: Option<SocketAddr>,
    /// It has carried a response: the server may close it at any time, even while a request is on its way.
    reused: bool,
    kept: Weak<Mutex<Kept>>,
    keepalive: Duration,
    linger: Duration,
}

impl Http1 {
    pub fn new(uri: Uri, connector: Connector, settings: &Upstream) -> Http1 {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(settings.max_header_size.max(AT_ONCE));
        if settings.max_headers > HEADERS {
            builder.max_headers(settings.max_headers); // hyper then allocates them on the heap
        }
        let (keepalive, linger) = (settings.keepalive.0, settings.linger.0);
        Http1 { uri, connector, builder, keepalive, linger, kept: Arc::default() }
    }

    /// Send a request, over an idle connection if there is one. If a reused connection could not take it, it goes over
    /// another. If the server closed a reused connection during the request, it is sent again, provided that it has no
    /// body and an idempotent method (RFC 9110, section 9.2.2).
    pub async fn send(&self, mut request: Request<Up>) -> Result<(Response<Incoming>, Connection), UpstreamError> {
        loop {
            let mut connection = match self.idle() {
                Some(connection) => connection,
                None => Box::pin(self.connect()).await?,
            };
            let again = if connection.reused { again(&request) } else { None };
            let sender = connection.sender.as_mut().expect("it is in use");
            let mut failed = match sender.try_send_request(request).await {
                Ok(response) => {
                    connection.reused = true;
                    if response.version() < Version::HTTP_11 {
                        connection.kept = Weak::new(); // HTTP/1.0 has no bodies of unknown size
                    }
                    return Ok((response, connection));
                }
                Err(failed) => failed,
            };
            let unsent = failed.take_message().filter(|_| connection.reused);
            let error = failed.into_error();
            request = match unsent.or(again.filter(|_| closed(&error))) {
                Some(request) => request,
                None => return Err(broken(&error, None)),
            };
        }
    }

    /// The open connection that was used last; `None` if it has been idle for too long.
    fn idle(&self) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap();
        let idle = loop {
            let idle = kept.idle.pop()?;
            if !idle.sender.is_closed() {
                break idle;
            }
        };
        drop(kept);
        (idle.since.elapsed() < self.keepalive).then(|| self.connection(idle.sender, idle.driver, idle.remote, true))
    }

    fn connection(
        &self,
        sender: SendRequest<Up>,
        driver: AbortHandle,
        remote: Option<SocketAddr>,
        reused: bool,
    ) -> Connection {
        let (kept, keepalive, linger) = (Arc::downgrade(&self.kept), self.keepalive, self.linger);
        Connection { sender: Some(sender), driver, remote, reused, kept, keepalive, linger }
    }

    async fn connect(&self) -> Result<Connection, UpstreamError> {
        let io = self.connector.clone().call(self.uri.clone()).await.map_err(|error| not_connected(&*error))?;
        let mut extensions = http::Extensions::new();
        io.connected().get_extras(&mut extensions);
        let remote = extensions.get::<HttpInfo>().map(HttpInfo::remote_addr);
        let (sender, driver) =
            self.builder.handshake(io).await.map_err(|_| UpstreamError::reset(503, "connection termination"))?;
        let driver = tokio::spawn(driver.with_upgrades()).abort_handle();
        Ok(self.connection(sender, driver, remote, false))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut sender) = self.sender.take().filter(|sender| !sender.is_closed()) else { return };
        let (kept, remote, keepalive) = (std::mem::take(&mut self.kept), self.remote, self.keepalive);
        let (driver, linger) = (self.driver.clone(), self.linger);
        if sender.is_ready() {
            keep(&kept, sender, driver, remote, keepalive);
        } else if let Ok(runtime) = Handle::try_current() {
            // a part of its request or response is still on its way
            runtime.spawn(async move {
                match timeout(linger, sender.ready()).await {
                    Ok(Ok(())) => keep(&kept, sender, driver, remote, keepalive),
                    Ok(Err(_)) => (),
                    Err(_) => driver.abort(), // nothing else ends it if the server does not read
                }
            });
        }
    }
}

fn keep(
    kept: &Weak<Mutex<Kept>>,
    sender: SendRequest<Up>,
    driver: AbortHandle,
    remote: Option<SocketAddr>,
    keepalive: Duration,
) {
    let Some(all) = kept.upgrade() else { return };
    let mut all = all.lock().unwrap();
    all.idle.push(Idle { sender, driver, remote, since: Instant::now() });
    if !all.watched
        && let Ok(runtime) = Handle::try_current()
    {
        all.watched = true;
        runtime.spawn(close_idle(kept.clone(), keepalive));
    }
}

/// Close connections that stay idle, until none is left.
async fn close_idle(kept: Weak<Mutex<Kept>>, keepalive: Duration) {
    let mut due = Instant::now() + keepalive;
    loop {
        sleep_until(due).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut kept = kept.lock().unwrap();
        kept.idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < keepalive);
        match kept.idle.first() {
            Some(oldest) => due = oldest.since + keepalive,
            None => {
                kept.watched = false;
                return;
            }
        }
    }
}

/// A copy of the request, if it may be sent again.
fn again(request: &Request<Up>) -> Option<Request<Up>> {
    let is_idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    if !is_idempotent || !matches!(request.body(), Up::Nothing) || request.headers().contains_key(header::UPGRADE) {
        return None;
    }
    let mut again = Request::new(Up::Nothing);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether the server closed the connection before it answered.
fn closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || error.source().is_some_and(|source| source.is::<std::io::Error>())
}
