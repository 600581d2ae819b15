//! The side of clients: connections, their limits and time-outs, and how they end.

use crate::access::{Line, Record};
use crate::body::Content;
use crate::config::{Clients, Peer, TlsInfo};
use crate::exchange;
use crate::http1_syntax::{Http1Syntax, Refusal};
use crate::server_thread::{Counted, ServerThread};
use http::Version;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

const LATE: Refusal = Refusal(408, "the head of the request took too long");
const FULL: Refusal = Refusal(503, "there are too many connections");
/// How long to wait when no descriptor is left for a connection.
const REST: Duration = Duration::from_millis(50);
/// Most bytes that are read or written at once: many, so that filters get a body in few parts. (`http1_syntax` limits
/// heads.)
pub const AT_ONCE: usize = 128 << 10;
/// Most headers that hyper accepts by default; `http1_syntax` counts them, too.
pub const HEADERS: usize = 100;
const LINGER: Duration = Duration::from_secs(1);

/// The state of a connection: what it is doing, the first line of a refused request, and its descriptor.
struct State(Mutex<Now>, Mutex<String>, RawFd);

#[derive(Clone, Copy)]
struct Now {
    under_way: usize,
    /// When the last request ended, or the current head began.
    since: Instant,
    /// Part of a head has arrived.
    begun: bool,
    http2: bool,
    /// The head took too long.
    late: bool,
    refusal: Option<Refusal>,
    /// The refused bytes are in a body.
    in_body: bool,
    /// The client has switched to another protocol.
    switched: bool,
    /// The connection closes after the current response, whatever the client has sent after its request.
    last: bool,
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap() // only one thread uses it
    }
}

/// A request under way on a connection. The connection counts while there is one, also after a switch of protocols.
pub struct Busy(Arc<State>, Version, Rc<Counted>);

impl Busy {
    fn begin(state: &Arc<State>, version: Version, counted: &Rc<Counted>) -> Busy {
        let mut now = state.now();
        now.under_way += 1;
        now.http2 = version == Version::HTTP_2;
        drop(now);
        Busy(state.clone(), version, counted.clone())
    }

    /// Whether the connection must close to end a response, whatever the client has asked for: in HTTP/1.0, nothing
    /// else ends a body of unknown length.
    pub fn ends_with(&self, content: &Content) -> bool {
        self.1 < Version::HTTP_11 && content.size_hint().exact().is_none()
    }

    /// Note that the response breaks off. Where closing would mean its regular end, reset the connection instead.
    pub fn broken(&self) {
        if self.1 < Version::HTTP_11 {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            let size = size_of::<libc::linger>() as libc::socklen_t;
            unsafe {
                libc::setsockopt(self.0.2, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const at_once).cast(), size);
            }
        }
    }
}

impl Busy {
    /// Why the client's body is invalid, if it is.
    pub fn refusal(&self) -> Option<Refusal> {
        let now = self.0.now();
        now.refusal.filter(|_| now.in_body)
    }

    /// Note that the request is refused. Returns whether the connection closes after the response, as in HTTP/1.
    pub fn refuse(&self) -> bool {
        let last = self.1 < Version::HTTP_2;
        self.0.now().last |= last;
        last
    }

    /// Count work that continues after the response, such as a tunnel.
    pub fn again(&self) -> Busy {
        Busy::begin(&self.0, self.1, &self.2)
    }

    pub fn thread(&self) -> Rc<ServerThread> {
        self.2.0.clone()
    }

    /// Note that the client has switched to another protocol.
    pub fn switched(&self) {
        self.0.now().switched = true;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut now = self.0.now();
        now.under_way -= 1;
        now.since = Instant::now();
        now.begun = false;
    }
}

