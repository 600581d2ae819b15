//! One request and its response, from the client to upstream and back, through filters if there are any.

use crate::access::{Format, Line, Record};
use crate::body::{Content, Down, Finish, Progress, Size, Source, Stopped, Up, first_piece, poll_feed, poll_piece};
use crate::config::Peer;
use crate::filters::{Filters, Piece, RequestOut, ResponseOut, Stream, StreamInfo, length};
use crate::head::{self, Head, REQUEST_ID, Refused};
use crate::routes::Route;
use crate::server::Busy;
use crate::server_thread::{Generation, ServerThread};
use crate::tcp;
use crate::tunnel;
use crate::upstream::{Call, Lease, Upstream, UpstreamError, UpstreamInfo};
use crate::websocket;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// What belongs to a response in addition to its head and body.
struct Rest {
    record: Record,
    busy: Busy,
    lease: Option<Lease>,
    finish: Option<Finish>,
    /// Whether the client has asked for a WebSocket over HTTP/2.
    connect: bool,
}

impl Rest {
    fn response(mut self, status: StatusCode, headers: HeaderMap, content: Content) -> Response<Down> {
        let ends = self.busy.ends_with(&content);
        if self.connect && status.is_success() {
            self = self.ended(); // refused below: the client has not left
        }
        let (status, headers, content) = match self.connect {
            true => websocket::to_connect(status, headers, content),
            false => (status, headers, content),
        };
        self.record.status = status.as_u16();
        let mut response = Response::new(Down {
            content,
            record: self.record,
            stream: self.finish,
            _lease: self.lease,
            busy: self.busy,
        });
        if ends {
            *response.version_mut() = Version::HTTP_10; // hyper then closes the connection by default
        }
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// Answer a client whose message broke off or is invalid.
    fn broken(self) -> Response<Down> {
        let refusal =
            self.busy.refusal().map_or((400, String::new()), |refusal| (refusal.0, format!("{}\n", refusal.1)));
        self.refuse(StatusCode::from_u16(refusal.0).expect("ours"), &refusal.1)
    }

    /// Refuse a request ourselves; a connection of HTTP/1 closes after that.
    fn refuse(self, status: StatusCode, text: &str) -> Response<Down> {
        let closes = self.busy.refuse();
        let mut response = self.answer(status, text);
        if closes {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Answer without upstream and filters.
    fn answer(mut self, status: StatusCode, text: &str) -> Response<Down> {
        if let Some(finish) = &mut self.finish {
            finish.1 = true;
        }
        let mut headers = HeaderMap::new();
        if !text.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        self.response(status, headers, Content::Whole(Some(Bytes::copy_from_slice(text.as_bytes()))))
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// A request whose head has been read.
pub struct Exchange {
    generation: Rc<Generation>,
    peer: Rc<Peer>,
    head: Box<Head>,
    body: Incoming,
    /// The client's connection, if it asks for another protocol.
    client: Option<OnUpgrade>,
    /// The `Sec-WebSocket-Accept` for the key that we made, if the client opens a WebSocket over HTTP/2.
    accepted: Option<Box<HeaderValue>>,
    protocol: &'static str,
    rest: Rest,
}

/// Read a request's head. A refused request gets the response in the error.
pub fn begin(
    thread: &ServerThread,
    peer: Rc<Peer>,
    busy: Busy,
    mut request: Request<Incoming>,
) -> Result<Exchange, Box<Response<Down>>> {
    let generation = thread.generation();
    let accepted = websocket::from_connect(&mut request).map(Box::new);
    let upgrades = request.version() >= Version::HTTP_11 && request.headers().contains_key(header::UPGRADE);
    let client = upgrades.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let read = head::read(&parts, &peer, generation.config.clients.max_headers);
    let mut line = (generation.log.format != Format::Off).then(|| Line {
        client: Some(peer.client.ip()),
        method: parts.method.as_str().to_owned(),
        https: peer.tls.is_some(),
        target: parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), |both| both.as_str().to_owned()),
        protocol: match parts.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        ..Line::default()
    });
    let begin = |line| Record::begin(line, generation.log.clone(), thread.counts.clone());
    let mut head = match read {
        Ok(head) => head,
        Err(Refused(status, why)) => {
            let rest = Rest { record: begin(line), busy, lease: None, finish: None, connect: false };
            return Err(Box::new(rest.refuse(status, &format!("{why}\n"))));
        }
    };
    head::forward(&mut head, &generation.config.forwarded, &peer);
    if let Some(line) = &mut line {
        line.https = head.https;
        line.client = head.origin.or(line.client);
        if generation.log.format == Format::Json {
            let text = |name| {
                head.headers.get(name).map(|value| String::from_utf8_lossy(HeaderValue::as_bytes(value)).into_owned())
            };
            line.host = Some(String::from_utf8_lossy(head.authority.as_bytes()).into_owned());
            line.agent = text(header::USER_AGENT);
            line.request_id = text(REQUEST_ID);
        }
    }
    let rest = Rest { record: begin(line), busy, lease: None, finish: None, connect: accepted.is_some() };
    let protocol = protocol(parts.version);
    Ok(Exchange { generation, peer, head, body, client, accepted, protocol, rest })
}

impl Exchange {
    pub async fn run(self) -> Response<Down> {
        let Exchange { generation, peer, mut head, body, client, accepted, protocol, mut rest } = self;
        let route = generation.routes.choose(&head);
        let chain = route.map_or(generation.config.chain, |route| route.chain);
        let opens = head.upgrade.as_ref().is_some_and(|to| websocket::is(to.as_bytes()));
        if !(opens && body.is_end_stream()) {
            head.upgrade = None; // serve the request without an upgrade
        }
        rest.record.upstream(route, &UpstreamInfo::default());
        let destination = Destination {
            generation: &generation,
            route,
            began: Instant::now(),
            drawn: fastrand::u64(..),
            accepted: accepted.as_deref(),
        };
        match (&generation.filters, chain) {
            (Some(filters), Some(chain)) => {
                let filtered = Filtered { destination, chain, method: head.method.clone() };
                filtered.run(filters, head, (body, client), (protocol, &peer), rest).await
            }
            _ => direct(destination, head, body, client, rest).await,
        }
    }
}

/// The destination of a request.
#[derive(Clone, Copy)]
struct Destination<'a> {
    generation: &'a Generation,
    route: Option<&'a Route>,
    began: Instant,
    /// A random number, which chooses among several upstreams.
    drawn: u64,
    /// The `Sec-WebSocket-Accept` for the key that we made, if the client opens a WebSocket over HTTP/2.
    accepted: Option<&'a HeaderValue>,
}

/// The upstream that a request went to, and what it uses there.
#[derive(Default)]
struct UpstreamRequest {
    upstream: Option<Arc<Upstream>>,
    lease: Option<Lease>,
    upstream_info: UpstreamInfo,
}

impl<'a> Destination<'a> {
    fn upstream(&self, head: &Head) -> Option<Arc<Upstream>> {
        self.generation.routes.upstream(self.route?, head, self.drawn)
    }

    /// How long a body may make no progress.
    fn idle(&self, upstream: Option<&Arc<Upstream>>) -> Duration {
        upstream.map_or(self.generation.config.stream_idle_timeout, |upstream| upstream.settings.idle_timeout).0
    }

    fn deadline(&self, upstream: &Upstream) -> Option<Instant> {
        upstream.settings.total_timeout.map(|limit| self.began + limit.0)
    }

    /// The body of the client's request.
    fn request_source(&self, body: Incoming, upstream: Option<&Arc<Upstream>>) -> Source {
        Source::new(body, self.idle(upstream), self.generation.config.clients.max_headers)
    }

    /// The body of upstream's response.
    fn source(&self, body: Incoming, upstream_request: &UpstreamRequest) -> Source {
        let upstream = upstream_request.upstream.as_ref();
        let fields = upstream.map_or(usize::MAX, |upstream| upstream.settings.max_headers);
        Source::new(body, self.idle(upstream), fields).until(upstream.and_then(|upstream| self.deadline(upstream)))
    }

    /// Send a request to its upstream, and wait for the response.
    async fn ask(
        &self,
        mut head: Box<Head>,
        up: Up,
        progress: &Progress,
        wanted: Option<&str>,
        upstream_request: &mut UpstreamRequest,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let route = self.route.ok_or_else(UpstreamError::no_route)?;
        if let Some(answer) = route.answer(&head) {
            return Err(answer);
        }
        let upstream = self.upstream(&head).ok_or_else(UpstreamError::no_cluster)?;
        upstream_request.upstream = Some(upstream.clone());
        route.rewrite(&mut head);
        let deadline = self.deadline(&upstream);
        let call = Call { wanted, timeout: route.timeout, deadline, retry: route.retry.as_ref() };
        let (lease, info) = (&mut upstream_request.lease, &mut upstream_request.upstream_info);
        let response = upstream.ask(head, up, progress, call, lease, info).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && self.accepted.is_some_and(|it| response.headers().get(header::SEC_WEBSOCKET_ACCEPT) != Some(it))
        {
            return Err(UpstreamError::reset(502, "protocol error"));
        }
        Ok(response)
    }
}

// -- Without filters ----------------------------------------------------------------------------------------------

async fn direct(
    destination: Destination<'_>,
    head: Box<Head>,
    body: Incoming,
    client: Option<OnUpgrade>,
    mut rest: Rest,
) -> Response<Down> {
    let progress = Progress::begin();
    let is_head = head.method == Method::HEAD;
    let up = match body.is_end_stream() {
        true => Up::Nothing,
        false => Up::Plain(destination.request_source(body, destination.upstream(&head).as_ref()).noting(&progress)),
    };
    let mut upstream_request = UpstreamRequest::default();
    let answer = destination.ask(head, up, &progress, None, &mut upstream_request).await;
    rest.record.upstream(destination.route, &upstream_request.upstream_info);
    rest.lease = upstream_request.lease.take();
    let mut response = match answer {
        Ok(response) => response,
        Err(UpstreamError { status: 400, .. }) => return rest.broken(),
        Err(error) => {
            rest.record.details = Some(error.details);
            let mut response = rest.answer(StatusCode::from_u16(error.status).expect("ours"), &error.text);
            error.location.into_iter().for_each(|to| drop(response.headers_mut().insert(header::LOCATION, to)));
            return response;
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (server, headers) = head::switching(&mut response);
        let idle = destination.generation.config.stream_idle_timeout.0;
        return switched(client, server, None, headers, rest, idle);
    }
    let (parts, body) = response.into_parts();
    let headers = head::end_to_end(&parts.headers);
    let content = match is_head || body.is_end_stream() {
        true => Content::Nothing,
        false => Content::Plain(destination.source(body, &upstream_request)),
    };
    rest.response(parts.status, headers, content)
}

/// Carry both sides after they have switched to another protocol, through filters if there are any.
fn switched(
    client: Option<OnUpgrade>,
    server: OnUpgrade,
    stream: Option<Arc<Stream>>,
    headers: HeaderMap,
    mut rest: Rest,
    idle: Duration,
) -> Response<Down> {
    let (lease, finish, busy) = (rest.lease.take(), rest.finish.take(), rest.busy.again());
    rest.busy.switched();
    let thread = busy.thread();
    let carried = Box::pin(async move {
        let (_lease, mut finish, _busy) = (lease, finish, busy);
        if let (Some(client), server) = (client, server.await)
            && let (Ok(client), Ok(server)) = (client.await, server)
        {
            let (client, server) = (TokioIo::new(client), TokioIo::new(server));
            let ended = match &stream {
                Some(stream) => {
                    let switched = tunnel::Switched(stream, Cell::new(Instant::now()));
                    let carried = tunnel::both_ways(&switched, client, server, false);
                    // the driver ends an idle one sooner, and logs that, unless the response has ended
                    tunnel::moving(&switched, idle * 2, carried).await.is_some_and(|ended| ended.is_ok())
                }
                None => tcp::unfiltered(client, server, idle).await,
            };
            if let Some(finish) = &mut finish {
                finish.1 = ended;
            }
        }
    });
    tokio::task::spawn_local(async move { thread.carry(carried).await });
    rest.response(StatusCode::SWITCHING_PROTOCOLS, headers, Content::Nothing)
}

// -- Through filters ----------------------------------------------------------------------------------------------

struct Filtered<'a> {
    destination: Destination<'a>,
    chain: usize,
    method: Method,
}

enum Came {
    Up(RequestOut, bool),
    Down(ResponseOut, bool),
    Reset,
    /// The client broke off.
    Gone(Stopped),
}

impl Filtered<'_> {
    async fn run(
        mut self,
        filters: &Arc<Filters>,
        mut head: Box<Head>,
        (body, client): (Incoming, Option<OnUpgrade>),
        (protocol, peer): (&str, &Peer),
        mut rest: Rest,
    ) -> Response<Down> {
        let upstream = self.destination.upstream(&head);
        let progress = Progress::begin();
        let upgrades = head.upgrade.is_some();
        if let Some(to) = &head.upgrade {
            head::upgrade(&mut head.headers, to.clone());
        }
        let whole = body.is_end_stream();
        let end = whole && !upgrades; // after a switch, the client's data is the body
        let came = head.headers.get(header::CONTENT_LENGTH).cloned();
        let stream_info =
            StreamInfo { route: self.destination.route, upstream: upstream.as_deref(), ..StreamInfo::default() };
        let stream = match filters.begin(self.chain, &head, protocol, peer, end, &stream_info) {
            Ok(stream) => stream,
            Err(error) => {
                crate::unraisable(error);
                return rest.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
            }
        };
        rest.finish = Some(Finish(stream.clone(), false));
        let mut source = (!whole).then(|| self.destination.request_source(body, upstream.as_ref()).noting(&progress));
        let (mut head, end) = match request_head(&stream, &mut source).await {
            Came::Up(Some(head), end) => (head, end),
            Came::Up(None, _) => return rest.answer(StatusCode::SERVICE_UNAVAILABLE, ""),
            Came::Down(head, end) => {
                return self.respond(&stream, None, head, end, None, rest).await;
            }
            Came::Reset => return rest.answer(StatusCode::SERVICE_UNAVAILABLE, ""),
            Came::Gone(Stopped::TooSlow) => {
                return rest.answer(StatusCode::REQUEST_TIMEOUT, "request timeout");
            }
            Came::Gone(_) => return rest.broken(),
        };
        head.upgrade = head.upgrade.filter(|_| upgrades);
        if upgrades && head.upgrade.is_none() {
            // a filter has removed the upgrade
            if let Err(error) = stream.request_piece(Piece::Data(Bytes::new(), true)) {
                crate::unraisable(error);
                return rest.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
            }
        }
        let up = if head.upgrade.is_some() {
            head.headers.remove(header::CONTENT_LENGTH); // a filter's, but no body follows
            Up::Nothing
        } else if end {
            Up::Nothing
        } else {
            if let Some(said) = head.headers.get(header::CONTENT_LENGTH)
                && (came.as_ref() != Some(said) || stream.changes_bodies())
            {
                match request_size(&stream, &mut source).await {
                    Some(size) => head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size)),
                    None => head.headers.remove(header::CONTENT_LENGTH),
                };
            }
            let size = Size(head.headers.get(header::CONTENT_LENGTH).and_then(length));
            Up::Filtered(stream.clone(), source.take(), size)
        };
        let chosen = self.destination.generation.routes.choose(&head);
        if chosen.map(std::ptr::from_ref) != self.destination.route.map(std::ptr::from_ref) && !stream.keeps_route() {
            self.destination.route = chosen;
        }
        let wanted = stream.flow().wanted.take();
        let mut upstream_request = UpstreamRequest::default();
        let answer = tokio::select! {
            biased;
            () = answered(&stream) => None,
            answer = self.destination.ask(head, up, &progress, wanted.as_deref(), &mut upstream_request) => Some(answer),
        };
        rest.record.upstream(self.destination.route, &upstream_request.upstream_info);
        rest.lease = upstream_request.lease.take();
        let stream_info = StreamInfo {
            route: self.destination.route,
            upstream: upstream_request.upstream.as_deref(),
            upstream_info: Some(&upstream_request.upstream_info),
            error: None,
        };
        match answer {
            None => match response_head(&stream, &mut None).await {
                Some((head, end)) => self.respond(&stream, None, head, end, None, rest).await,
                None => rest.answer(StatusCode::SERVICE_UNAVAILABLE, ""),
            },
            Some(Ok(mut response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let (server, headers) = head::switching(&mut response);
                let to = headers.get(header::UPGRADE).cloned();
                stream.flow().switching = true;
                if let Err(error) = stream.response_head(response.status(), &headers, false, None, &stream_info) {
                    crate::unraisable(error);
                    return rest.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
                }
                match response_head(&stream, &mut None).await {
                    Some((Some((StatusCode::SWITCHING_PROTOCOLS, mut headers)), false)) => {
                        to.into_iter().for_each(|to| head::upgrade(&mut headers, to));
                        let idle = self.destination.generation.config.stream_idle_timeout.0;
                        switched(client, server, Some(stream), headers, rest, idle)
                    }
                    Some((head, end)) => self.respond(&stream, None, head, end, None, rest).await,
                    None => rest.answer(StatusCode::SERVICE_UNAVAILABLE, ""),
                }
            }
            Some(Ok(response)) => {
                let (parts, body) = response.into_parts();
                let end = self.method == Method::HEAD || body.is_end_stream();
                let headers = head::end_to_end(&parts.headers);
                let came = headers.get(header::CONTENT_LENGTH).cloned();
                let mut source = (!end).then(|| self.destination.source(body, &upstream_request));
                let first = first_piece(&mut source).await;
                stream.flow().down.waker = None; // this task reads the result itself
                if let Err(error) = stream.response_head(parts.status, &headers, end, first, &stream_info) {
                    crate::unraisable(error);
                    return rest.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
                }
                match response_head(&stream, &mut source).await {
                    Some((head, end)) => self.respond(&stream, source, head, end, came, rest).await,
                    None => rest.answer(StatusCode::SERVICE_UNAVAILABLE, ""),
                }
            }
            Some(Err(UpstreamError { status: 400, .. })) => rest.broken(),
            Some(Err(error)) => self.respond_error(&stream, &error, stream_info, rest).await,
        }
    }

