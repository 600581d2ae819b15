//! The servers behind the filters: sends a request to one of them, and makes an answer if there is no response.

use crate::balance::{Active, AllKnown, Server, Servers};
use crate::body::{Progress, Stopped, Up};
use crate::config::{self, Protocol};
use crate::connect::Connector;
use crate::head::{Base, Head, for_upstream, size};
use crate::http1::{self, Http1};
use crate::http2::{Answer, Failed, Http2};
use crate::retry::{Kept, Policy};
use crate::tls;
use crate::websocket;
use http::uri::Scheme;
use http::{HeaderValue, Response, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::error::Error as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower_service::Service;

const RESET: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";

/// The kind of a failure, for a retry policy.
#[derive(Clone, Copy, PartialEq)]
pub enum Failure {
    /// Not the server's fault.
    Ours,
    Connect,
    /// The server has refused the stream, without any effect of the request.
    Refused,
    Reset,
    /// There is no time left for another attempt.
    Late,
}

/// Why we answer instead of upstream: the answer, and the details for the log.
pub struct UpstreamError {
    pub status: u16,
    pub text: String,
    pub details: String,
    /// A bit of `response.flags`.
    pub flag: u32,
    pub failure: Failure,
    /// Why a connection could not be made.
    pub transport: Option<String>,
    /// The target of a redirect.
    pub location: Option<HeaderValue>,
}

/// Bits of `response.flags`, by Envoy's short names.
pub mod flags {
    pub const UT: u32 = 1 << 2;
    pub const UR: u32 = 1 << 4;
    pub const UF: u32 = 1 << 5;
    pub const UC: u32 = 1 << 6;
    pub const UO: u32 = 1 << 7;
    pub const NR: u32 = 1 << 8;
    pub const URX: u32 = 1 << 15;
}

impl UpstreamError {
    pub fn new(status: u16, text: &str, details: &str) -> UpstreamError {
        UpstreamError {
            status,
            text: text.into(),
            details: details.into(),
            flag: 0,
            failure: Failure::Ours,
            transport: None,
            location: None,
        }
    }

    /// An error in the words of Envoy's router.
    pub fn reset(status: u16, reason: &str) -> UpstreamError {
        let details = format!("upstream_reset_before_response_started{{{}}}", reason.replace(' ', "_"));
        let (flag, failure) = match reason {
            "overflow" => (flags::UO, Failure::Ours),
            "remote refused stream reset" => (flags::UR, Failure::Refused),
            "remote reset" => (flags::UR, Failure::Reset),
            _ => (flags::UC, Failure::Reset),
        };
        UpstreamError {
            status,
            text: format!("{RESET}{reason}"),
            details,
            flag,
            failure,
            transport: None,
            location: None,
        }
    }

    /// The error for a connection that could not be made.
    pub fn connect(reason: &str) -> UpstreamError {
        UpstreamError { flag: flags::UF, failure: Failure::Connect, ..UpstreamError::reset(503, reason) }
    }

    pub fn unsendable() -> UpstreamError {
        UpstreamError::new(503, "the request cannot be sent: a filter made a malformed header", "invalid_header")
    }

    pub fn no_route() -> UpstreamError {
        UpstreamError { flag: flags::NR, ..UpstreamError::new(404, "", "route_not_found") }
    }

    /// The error for a header that should name the upstream, and names none.
    pub fn no_cluster() -> UpstreamError {
        UpstreamError::new(503, "", "cluster_not_found")
    }

    fn too_late(details: &str, failure: Failure) -> UpstreamError {
        UpstreamError { flag: flags::UT, failure, ..UpstreamError::new(504, "upstream request timeout", details) }
    }
}

/// A connection to a server, for another protocol than HTTP.
pub type Connection = TokioIo<<Connector as Service<Uri>>::Response>;

/// Counters of an upstream, in all configurations together.
#[derive(Default)]
pub struct Counted {
    pub retries: AtomicU64,
    pub overflows: AtomicU64,
}

/// An upstream, which Envoy calls a cluster.
pub struct Upstream {
    pub name: Arc<str>,
    pub settings: config::Upstream,
    servers: Servers,
    http2: Vec<Option<Http2>>,
    http1: Vec<Http1>,
    connector: Connector,
    retry: Option<Policy>,
    slots: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    counted: Arc<Counted>,
}

/// What a request uses of an upstream until its response has ended.
pub struct Lease {
    _slot: OwnedSemaphorePermit,
    _used: Used,
}

/// The server, and the stream or connection that carries the request.
type Used = (Active, Option<Held>);

#[expect(dead_code, reason = "held until it is dropped")]
enum Held {
    Stream(Active),
    Connection(http1::Connection),
}

/// Options of a request to an upstream.
pub struct Call<'a> {
    /// The server that a filter has chosen.
    pub wanted: Option<&'a str>,
    pub timeout: Option<Duration>,
    /// When the response must be complete.
    pub deadline: Option<Instant>,
    pub retry: Option<&'a Policy>,
}

