//! A thread of the data plane: a runtime, listeners, pools of connections to upstream, and chains of filters.

use crate::access::{BOUNDS, Counts, Log};
use crate::balance::{AllKnown, Known as Server};
use crate::config::{Config, ServerTls};
use crate::filters::{Filters, Sampling};
use crate::routes::Routes;
use crate::server;
use crate::tcp;
use crate::tls::{authorities, certificates, key};
use crate::upstream::{Counted as Numbers, Upstream};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// One loaded configuration. A request ends with the configuration with which it began.
pub struct Generation {
    pub config: Config,
    pub routes: Routes,
    pub filters: Option<Arc<Filters>>,
    pub log: Rc<Log>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub tcp: Vec<tcp::Listener>,
}

/// The state of one thread.
pub struct ServerThread {
    current: RefCell<Option<Rc<Generation>>>,
    pub counts: Arc<Mutex<Counts>>,
    connections: Cell<usize>,
    gone: Notify,
    closing: watch::Receiver<bool>,
    cut: watch::Receiver<bool>,
}

/// A connection that is counted until this is dropped.
pub struct Counted(pub Rc<ServerThread>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.gone.notify_waiters();
    }
}

impl ServerThread {
    pub fn generation(&self) -> Rc<Generation> {
        self.current.borrow().clone().expect("nothing is taken before there is one")
    }

    pub fn closing(&self) -> watch::Receiver<bool> {
        self.closing.clone()
    }

    /// Await a connection's end, or the time when connections that are still open are cut off.
    pub async fn carry(&self, connection: impl Future<Output = ()>) {
        let mut cut = self.cut.clone();
        tokio::select! {
            biased;
            () = connection => (),
            _ = cut.wait_for(|cut| *cut) => (),
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    pub fn connected(self: &Rc<Self>) -> Counted {
        self.connections.set(self.connections.get() + 1);
        Counted(self.clone())
    }

    async fn all_gone(&self) {
        while self.connections.get() > 0 {
            let gone = self.gone.notified();
            if self.connections.get() > 0 {
                gone.await;
            }
        }
    }
}

enum Command {
    Call(Py<PyAny>),
    Later(f64, Py<PyAny>),
    Watch(OwnedFd, Py<PyAny>),
    Use(Box<Prepared>),
    Close(f64, Py<PyAny>),
    End,
}

struct Prepared {
    config: Config,
    routes: Routes,
    filters: Option<Arc<Filters>>,
    log: Log,
    tls: Option<Arc<rustls::ServerConfig>>,
    tcp: Vec<tcp::Listener>,
}

/// A serving thread, for Python. All methods but `run` may be called in any thread.
#[pyclass(frozen, name = "ServerThread")]
pub struct PyServerThread {
    commands: UnboundedSender<Command>,
    inbox: Mutex<Option<UnboundedReceiver<Command>>>,
    counts: Arc<Mutex<Counts>>,
    known: Mutex<Known>,
    sampling: Arc<Sampling>,
}

/// State of upstreams and servers that outlives a configuration.
#[derive(Default)]
struct Known {
    servers: AllKnown,
    upstreams: BTreeMap<String, Arc<Numbers>>,
}

/// The time in which the filters of connections that are cut off must end.
const CUT: Duration = Duration::from_secs(5);

/// Separates labels in a key of `metrics.py`.
const SEPARATOR: char = '\x1f';

impl Known {
    /// Set the counters, under the names of `metrics.py`.
    fn tell(&self, counted: &Bound<'_, PyDict>) -> PyResult<()> {
        let now = Instant::now();
        let of_servers = |count: fn(&Server, Instant) -> u64| -> BTreeMap<String, u64> {
            let labels = |(upstream, server): &(String, String)| format!("{upstream}{SEPARATOR}{server}");
            self.servers.iter().map(|(names, known)| (labels(names), count(known, now))).collect()
        };
        counted.set_item("upstream_requests", of_servers(|it, _| it.requests.load(Relaxed)))?;
        counted.set_item("upstream_failures", of_servers(|it, _| it.failures.load(Relaxed)))?;
        counted.set_item("upstream_connect_failures", of_servers(|it, _| it.connect_failures.load(Relaxed)))?;
        counted.set_item("upstream_ejections", of_servers(|it, _| it.ejections.load(Relaxed)))?;
        counted.set_item("upstream_ejected", of_servers(|it, now| it.is_ejected(now).into()))?;
        let of_upstreams = |count: fn(&Numbers) -> u64| -> BTreeMap<&str, u64> {
            self.upstreams.iter().map(|(name, numbers)| (name.as_str(), count(numbers))).collect()
        };
        counted.set_item("upstream_retries", of_upstreams(|it| it.retries.load(Relaxed)))?;
        counted.set_item("upstream_overflows", of_upstreams(|it| it.overflows.load(Relaxed)))
    }
}

fn call(function: &Py<PyAny>) {
    Python::attach(|py| {
        if let Err(error) = function.call0(py) {
            error.write_unraisable(py, Some(function.bind(py)));
        }
    });
}

/// Call a function whenever a socket can be read, until it returns false or raises.
async fn watch_socket(socket: OwnedFd, function: Py<PyAny>) {
    // SAFETY: an owned descriptor stays open, under the same number, until it is dropped.
    let Ok(socket) = (unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }) else { return };
    while let Ok(mut ready) = socket.readable().await {
        ready.clear_ready(); // before the read: data that arrives meanwhile counts
        let go_on = Python::attach(|py| match function.call0(py).and_then(|result| result.is_truthy(py)) {
            Ok(go_on) => go_on,
            Err(error) => {
                error.write_unraisable(py, Some(function.bind(py)));
                false
            }
        });
        if !go_on {
            return;
        }
    }
}

#[pymethods]
impl PyServerThread {
    #[new]
    fn new() -> PyServerThread {
        let (commands, inbox) = unbounded_channel();
        PyServerThread {
            commands,
            inbox: Mutex::new(Some(inbox)),
            counts: Arc::default(),
            known: Mutex::default(),
            sampling: Arc::default(),
        }
    }