    /// Answer instead of upstream; the answer passes the filters as upstream's would.
    async fn respond_error(
        self,
        stream: &Arc<Stream>,
        error: &UpstreamError,
        stream_info: StreamInfo<'_>,
        mut rest: Rest,
    ) -> Response<Down> {
        rest.record.details = Some(error.details.clone());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(error.text.len()));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if let Some(to) = &error.location {
            headers.remove(header::CONTENT_TYPE);
            headers.insert(header::LOCATION, to.clone());
        }
        let end = self.method == Method::HEAD;
        let status = StatusCode::from_u16(error.status).expect("ours");
        let came = headers.get(header::CONTENT_LENGTH).cloned();
        let stream_info = StreamInfo { error: Some(error), ..stream_info };
        let text = (!end).then(|| Piece::Data(error.text.clone().into(), true));
        if let Err(error) = stream.response_head(status, &headers, end, text, &stream_info) {
            crate::unraisable(error);
            return rest.answer(StatusCode::INTERNAL_SERVER_ERROR, "");
        }
        match response_head(stream, &mut None).await {
            Some((head, end)) => self.respond(stream, None, head, end, came, rest).await,
            None => rest.answer(StatusCode::SERVICE_UNAVAILABLE, ""),
        }
    }

    /// Send the client what has come out of the filters, and what follows.
    async fn respond(
        self,
        stream: &Arc<Stream>,
        mut source: Option<Source>,
        head: ResponseOut,
        end: bool,
        came: Option<HeaderValue>,
        rest: Rest,
    ) -> Response<Down> {
        let Some((status, mut headers)) = head else {
            return rest.answer(StatusCode::SERVICE_UNAVAILABLE, "");
        };
        let bodiless = self.method == Method::HEAD || matches!(status.as_u16(), 204 | 304);
        if bodiless || end {
            match headers.get(header::CONTENT_LENGTH) {
                Some(_) if !bodiless => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"))),
                Some(said) if length(said).is_none() => drop(headers.remove(header::CONTENT_LENGTH)),
                _ => (),
            }
            return rest.ended().response(status, headers, Content::Nothing);
        }
        if let Some(said) = headers.get(header::CONTENT_LENGTH)
            && (came.as_ref() != Some(said) || stream.changes_bodies())
        {
            match response_size(stream, &mut source).await {
                Some(size) => headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size)),
                None => headers.remove(header::CONTENT_LENGTH),
            };
        }
        let size = Size(headers.get(header::CONTENT_LENGTH).and_then(length));
        rest.response(status, headers, Content::Filtered(source, size))
    }
}