/// Where a request went.
#[derive(Default)]
pub struct UpstreamInfo {
    pub address: Address,
    pub attempts: u32,
}

/// A server's address, formatted only when it is read.
#[derive(Clone)]
pub enum Address {
    Named(Arc<str>),
    Reached(SocketAddr),
}

impl Default for Address {
    fn default() -> Address {
        Address::Named("".into())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Named(name) => out.write_str(name),
            Address::Reached(address) => address.fmt(out),
        }
    }
}

impl Upstream {
    pub fn new(
        name: &str,
        settings: config::Upstream,
        known: &mut AllKnown,
        counted: Arc<Counted>,
    ) -> Result<Upstream, String> {
        let whose = |what: String| format!("{name}: {what}");
        let mut all = Vec::new();
        for server in &settings.servers {
            let base = Base::new(&server.url).ok_or_else(|| whose(format!("{} is no URL of a server", server.url)))?;
            let known = known.entry((name.to_owned(), base.address())).or_default().clone();
            all.push(Server::new(base, server.weight, known));
        }
        let http1 = Connector::new(&settings, &[]).map_err(whose)?;
        let connector = http1.clone();
        let http1 = all.iter().map(|server| Http1::new(server.base.uri(), http1.clone(), &settings)).collect();
        let offered: &[&[u8]] = match settings.protocol {
            Protocol::Http1 => &[],
            Protocol::Http2 => &[b"h2"],
            Protocol::Auto => &[b"h2", b"http/1.1"],
        };
        let http2 = Connector::new(&settings, offered).map_err(whose)?;
        let http2 = all
            .iter()
            .map(|server| {
                let spoken = match settings.protocol {
                    Protocol::Http1 => false,
                    Protocol::Http2 => true,
                    Protocol::Auto => server.base.scheme == Scheme::HTTPS,
                };
                spoken.then(|| Http2::new(server.base.uri(), http2.clone(), &settings))
            })
            .collect();
        let most = match settings.protocol {
            Protocol::Http1 => settings.max_connections.min(settings.max_requests),
            _ => settings.max_requests,
        };
        Ok(Upstream {
            name: name.into(),
            servers: Servers::new(all, settings.balance, settings.outlier_detection.clone()),
            http1,
            http2,
            connector,
            retry: settings.retry.clone().map(Policy::new),
            slots: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            waiting: Arc::default(),
            counted,
            settings,
        })
    }