/// A connection's bytes: notes when a head begins, and disconnects a client that does not read.
struct Wire<I> {
    io: I,
    state: Arc<State>,
    syntax: Http1Syntax,
    /// Bytes of a head that is incomplete, or that hyper has not read yet.
    held: Vec<u8>,
    idle: Duration,
    stuck: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// The client has been told why its bytes are refused.
    answered: bool,
    leaving: Option<Pin<Box<Sleep>>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let it = *self.state.now();
        let whole =
            self.held.len() - if it.refusal.is_none() { self.syntax.head_bytes().min(self.held.len()) } else { 0 };
        if whole > 0 {
            let given = whole.min(buffer.remaining());
            buffer.put_slice(&self.held[..given]);
            self.held.drain(..given);
            return Poll::Ready(Ok(()));
        }
        if let Some(refusal) = it.refusal.or(it.late.then_some(LATE)) {
            if it.under_way > 0 && !it.in_body {
                return Poll::Pending; // earlier responses come first; then hyper polls again
            }
            if it.under_way == 0 {
                ready!(self.poll_refuse(refusal, context));
            }
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if it.switched {
            self.syntax.free();
        }
        if !self.held.is_empty() {
            return self.poll_more(context, buffer);
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        if buffer.filled().len() == before {
            return Poll::Ready(Ok(()));
        }
        let (passed, refusal) = self.syntax.look(&buffer.filled()[before..]);
        // a head passes once it is complete
        let given = before + passed - if refusal.is_none() { self.syntax.head_bytes() } else { 0 };
        let held = buffer.filled()[given..before + passed].to_vec();
        buffer.set_filled(given);
        self.held = held;
        self.came(refusal);
        if given > before { Poll::Ready(Ok(())) } else { self.poll_read(context, buffer) }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> Wire<I> {
    /// Send the refusal, once, and linger.
    fn poll_refuse(&mut self, refusal: Refusal, context: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.answered, true) {
            let _ = Pin::new(&mut self.io).poll_write(context, &refusal.response());
        }
        self.poll_linger(context).map(drop)
    }

    /// Close our side. Then wait until the client has closed its own, or had time to read the answer: closing while it
    /// still sends would make the system discard the answer.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.leaving.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(context))?;
        }
        let until = self.leaving.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut space = [0; 4096];
        loop {
            let mut rest = ReadBuf::new(&mut space);
            match Pin::new(&mut self.io).poll_read(context, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => (),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return until.as_mut().poll(context).map(Ok),
            }
        }
    }

    /// Read more of a head that has begun.
    fn poll_more(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut space = [0; 8192];
        let mut more = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut more))?;
        if more.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
        let (passed, refusal) = self.syntax.look(more.filled());
        if refusal.is_some() && passed == 0 {
            self.held.clear();
        } else {
            self.held.extend_from_slice(&more.filled()[..passed]);
        }
        self.came(refusal);
        self.poll_read(context, buffer)
    }
}

impl<I> Wire<I> {
    /// Note that bytes have arrived, and whether they are refused.
    fn came(&self, refusal: Option<Refusal>) {
        let mut now = self.state.now();
        if now.under_way == 0 && !now.begun {
            now.begun = true;
            now.since = Instant::now();
        }
        if refusal.is_some() {
            now.refusal = refusal;
            now.in_body = self.syntax.in_body();
            *self.state.1.lock().unwrap() = self.syntax.line.clone();
        }
    }
}