impl Rest {
    fn ended(mut self) -> Rest {
        if let Some(finish) = &mut self.finish {
            finish.1 = true;
        }
        self
    }
}

/// Feed the request's body to the filters until its head, or an answer, comes out.
fn request_head<'a>(stream: &'a Arc<Stream>, source: &'a mut Option<Source>) -> impl Future<Output = Came> + 'a {
    poll_fn(move |context| {
        loop {
            {
                let mut flow = stream.flow();
                if let Some((head, end)) = flow.down.head.take() {
                    return Poll::Ready(Came::Down(head, end));
                }
                if flow.reset {
                    return Poll::Ready(Came::Reset);
                }
                if let Some((head, end)) = flow.up.head.take() {
                    return Poll::Ready(Came::Up(head, end));
                }
                flow.up.waker = Some(context.waker().clone());
                if flow.up.full || source.is_none() {
                    return Poll::Pending;
                }
            }
            match ready!(poll_feed(stream, source, context)) {
                Ok(true) => (),
                Ok(false) => return Poll::Ready(Came::Reset),
                Err(stopped) => return Poll::Ready(Came::Gone(stopped)),
            }
        }
    })
}

/// The length of the request's body, if the next piece to come out is the last.
fn request_size<'a>(
    stream: &'a Arc<Stream>,
    source: &'a mut Option<Source>,
) -> impl Future<Output = Option<usize>> + 'a {
    poll_fn(move |context| {
        loop {
            {
                let mut flow = stream.flow();
                if flow.up.complete || !flow.up.pieces.is_empty() || flow.reset || flow.down.head.is_some() {
                    return Poll::Ready(size(flow.up.complete, &flow.up.pieces));
                }
                flow.up.waker = Some(context.waker().clone());
                if flow.up.full || source.is_none() {
                    return Poll::Pending;
                }
            }
            if !matches!(ready!(poll_feed(stream, source, context)), Ok(true)) {
                return Poll::Ready(None);
            }
        }
    })
}