    /// Wait until a request may be sent.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, UpstreamError> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Ok(slot);
        }
        if self.waiting.load(Relaxed) < self.settings.max_pending_requests {
            let _waiting = Active::new(&self.waiting);
            if let Ok(Ok(slot)) = timeout(self.settings.connect_timeout.0, self.slots.clone().acquire_owned()).await {
                return Ok(slot);
            }
        }
        self.counted.overflows.fetch_add(1, Relaxed);
        Err(UpstreamError::reset(503, "overflow"))
    }

    /// Connect to a server, for another protocol than HTTP; after a failure to others, up to `attempts` in all.
    pub async fn connect(&self, attempts: usize) -> Result<(Connection, Address, Lease), UpstreamError> {
        let slot = self.slot().await?;
        let mut tried = Vec::new();
        loop {
            let (at, server) = self.servers.pick(&tried, None);
            tried.push(at);
            let active = server.begin();
            let connected = self.connector.clone().call(server.base.uri()).await;
            self.servers.note(at, connected.is_err());
            match connected {
                Ok(connection) => {
                    let lease = Lease { _slot: slot, _used: (active, None) };
                    return Ok((TokioIo::new(connection), Address::Named(server.address.clone()), lease));
                }
                Err(_) => {
                    server.known.connect_failures.fetch_add(1, Relaxed);
                    if tried.len() >= attempts {
                        return Err(UpstreamError::connect("connection failure"));
                    }
                }
            }
        }
    }

    /// Send a request and wait for its response. The time-out counts from the last part of the request. Failed requests
    /// are sent again as the policy says. `lease` gets what is in use until the response has ended.
    pub async fn ask(
        &self,
        head: Box<Head>,
        up: Up,
        progress: &Progress,
        call: Call<'_>,
        lease: &mut Option<Lease>,
        info: &mut UpstreamInfo,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let slot = self.slot().await?;
        let policy = call.retry.or(self.retry.as_ref()).filter(|_| head.upgrade.is_none());
        let Some(policy) = policy.filter(|policy| policy.num_retries() > 0) else {
            let picked = self.servers.pick(&[], call.wanted);
            let (answer, used) = self.attempt(picked, head, up, progress, (&call, None), info).await;
            *lease = Some(Lease { _slot: slot, _used: used });
            return answer;
        };
        Box::pin(self.ask_again((policy, slot, &call), head, up, progress, lease, info)).await
    }

    /// The same, with retries.
    async fn ask_again(
        &self,
        (policy, slot, call): (&Policy, OwnedSemaphorePermit, &Call<'_>),
        head: Box<Head>,
        up: Up,
        progress: &Progress,
        lease: &mut Option<Lease>,
        info: &mut UpstreamInfo,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let kept = (!matches!(up, Up::Nothing)).then(|| Kept::new(up, policy.max_body()));
        let mut body = kept.as_ref().and_then(Kept::again).unwrap_or(Up::Nothing);
        let mut tried = Vec::new();
        loop {
            let picked = self.servers.pick(&tried, call.wanted);
            tried.push(picked.0);
            let sent = std::mem::replace(&mut body, Up::Nothing);
            let per_try = policy.per_try_timeout();
            let (answer, used) = self.attempt(picked, head.clone(), sent, progress, (call, per_try), info).await;
            let wanted = policy.wants_after(&answer);
            let exhausted = info.attempts > policy.num_retries();
            if wanted
                && !exhausted
                && let Some(next) = kept.as_ref().map_or(Some(Up::Nothing), Kept::again)
            {
                body = next;
                drop((answer, used));
                self.counted.retries.fetch_add(1, Relaxed);
                sleep(policy.wait(info.attempts)).await;
                continue;
            }
            *lease = Some(Lease { _slot: slot, _used: used });
            let flag = if wanted && exhausted { flags::URX } else { 0 };
            return answer.map_err(|error| UpstreamError { flag: error.flag | flag, ..error });
        }
    }

    /// Send a request to a server, and note how it went.
    async fn attempt(
        &self,
        (at, server): (usize, &Server),
        head: Box<Head>,
        up: Up,
        progress: &Progress,
        (call, per_try): (&Call<'_>, Option<Duration>),
        info: &mut UpstreamInfo,
    ) -> (Result<Response<Incoming>, UpstreamError>, Used) {
        let active = server.begin();
        info.attempts += 1;
        info.address = Address::Named(server.address.clone());
        let mut held = None;
        let answer = {
            let mut sent = pin!(self.send(at, server, head, up, progress, &mut held));
            let (began, limit) = (Instant::now(), call.timeout.unwrap_or(self.settings.timeout.0));
            loop {
                let (last, deadline) = (progress.last(), call.deadline);
                let whole = deadline.map_or(last + limit, |deadline| deadline.min(last + limit));
                let this = per_try.map(|limit| last.max(began) + limit).filter(|this| *this < whole);
                tokio::select! {
                    biased;
                    answer = &mut sent => break answer,
                    () = sleep_until(this.unwrap_or(whole)) => {
                        if last < progress.last() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
                            continue; // a part of the request has arrived
                        }
                        break Err(match this {
                            Some(_) => UpstreamError::too_late("upstream_per_try_timeout", Failure::Reset),
                            None => UpstreamError::too_late("response_timeout", Failure::Late),
                        });
                    }
                }
            }
        };
        let answer = answer.map(|(response, remote)| {
            if let Some(remote) = remote {
                info.address = Address::Reached(remote);
            }
            response
        });
        match &answer {
            Ok(response) => self.servers.note(at, response.status().is_server_error()),
            Err(error) if error.failure != Failure::Ours => {
                if error.failure == Failure::Connect {
                    server.known.connect_failures.fetch_add(1, Relaxed);
                }
                self.servers.note(at, true);
            }
            Err(_) => (),
        }
        (answer, (active, held))
    }

    async fn send(
        &self,
        at: usize,
        server: &Server,
        head: Box<Head>,
        up: Up,
        progress: &Progress,
        held: &mut Option<Held>,
    ) -> Result<(Response<Incoming>, Option<SocketAddr>), UpstreamError> {
        let rewrite = self.settings.rewrite_host;
        let upgrades = head.upgrade.is_some();
        // with ALPN, a server may support WebSockets over HTTP/1.1 only, so that is used
        if let Some(http2) = self.http2[at].as_ref().filter(|_| !upgrades || self.settings.protocol == Protocol::Http2)
        {
            // boxed, so that requests over HTTP/1.1 do not reserve its space
            Box::pin(http2.ready(self.settings.protocol == Protocol::Http2)).await?;
            if !http2.is_declined() {
                let mut request =
                    for_upstream(head, &server.base, rewrite, true, up).ok_or_else(UpstreamError::unsendable)?;
                let accepted = upgrades.then(|| websocket::connect(&mut request));
                return match Box::pin(http2.send(request)).await {
                    Ok(Answer { mut response, remote, stream: used }) => {
                        *held = Some(Held::Stream(used));
                        accepted.into_iter().for_each(|accepted| websocket::connected(&mut response, accepted));
                        self.check(&response, upgrades)?;
                        Ok((response, remote))
                    }
                    Err(Failed::Upstream(error)) => Err(error),
                    Err(Failed::Hyper(error)) => Err(broken(&error, progress.stopped())),
                };
            }
        }
        let request = for_upstream(head, &server.base, rewrite, false, up).ok_or_else(UpstreamError::unsendable)?;
        let (response, connection) = self.http1[at].send(request).await?;
        self.check(&response, upgrades)?;
        let remote = connection.remote;
        *held = Some(Held::Connection(connection));
        Ok((response, remote))
    }

    /// Refuse an invalid response.
    fn check(&self, response: &Response<Incoming>, upgrades: bool) -> Result<(), UpstreamError> {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let too_large = headers.len() > self.settings.max_headers || size(headers) > self.settings.max_header_size;
        match too_large || status > 599 || (status < 200 && !(status == 101 && upgrades)) {
            true => Err(UpstreamError::reset(502, "protocol error")),
            false => Ok(()),
        }
    }
}