impl<I: AsyncWrite + Unpin> Wire<I> {
    fn written<T>(&mut self, context: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.waiting = false;
            return done;
        }
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(self.idle)));
        if !std::mem::replace(&mut self.waiting, true) {
            stuck.as_mut().reset(Instant::now() + self.idle);
        }
        ready!(stuck.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write(context, data);
        self.written(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.io).poll_write_vectored(context, data);
        self.written(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.io).poll_flush(context);
        self.written(context, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let it = *self.state.now();
        if it.last || it.refusal.is_some() || self.syntax.in_body() {
            return self.poll_linger(context);
        }
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Runs hyper's tasks in this thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Accept connections until the thread closes, and run `connection` for each.
pub async fn listen<F: Future<Output = ()> + 'static>(
    thread: Rc<ServerThread>,
    listener: TcpListener,
    connection: impl Fn(Rc<ServerThread>, TcpStream) -> F,
) {
    let mut closing = thread.closing();
    loop {
        let taken = tokio::select! {
            taken = listener.accept() => taken,
            _ = closing.changed() => return,
        };
        let Ok((tcp, _)) = taken else {
            sleep(REST).await;
            continue;
        };
        // boxed here: otherwise the task would reserve its space more than once
        let (thread, carried) = (thread.clone(), Box::pin(connection(thread.clone(), tcp)));
        tokio::task::spawn_local(async move { thread.carry(carried).await });
    }
}

/// Accept TLS from a client; `None` if the handshake fails or takes too long.
pub async fn accept(
    tls: &Arc<rustls::ServerConfig>,
    clients: &Clients,
    tcp: TcpStream,
) -> Option<(TlsStream<TcpStream>, TlsInfo)> {
    let accepting = tokio_rustls::TlsAcceptor::from(tls.clone()).accept(tcp);
    let io = tokio::time::timeout(clients.header_timeout.0, accepting).await.ok()?.ok()?;
    let session = io.get_ref().1;
    let version = session.protocol_version().map_or(0, u16::from);
    let certificate = session.peer_certificates().and_then(|all| all.first()).map(|der| der.to_vec());
    Some((io, TlsInfo { version, certificate }))
}

/// Serve a connection of HTTP.
pub async fn connection(thread: Rc<ServerThread>, mut tcp: TcpStream) {
    let fd = tcp.as_raw_fd();
    let generation = thread.generation();
    let clients = &generation.config.clients;
    let (Ok(client), Ok(server)) = (tcp.peer_addr(), tcp.local_addr()) else {
        return;
    };
    let counted = Rc::new(thread.connected());
    let _ = tcp.set_nodelay(true);
    let full = thread.connections() > clients.max_connections;
    match &generation.tls {
        _ if full => {
            let mut record = Record::begin(Some(unread(client)), generation.log.clone(), thread.counts.clone());
            record.status = 503;
            record.bytes = 31;
            if generation.tls.is_none() {
                let _ = tcp.write_all(&FULL.response()).await;
                linger(tcp).await;
            }
        }
        None => {
            let peer = Peer::new(client, server, None);
            talk(&thread, counted, clients, (tcp, fd), peer, generation.config.stream_idle_timeout.0).await
        }
        Some(tls) => {
            let Some((io, info)) = accept(tls, clients, tcp).await else { return };
            let peer = Peer::new(client, server, Some(info));
            talk(&thread, counted, clients, (io, fd), peer, generation.config.stream_idle_timeout.0).await;
        }
    }
}

fn unread(client: std::net::SocketAddr) -> Line {
    Line { client: Some(client.ip()), method: "-".into(), target: "-".into(), protocol: "HTTP/1.1", ..Line::default() }
}

/// Close, after the client has had time to read the answer.
async fn linger(mut tcp: TcpStream) {
    let _ = tcp.shutdown().await;
    let mut rest = [0; 4096];
    let read = async { while matches!(tokio::io::AsyncReadExt::read(&mut tcp, &mut rest).await, Ok(1..)) {} };
    let _ = tokio::time::timeout(LINGER, read).await;
}

async fn talk<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    thread: &Rc<ServerThread>,
    counted: Rc<Counted>,
    clients: &Clients,
    (io, fd): (I, RawFd),
    peer: Peer,
    idle: Duration,
) {
    // `begun`: a client that sends nothing at all is late, too
    let now = Now {
        under_way: 0,
        since: Instant::now(),
        begun: true,
        http2: false,
        late: false,
        refusal: None,
        in_body: false,
        switched: false,
        last: false,
    };
    let state = Arc::new(State(Mutex::new(now), Mutex::default(), fd));
    let syntax = Http1Syntax::new(clients.max_header_size, clients.max_headers);
    let wire = Wire {
        io,
        state: state.clone(),
        syntax,
        held: Vec::new(),
        idle,
        stuck: None,
        waiting: false,
        answered: false,
        leaving: None,
    };
    let peer = Rc::new(peer);
    let client = peer.client;
    let service = service_fn(|request| {
        let busy = Busy::begin(&state, request.version(), &counted);
        let begun = exchange::begin(thread, peer.clone(), busy, request);
        // boxed: otherwise each connection would reserve its space, even while idle
        let answer = begun.map(|exchange| Box::pin(exchange.run()));
        async {
            Ok::<_, Infallible>(match answer {
                Ok(running) => running.await,
                Err(refused) => *refused,
            })
        }
    });
    let mut builder = auto::Builder::new(Local);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(clients.max_header_size.max(AT_ONCE));
    if clients.max_headers > HEADERS {
        builder.http1().max_headers(clients.max_headers); // hyper then allocates them on the heap
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(clients.max_header_size as u32)
        .enable_connect_protocol();
    let mut talking = pin!(builder.serve_connection_with_upgrades(TokioIo::new(wire), service));
    let mut closing = thread.closing();
    let mut draining = *closing.borrow();
    if draining {
        talking.as_mut().graceful_shutdown();
    }
    let shortest = clients.header_timeout.0.min(clients.keepalive.0);
    let mut look = pin!(sleep(shortest));
    let ended = loop {
        tokio::select! {
            ended = talking.as_mut() => break ended,
            () = look.as_mut() => {
                let (now, it) = (Instant::now(), *state.now());
                let in_head = it.begun && !it.http2;
                let due = it.since + if in_head { clients.header_timeout.0 } else { clients.keepalive.0 };
                let mut again = now + shortest;
                if it.under_way == 0 && now < due {
                    again = again.min(due);
                } else if it.under_way == 0 {
                    if in_head { state.now().late = true } else { talking.as_mut().graceful_shutdown() }
                    again = now + LINGER;
                }
                look.as_mut().reset(again);
            },
            _ = closing.changed(), if !draining => {
                draining = true;
                talking.as_mut().graceful_shutdown();
            },
        }
    };
    let it = *state.now();
    let refusal = it.refusal.or(it.late.then_some(LATE));
    let status = match (&ended, refusal) {
        (Err(_), Some(refusal)) if !it.in_body => refusal.0,
        (Err(error), None) => match error.downcast_ref::<hyper::Error>() {
            Some(error) if error.is_parse_too_large() => 431,
            Some(error) if error.is_parse() => 400,
            _ => return,
        },
        _ => return,
    };
    let generation = thread.generation();
    let line = Line { target: state.1.lock().unwrap().clone(), ..unread(client) };
    let mut record = Record::begin(Some(line), generation.log.clone(), thread.counts.clone());
    record.status = status;
    record.bytes = refusal.map_or(0, |refusal| refusal.1.len() as u64 + 1);
}