fn size(complete: bool, pieces: &std::collections::VecDeque<Piece>) -> Option<usize> {
    let mut all = 0;
    for piece in pieces {
        match piece {
            Piece::Data(data, _) => all += data.len(),
            Piece::Trailers(_) => return None,
        }
    }
    complete.then_some(all)
}

/// Wait until the filters answer the client or reset the stream, before upstream has answered.
fn answered(stream: &Arc<Stream>) -> impl Future<Output = ()> + '_ {
    poll_fn(move |context| {
        let mut flow = stream.flow();
        if flow.down.head.is_some() || flow.reset {
            return Poll::Ready(());
        }
        flow.down.waker = Some(context.waker().clone());
        Poll::Pending
    })
}

/// Feed the response's body to the filters until its head comes out; `None` if the stream is reset.
fn response_head<'a>(
    stream: &'a Arc<Stream>,
    source: &'a mut Option<Source>,
) -> impl Future<Output = Option<(ResponseOut, bool)>> + 'a {
    poll_fn(move |context| {
        loop {
            {
                let mut flow = stream.flow();
                if let Some(head) = flow.down.head.take() {
                    return Poll::Ready(Some(head));
                }
                if flow.reset {
                    return Poll::Ready(None);
                }
                flow.down.waker = Some(context.waker().clone());
                if flow.down.full || source.is_none() {
                    return Poll::Pending;
                }
            }
            if !ready!(feed_response(stream, source, context)) {
                return Poll::Ready(None);
            }
        }
    })
}