    /// Serve HTTP on the socket `listening`, and other protocols on those of `tcp`, in the calling thread until `end`.
    /// The sockets now belong to it. Without any, only call functions.
    #[pyo3(signature = (listening, tcp))]
    fn run(&self, py: Python<'_>, listening: Option<i32>, tcp: Vec<i32>) -> PyResult<()> {
        let inbox = self.inbox.lock().unwrap().take().ok_or_else(|| PyRuntimeError::new_err("it runs or has run"))?;
        let taken = |fd: i32| -> std::io::Result<TcpListener> {
            // SAFETY: the caller has given it away.
            let listener = unsafe { TcpListener::from_raw_fd(fd) };
            listener.set_nonblocking(true).map(|()| listener)
        };
        let listener = listening.map(taken).transpose()?;
        let tcp = tcp.into_iter().map(taken).collect::<std::io::Result<Vec<_>>>()?;
        let counts = self.counts.clone();
        py.detach(|| -> std::io::Result<()> {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
            runtime.block_on(run(inbox, (listener, tcp), counts))?;
            runtime.shutdown_background(); // other tasks are cancelled
            Ok(())
        })?;
        Ok(())
    }

    /// Call a function soon, in the thread that runs.
    fn call_soon(&self, function: Py<PyAny>) {
        let _ = self.commands.send(Command::Call(function));
    }

    /// Call a function in the thread that runs, `seconds` from now.
    fn call_later(&self, seconds: f64, function: Py<PyAny>) {
        let _ = self.commands.send(Command::Later(seconds, function));
    }

    /// Call a function in the thread that runs whenever data has arrived at this socket, until it returns false. It
    /// must read everything: what it leaves is not reported again. The end of the stream is reported, too: shut the
    /// socket down to end the calls. Raises: OSError.
    fn watch(&self, socket: i32, function: Py<PyAny>) -> PyResult<()> {
        let own = unsafe { BorrowedFd::borrow_raw(socket) }.try_clone_to_owned()?;
        let _ = self.commands.send(Command::Watch(own, function));
        Ok(())
    }

    /// Serve new requests with this configuration (JSON), through the filters of a `Generation`. Raises: ValueError.
    #[pyo3(signature = (config, chain))]
    fn use_chain(&self, py: Python<'_>, config: &str, chain: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let config: Config = serde_json::from_str(config).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let filters = chain.map(|chain| Filters::new(chain, &self.sampling)).transpose()?.map(Arc::new);
        let prepared = py.detach(|| prepare(config, filters, &self.known)).map_err(PyValueError::new_err)?;
        let _ = self.commands.send(Command::Use(Box::new(prepared)));
        Ok(())
    }

    /// Set whether `look` is called for every request; otherwise it is called for one of `sample`.
    fn look_at_all(&self, all: bool) {
        self.sampling.all.store(all, Relaxed);
    }

    /// Accept no more connections or requests. Call `done` when the current ones have ended; they are cut off after
    /// `seconds`.
    fn close(&self, seconds: f64, done: Py<PyAny>) {
        let _ = self.commands.send(Command::Close(seconds, done));
    }

    /// Make `run` return.
    fn end(&self) {
        let _ = self.commands.send(Command::End);
    }

