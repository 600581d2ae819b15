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

/// A server that has answered may leave the rest of the request unread for so long.
const LINGER: Duration = Duration::from_secs(30);

/// The connections to one server.
pub struct Http1 {
    uri: Uri,
    connector: Connector,
    builder: http1::Builder,
    keepalive: Duration,
    kept: Arc<Mutex<Kept>>,
}

/// Connections without a request, the last used at the end.
#[derive(Default)]
struct Kept {
    idle: Vec<Idle>,
    /// A task closes those that are not used for long.
    watched: bool,
}

struct Idle {
    sender: SendRequest<Up>,
    driver: AbortHandle,
    remote: Option<SocketAddr>,
    since: Instant,
}

/// One that carries a request. When it is dropped it is kept for others, once it can carry another.
pub struct Connection {
    sender: Option<SendRequest<Up>>,
    driver: AbortHandle,
    pub remote: Option<SocketAddr>,
    /// It has carried a response: the server may close it at any time, also when a request is on its way there.
    reused: bool,
    kept: Weak<Mutex<Kept>>,
    keepalive: Duration,
}

impl Http1 {
    pub fn new(uri: Uri, connector: Connector, settings: &Upstream) -> Http1 {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(settings.max_header_size.max(AT_ONCE));
        if settings.max_headers > HEADERS {
            builder.max_headers(settings.max_headers); // which then are on the heap
        }
        Http1 { uri, connector, builder, keepalive: settings.keepalive.0, kept: Arc::default() }
    }

    /// Send a request. One that a connection in use before could not take goes over another. If such a connection was
    /// closed with the request on its way, that is sent once more if it has no body and its method may be repeated
    /// (RFC 9110, 9.2.2), until a connection is new.
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
                        connection.kept = Weak::new(); // it could not take a body of unknown size
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

    /// The connection that was used last, if it is open.
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
        let kept = Arc::downgrade(&self.kept);
        Connection { sender: Some(sender), driver, remote, reused, kept, keepalive: self.keepalive }
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
        let driver = self.driver.clone();
        if sender.is_ready() {
            keep(&kept, sender, driver, remote, keepalive);
        } else if let Ok(runtime) = Handle::try_current() {
            // something of its request or response is still on its way
            runtime.spawn(async move {
                match timeout(LINGER, sender.ready()).await {
                    Ok(Ok(())) => keep(&kept, sender, driver, remote, keepalive),
                    Ok(Err(_)) => (),
                    Err(_) => driver.abort(), // nothing else ends it while the server does not read
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

/// Let go of connections that are not used, until there are none.
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

/// The same request, if it may be repeated.
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

/// Whether the server went away before it said anything.
fn closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || error.source().is_some_and(|source| source.is::<std::io::Error>())
}