// -- What went wrong ----------------------------------------------------------------------------------------------

/// The error for a connection that could not be made, with the reason.
pub fn not_connected(error: &(dyn std::error::Error + 'static)) -> UpstreamError {
    let (mut last, mut untrusted) = (error, tls::tls_error(error));
    while let Some(source) = last.source() {
        last = source;
        untrusted = untrusted.or_else(|| tls::tls_error(last));
    }
    if last.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
        return UpstreamError::connect("connection timeout");
    }
    let failed = UpstreamError::connect("remote connection failure");
    let why = match untrusted {
        Some(rustls::Error::InvalidCertificate(why)) => format!("certificate verify failed: {why}"),
        _ => last.to_string(),
    };
    let text = format!("{}, transport failure reason: {why}", failed.text);
    UpstreamError { text, transport: Some(why), ..failed }
}

/// The error for a connection or an exchange that broke off; `stopped`: why the request's body did.
pub fn broken(error: &hyper::Error, stopped: Option<Stopped>) -> UpstreamError {
    if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
        return UpstreamError::reset(502, "protocol error");
    }
    let by_us = error.source().and_then(|source| source.downcast_ref::<Stopped>()).copied();
    if error.is_user() || stopped.is_some() {
        return match by_us.or(stopped) {
            Some(Stopped::TooSlow) => UpstreamError::new(408, "request timeout", "request_overall_timeout"),
            Some(Stopped::Broken) => UpstreamError::new(400, "", "downstream_remote_disconnect"),
            Some(Stopped::WrongLength) => UpstreamError {
                failure: Failure::Ours,
                ..UpstreamError::reset(503, "the request's body has another length than its content-length")
            },
            None => UpstreamError::unsendable(),
        };
    }
    match error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
        Some(error) if error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            UpstreamError::reset(503, "remote refused stream reset")
        }
        Some(error) if error.is_reset() && error.is_remote() => UpstreamError::reset(503, "remote reset"),
        Some(error) if error.is_reset() || error.is_library() => UpstreamError::reset(502, "protocol error"),
        _ => UpstreamError::reset(503, "connection termination"),
    }
}