    /// The counters, in the form of `metrics.py`: `in_progress`, `requests` by status (0: the client left before the
    /// response), `latency` (a histogram of seconds), and those of upstreams and their servers.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = self.counts.lock().unwrap();
        let counted = PyDict::new(py);
        counted.set_item("in_progress", counts.in_progress)?;
        let requests = PyDict::new(py);
        for (status, count) in &counts.statuses {
            requests.set_item(status.to_string(), count)?;
        }
        counted.set_item("requests", requests)?;
        let latency = PyDict::new(py);
        latency.set_item("bounds", BOUNDS)?;
        latency.set_item("counts", counts.buckets)?;
        latency.set_item("sum", counts.seconds)?;
        counted.set_item("latency", latency)?;
        drop(counts);
        self.known.lock().unwrap().tell(&counted)?;
        Ok(counted)
    }
}

fn prepare(mut config: Config, filters: Option<Arc<Filters>>, known: &Mutex<Known>) -> Result<Prepared, String> {
    let alpn = [b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = config.tls.as_ref().map(|tls| server_tls(tls, &alpn)).transpose()?.map(Arc::new);
    let log = Log::new(&config.access_log)?;
    let known = &mut *known.lock().unwrap();
    let mut upstreams = BTreeMap::new();
    for (name, settings) in std::mem::take(&mut config.upstreams) {
        let numbers = known.upstreams.entry(name.clone()).or_default().clone();
        let upstream = Upstream::new(&name, settings, &mut known.servers, numbers)?;
        upstreams.insert(name, Arc::new(upstream));
    }
    let mut tcp = Vec::new();
    for settings in std::mem::take(&mut config.tcp) {
        let upstream: &Arc<Upstream> = upstreams.get(&settings.upstream).ok_or("no such upstream")?;
        let tls = settings.tls.as_ref().map(|tls| server_tls(tls, &[])).transpose()?.map(Arc::new);
        tcp.push(tcp::Listener { upstream: upstream.clone(), settings, tls });
    }
    let routes = Routes::new(std::mem::take(&mut config.routes), upstreams, config.any_upstream.take())?;
    Ok(Prepared { config, routes, filters, log, tls, tcp })
}

fn server_tls(settings: &ServerTls, alpn: &[Vec<u8>]) -> Result<rustls::ServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let store = Arc::new(authorities(path)?);
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(store, provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| format!("tls: cannot use {}: {error}", path.display()))?,
            )
        }
    };
    let path = &settings.certificate;
    let mut tls = builder
        .with_single_cert(certificates(path)?, key(settings.key.as_ref().unwrap_or(path))?)
        .map_err(|error| format!("tls: cannot use {}: {error}", path.display()))?;
    tls.alpn_protocols = alpn.to_vec();
    Ok(tls)
}

async fn run(
    mut inbox: UnboundedReceiver<Command>,
    (listener, tcp): (Option<TcpListener>, Vec<TcpListener>),
    counts: Arc<Mutex<Counts>>,
) -> std::io::Result<()> {
    let ((close, closing), (cut, cutting)) = (watch::channel(false), watch::channel(false));
    let thread = Rc::new(ServerThread {
        current: RefCell::default(),
        counts,
        connections: Cell::new(0),
        gone: Notify::new(),
        closing,
        cut: cutting,
    });
    let mut listener = listener.map(tokio::net::TcpListener::from_std).transpose()?;
    let mut of_tcp = tcp.into_iter().map(tokio::net::TcpListener::from_std).collect::<std::io::Result<Vec<_>>>()?;
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Call(function) => call(&function),
            Command::Later(seconds, function) => {
                tokio::task::spawn_local(async move {
                    sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
                    call(&function);
                });
            }
            Command::Watch(socket, function) => {
                tokio::task::spawn_local(watch_socket(socket, function));
            }
            Command::Use(prepared) => {
                let Prepared { config, routes, filters, log, tls, tcp } = *prepared;
                let generation = Generation { config, routes, filters, log: Rc::new(log), tls, tcp };
                if let Some(old) = thread.current.replace(Some(Rc::new(generation))) {
                    old.log.flush();
                }
                if let Some(listener) = listener.take() {
                    tokio::task::spawn_local(server::listen(thread.clone(), listener, server::connection));
                }
                for (number, listener) in std::mem::take(&mut of_tcp).into_iter().enumerate() {
                    let carry = move |thread, client| tcp::connection(thread, number, client);
                    tokio::task::spawn_local(server::listen(thread.clone(), listener, carry));
                }
            }
            Command::Close(seconds, done) => {
                let _ = close.send(true);
                listener = None;
                of_tcp.clear();
                let (thread, cut) = (thread.clone(), cut.clone());
                tokio::task::spawn_local(async move {
                    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
                    if timeout(time, thread.all_gone()).await.is_err() {
                        let _ = cut.send(true);
                        let _ = timeout(CUT, thread.all_gone()).await;
                    }
                    call(&done);
                });
            }
            Command::End => break,
        }
    }
    if let Some(generation) = thread.current.borrow().as_ref() {
        generation.log.flush();
    }
    Ok(())
}