/// The length of the response's body, if the next piece to come out is the last.
fn response_size<'a>(
    stream: &'a Arc<Stream>,
    source: &'a mut Option<Source>,
) -> impl Future<Output = Option<usize>> + 'a {
    poll_fn(move |context| {
        loop {
            {
                let mut flow = stream.flow();
                if flow.down.complete || !flow.down.pieces.is_empty() || flow.reset {
                    return Poll::Ready(size(flow.down.complete, &flow.down.pieces));
                }
                flow.down.waker = Some(context.waker().clone());
                if flow.down.full || source.is_none() {
                    return Poll::Pending;
                }
            }
            if !ready!(feed_response(stream, source, context)) {
                return Poll::Ready(None);
            }
        }
    })
}

/// Feed the next piece of the response to the filters; false if it breaks off.
fn feed_response(
    stream: &Arc<Stream>,
    source: &mut Option<Source>,
    context: &mut std::task::Context<'_>,
) -> Poll<bool> {
    let Some(from) = source else {
        return Poll::Pending;
    };
    Poll::Ready(match ready!(poll_piece(from, context)) {
        Ok((piece, end)) => {
            if end {
                *source = None;
            }
            stream.flow().down.waker = None;
            match stream.response_piece(piece) {
                Ok(()) => true,
                Err(error) => {
                    crate::unraisable(error);
                    false
                }
            }
        }
        Err(_) => {
            stream.flow().reset = true;
            false
        }
    })
}
