//! The Python side of a request: feeds a stream of `proxywasm_host` while holding the GIL, and takes its effects.
//!
//! Effects of the stream itself are read here; all others go to `perform`, which routes them. Effects that no event
//! returns (after a tick, or a reply to a callout) arrive at the stream's sink, a `PyRequest`.

use crate::config::{Peer, TlsInfo};
use crate::head::{Head, listed, of_one_connection};
use crate::routes::Route;
use crate::upstream::{Address, Upstream, UpstreamError, UpstreamInfo};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString, PyTuple};
use pyo3::{ffi, intern, prelude::*, pybacked::PyBackedBytes};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;

/// The filter chains of a `Generation` of `serve`, with those of its attributes that every request needs.
pub struct Filters {
    pub generation: Py<PyAny>,
    http_stream: Py<PyAny>,
    /// Keywords of `http_stream`, whose first argument is a chain.
    keywords: Py<PyTuple>,
    /// Keywords of `request_headers` and `response_headers`.
    owned: Py<PyTuple>,
    chains: Vec<Py<PyAny>>,
    buffer_limit: Py<PyAny>,
    /// The driver's receivers of effects that no event returns, by stream.
    sinks: Py<PyDict>,
    makes_streams: bool,
    records: bool,
    sample: u64,
    sampling: Arc<Sampling>,
    kinds: [Py<PyAny>; 9],
    /// For each chain: whether any of its filters can change bodies.
    changes_bodies: Vec<OnceLock<bool>>,
}

/// Which requests of a thread may be sampled.
#[derive(Default)]
pub struct Sampling {
    pub all: AtomicBool,
    /// Requests since `look` was last called.
    passed: AtomicU64,
}

/// Envoy's response code details for a client that disconnected.
const GONE: &str = "downstream_remote_disconnect";
const KINDS: [&str; 9] = [
    "RequestHeaders",
    "RequestBody",
    "RequestTrailers",
    "ResponseHeaders",
    "ResponseBody",
    "ResponseTrailers",
    "ResetStream",
    "ClearRouteCache",
    "OverrideUpstreamHost",
];

pub enum Piece {
    Data(Bytes, bool),
    Trailers(HeaderMap),
}

/// A head that came out of the filters; `None` if HTTP has no form for it.
pub type RequestOut = Option<Box<Head>>;
pub type ResponseOut = Option<(StatusCode, HeaderMap)>;

/// What has come out of the filters in one direction and has not been read yet.
pub struct Direction<H> {
    pub head: Option<(H, bool)>,
    pub pieces: VecDeque<Piece>,
    /// The end of the message has come out.
    pub complete: bool,
    /// Filters hold more than their limit: read no more.
    pub full: bool,
    pub waker: Option<Waker>,
}

impl<H> Default for Direction<H> {
    fn default() -> Self {
        Direction { head: None, pieces: VecDeque::new(), complete: false, full: false, waker: None }
    }
}

#[derive(Default)]
pub struct Flow {
    pub up: Direction<RequestOut>,
    pub down: Direction<ResponseOut>,
    pub reset: bool,
    pub closed: bool,
    /// Upstream's response was 101: it switches to another protocol.
    pub switching: bool,
    /// The server that a filter has chosen.
    pub wanted: Option<String>,
}

impl Flow {
    pub fn wake(&mut self) {
        for waker in [self.up.waker.take(), self.down.waker.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// A request that passes filters.
pub struct Stream {
    python: Py<PyAny>,
    filters: Arc<Filters>,
    chain: usize,
    request: Py<PyRequest>,
    looked_at: bool,
    flow: Mutex<Flow>,
}

/// The destination of a request, which filters read in properties.
#[derive(Default)]
pub struct StreamInfo<'a> {
    pub route: Option<&'a Route>,
    pub upstream: Option<&'a Upstream>,
    pub upstream_info: Option<&'a UpstreamInfo>,
    pub error: Option<&'a UpstreamError>,
}

impl StreamInfo<'_> {
    fn known(&self) -> Known {
        let asked = self.upstream_info.filter(|upstream_info| upstream_info.attempts > 0);
        Known {
            route: self.route.and_then(|route| route.name.clone()),
            virtual_host: self.route.and_then(|route| route.virtual_host.clone()),
            upstream: self.upstream.map(|upstream| upstream.name.clone()),
            server: asked.map(|upstream_info| (upstream_info.address.clone(), upstream_info.attempts)),
            error: self.error.map(|error| (error.flag, error.details.clone(), error.transport.clone())),
        }
    }
}

/// The same, kept until a filter reads it.
#[derive(Default)]
struct Known {
    route: Option<Arc<str>>,
    virtual_host: Option<Arc<str>>,
    upstream: Option<Arc<str>>,
    /// Address of the current server, and the number of attempts so far.
    server: Option<(Address, u32)>,
    error: Option<(u32, String, Option<String>)>,
}

impl Known {
    /// Set the properties, under Envoy's names.
    fn tell(&self, properties: &Bound<'_, PyDict>) -> PyResult<()> {
        properties.clear();
        let names = [
            ("xds.route_name", &self.route),
            ("xds.virtual_host_name", &self.virtual_host),
            ("xds.cluster_name", &self.upstream),
        ];
        for (name, value) in names {
            if let Some(value) = value {
                properties.set_item(name, &**value)?;
            }
        }
        if let Some((address, attempts)) = &self.server {
            let address = address.to_string();
            properties.set_item("upstream.address", &address)?;
            if let Some(port) = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()) {
                properties.set_item("upstream.port", port)?;
            }
            properties.set_item("upstream.request_attempt_count", attempts)?;
        }
        if let Some((flag, details, transport)) = &self.error {
            properties.set_item("response.flags", flag)?;
            properties.set_item("response.code_details", details)?;
            if let Some(why) = transport {
                properties.set_item("upstream.transport_failure_reason", why)?;
            }
        }
        Ok(())
    }
}

/// A request for its stream: a mapping of properties, made when a filter first reads one. An effect that no event
/// returned arrives as a call of this object.
#[pyclass(frozen, mapping, name = "Request")]
pub struct PyRequest {
    filters: Arc<Filters>,
    scope: Py<PyDict>,
    stream: OnceLock<std::sync::Weak<Stream>>,
    properties: Mutex<Properties>,
}

#[derive(Default)]
struct Properties {
    known: Known,
    /// The mapping that Python made, and the dictionary of the destination in it.
    made: Option<(Py<PyAny>, Py<PyDict>)>,
}

impl PyRequest {
    /// Update the destination.
    fn tell(&self, py: Python<'_>, known: Known) -> PyResult<()> {
        let mut properties = self.properties.lock().unwrap();
        if let Some((_, routed)) = &properties.made {
            known.tell(routed.bind(py))?;
        }
        properties.known = known;
        Ok(())
    }

    fn mapping<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let routed = PyDict::new(py);
        {
            let properties = self.properties.lock().unwrap();
            if let Some((made, _)) = &properties.made {
                return Ok(made.bind(py).clone());
            }
            properties.known.tell(&routed)?;
        }
        let made = self.filters.generation.bind(py).call_method1("properties", (&self.scope, &routed))?;
        self.properties.lock().unwrap().made = Some((made.clone().unbind(), routed.unbind()));
        Ok(made)
    }
}

#[pymethods]
impl PyRequest {
    fn __getitem__<'py>(&self, name: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.mapping(name.py())?.get_item(name)
    }

    fn __contains__(&self, name: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.mapping(name.py())?.contains(name)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.mapping(py)?.try_iter()?.into_any())
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.mapping(py)?.len()
    }

    /// Other methods of a mapping.
    fn __getattr__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.mapping(name.py())?.getattr(name)
    }

    fn __call__(&self, effect: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(stream) = self.stream.get().and_then(std::sync::Weak::upgrade) else {
            return Ok(());
        };
        let kind = effect.get_type();
        if let Some(which) = stream.filters.kinds.iter().position(|each| kind.is(each.bind(effect.py()))) {
            stream.filters.read(effect.py(), effect, which, &mut stream.flow(), &HeaderMap::new())?;
            stream.flow().wake();
        }
        Ok(())
    }
}

fn pair<'py>(py: Python<'py>, name: &[u8], value: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, [PyBytes::new(py, name), PyBytes::new(py, value)])
}

fn pairs<'py>(py: Python<'py>, pseudo: &[(&[u8], &[u8])], headers: &HeaderMap) -> PyResult<Bound<'py, PyList>> {
    let mut all = Vec::with_capacity(pseudo.len() + headers.len());
    for (name, value) in pseudo {
        all.push(pair(py, name, value)?);
    }
    for (name, value) in headers.iter().filter(|(name, _)| **name != header::HOST) {
        all.push(pair(py, name.as_str().as_bytes(), value.as_bytes())?);
    }
    PyList::new(py, all)
}

/// The scope of a connection, as in ASGI. `origin` is the client's address according to trusted proxies; `protocol` is
/// the version of HTTP, or `None` for another protocol.
pub fn scope(py: Python<'_>, protocol: Option<&str>, peer: &Peer, origin: Option<IpAddr>) -> PyResult<Py<PyDict>> {
    let usual = origin.is_none() && protocol != Some("1.0");
    if let Some(scope) = peer.scope.get().filter(|_| usual) {
        return Ok(scope.clone_ref(py));
    }
    let scope = PyDict::new(py);
    if let Some(protocol) = protocol {
        scope.set_item("http_version", protocol)?;
    }
    let client = origin.map_or((peer.client.ip(), peer.client.port()), |origin| (origin, 0));
    scope.set_item("client", (client.0.to_string(), client.1))?;
    scope.set_item("server", (peer.server.ip().to_string(), peer.server.port()))?;
    if let Some(TlsInfo { version, certificate }) = &peer.tls {
        let tls = PyDict::new(py);
        tls.set_item("tls_version", version)?;
        tls.set_item("client_cert_chain", PyList::new(py, certificate.iter().map(|der| PyBytes::new(py, der)))?)?;
        let extensions = PyDict::new(py);
        extensions.set_item("tls", tls)?;
        scope.set_item("extensions", extensions)?;
    }
    let scope = scope.unbind();
    if usual {
        let _ = peer.scope.set(scope.clone_ref(py));
    }
    Ok(scope)
}

/// Call a function; the last arguments belong to `keywords`.
fn call<'py>(
    function: &Bound<'py, PyAny>,
    arguments: &[&Bound<'py, PyAny>],
    keywords: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let pointers: [*mut ffi::PyObject; 5] =
        std::array::from_fn(|at| arguments.get(at).map_or(std::ptr::null_mut(), |one| one.as_ptr()));
    let positional = arguments.len() - keywords.len();
    // SAFETY: the pointers are borrowed for the whole call, and their number is the given one.
    unsafe {
        let result = ffi::PyObject_Vectorcall(function.as_ptr(), pointers.as_ptr(), positional, keywords.as_ptr());
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

impl Filters {
    pub fn new(generation: &Bound<'_, PyAny>, sampling: &Arc<Sampling>) -> PyResult<Filters> {
        let py = generation.py();
        let effects = py.import("proxywasm_host.runtime.effects")?;
        let kinds: Vec<Py<PyAny>> =
            KINDS.iter().map(|name| effects.getattr(*name).map(Bound::unbind)).collect::<PyResult<_>>()?;
        let chains: Vec<Py<PyAny>> = generation.getattr("chains")?.extract()?;
        Ok(Filters {
            generation: generation.clone().unbind(),
            http_stream: generation.getattr("host")?.getattr("http_stream")?.unbind(),
            keywords: PyTuple::new(py, ["properties", "buffer_limit", "header_limits"])?.unbind(),
            owned: PyTuple::new(py, ["owned"])?.unbind(),
            buffer_limit: generation.getattr("settings")?.getattr("buffer_limit")?.unbind(),
            sinks: generation.getattr("driver")?.getattr("sinks")?.cast_into::<PyDict>()?.unbind(),
            makes_streams: generation.getattr("makes_streams")?.is_truthy()?,
            records: generation.getattr("records")?.is_truthy()?,
            sample: generation.getattr("sample")?.extract()?,
            sampling: sampling.clone(),
            kinds: kinds.try_into().map_err(|_| pyo3::exceptions::PyTypeError::new_err("effects"))?,
            changes_bodies: vec![OnceLock::new(); chains.len()],
            chains,
        })
    }

    /// Make the stream of a request, and feed it the headers.
    pub fn begin(
        self: &Arc<Self>,
        chain: usize,
        head: &Head,
        protocol: &str,
        peer: &Peer,
        end: bool,
        stream_info: &StreamInfo<'_>,
    ) -> PyResult<Arc<Stream>> {
        Python::attach(|py| {
            let scheme: &[u8] = if head.https { b"https" } else { b"http" };
            let (authority, target) = (head.authority.as_bytes(), head.target.as_bytes());
            let method = head.method.as_str().as_bytes();
            let pseudo = [
                (&b":authority"[..], authority),
                (&b":path"[..], target),
                (&b":method"[..], method),
                (&b":scheme"[..], scheme),
            ];
            let headers = pairs(py, &pseudo, &head.headers)?;
            let request = PyRequest {
                filters: self.clone(),
                scope: scope(py, Some(protocol), peer, head.origin)?,
                stream: OnceLock::new(),
                properties: Mutex::new(Properties { known: stream_info.known(), made: None }),
            };
            let request = Bound::new(py, request)?;
            let python = self.stream(py, chain, authority, target, request.as_any())?;
            let passed = self.sampling.passed.fetch_add(1, Relaxed) + 1;
            let mut looked_at = false;
            if passed >= self.sample || self.sampling.all.load(Relaxed) {
                self.sampling.passed.store(0, Relaxed);
                let asked = (&python, passed, PyBytes::new(py, method), PyBytes::new(py, target));
                looked_at = self.generation.bind(py).call_method1(intern!(py, "look"), asked)?.is_truthy()?;
            }
            if self.records {
                self.generation.bind(py).call_method1(intern!(py, "attach"), (&python, &request))?;
            } else {
                self.sinks.bind(py).set_item(&python, &request)?;
            }
            let stream = Arc::new(Stream {
                python: python.unbind(),
                filters: self.clone(),
                chain,
                request: request.unbind(),
                looked_at,
                flow: Mutex::default(),
            });
            let _ = stream.request.get().stream.set(Arc::downgrade(&stream));
            stream.feed_headers(py, intern!(py, "request_headers"), &headers, end, &head.headers).inspect_err(
                |_| {
                    stream.flow().closed = true;
                    stream.end(py, false);
                },
            )?;
            Ok(stream)
        })
    }

    fn stream<'py>(
        &self,
        py: Python<'py>,
        chain: usize,
        authority: &[u8],
        target: &[u8],
        properties: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if self.makes_streams {
            let asked = (chain, PyBytes::new(py, authority), PyBytes::new(py, target), properties);
            return self.generation.bind(py).call_method1(intern!(py, "stream"), asked);
        }
        // without `header_limits`: the request was refused on arrival if it exceeds them
        let (plugins, none) = (self.chains[chain].bind(py), py.None());
        let arguments = [plugins, properties, self.buffer_limit.bind(py), none.bind(py)];
        call(self.http_stream.bind(py), &arguments, self.keywords.bind(py))
    }

    /// Read an effect into `flow`. `came` are the headers that filters got; those that come out unchanged are reused.
    fn read(
        &self,
        py: Python<'_>,
        effect: &Bound<'_, PyAny>,
        which: usize,
        flow: &mut Flow,
        came: &HeaderMap,
    ) -> PyResult<()> {
        let end =
            |effect: &Bound<'_, PyAny>| -> PyResult<bool> { effect.getattr(intern!(py, "end_stream"))?.is_truthy() };
        match which {
            0 => {
                let end = end(effect)?;
                let headers = effect.getattr(intern!(py, "headers"))?;
                let head = request_out(&headers, end, came)?;
                if head.is_none() {
                    self.generation.bind(py).call_method1("unsendable", ("request", headers))?;
                }
                flow.up.complete = end;
                flow.up.head = Some((head, end));
            }
            1 | 4 => {
                let end = end(effect)?;
                let data = bytes(effect.getattr(intern!(py, "data"))?.cast::<PyBytes>()?);
                let (pieces, complete, full) = match which {
                    1 => (&mut flow.up.pieces, &mut flow.up.complete, &mut flow.up.full),
                    _ => (&mut flow.down.pieces, &mut flow.down.complete, &mut flow.down.full),
                };
                pieces.push_back(Piece::Data(data, end));
                *complete = end;
                *full = false;
            }
            2 | 5 => {
                let trailers = out(&effect.getattr(intern!(py, "trailers"))?, came)?.unwrap_or_default();
                let (pieces, complete) = match which {
                    2 => (&mut flow.up.pieces, &mut flow.up.complete),
                    _ => (&mut flow.down.pieces, &mut flow.down.complete),
                };
                pieces.push_back(Piece::Trailers(trailers));
                *complete = true;
            }
            3 => {
                let end = end(effect)?;
                let headers = effect.getattr(intern!(py, "headers"))?;
                let head = response_out(&headers, flow.switching, came)?;
                if head.is_none() {
                    self.generation.bind(py).call_method1("unsendable", ("response", headers))?;
                }
                flow.down.complete = end;
                flow.down.pieces.clear();
                flow.down.head = Some((head, end));
            }
            6 => flow.reset = true,
            8 => flow.wanted = Some(effect.getattr(intern!(py, "address"))?.extract()?),
            _ => (),
        }
        Ok(())
    }
}

impl Stream {
    pub fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap()
    }

    /// Take the effects that an event has returned.
    fn take(&self, py: Python<'_>, todo: &Bound<'_, PyAny>, came: &HeaderMap) -> PyResult<()> {
        let own = self.python.bind(py);
        let mut others: Option<Bound<'_, PyList>> = None;
        for effect in todo.cast::<PyList>()?.iter() {
            let kind = effect.get_type();
            match self.filters.kinds.iter().position(|each| kind.is(each.bind(py))) {
                Some(which) if effect.getattr(intern!(py, "stream"))?.is(own) => {
                    self.filters.read(py, &effect, which, &mut self.flow(), came)?;
                }
                _ => others.get_or_insert_with(|| PyList::empty(py)).append(effect)?,
            }
        }
        if let Some(others) = others {
            self.filters.generation.bind(py).call_method1(intern!(py, "perform"), (others,))?;
        }
        self.flow().wake();
        Ok(())
    }

    /// Feed headers, which belong to the stream from now on.
    fn feed_headers<'py>(
        &self,
        py: Python<'py>,
        event: &Bound<'py, PyString>,
        headers: &Bound<'py, PyList>,
        end: bool,
        came: &HeaderMap,
    ) -> PyResult<()> {
        if self.flow().closed {
            return Ok(());
        }
        let (stream, end) = (self.python.bind(py), PyBool::new(py, end));
        let owned = PyBool::new(py, true);
        let arguments = [headers.as_any(), end.as_any(), owned.as_any()];
        let todo = call(&stream.getattr(event)?, &arguments, self.filters.owned.bind(py))?;
        self.take(py, &todo, came)
    }

    fn feed<'py>(
        &self,
        py: Python<'py>,
        event: &Bound<'py, PyString>,
        args: impl pyo3::call::PyCallArgs<'py>,
        full: Option<&Bound<'py, PyString>>,
    ) -> PyResult<()> {
        if self.flow().closed {
            return Ok(());
        }
        let stream = self.python.bind(py);
        let todo = stream.call_method1(event, args)?;
        self.take(py, &todo, &HeaderMap::new())?;
        if let Some(full) = full {
            let is_full = stream.getattr(full)?.is_truthy()?;
            let mut flow = self.flow();
            if *full == "request_full" { flow.up.full = is_full } else { flow.down.full = is_full }
        }
        Ok(())
    }

    pub fn request_piece(&self, piece: Piece) -> PyResult<()> {
        Python::attach(|py| match piece {
            Piece::Data(data, end) => {
                let full = Some(intern!(py, "request_full")).filter(|_| !end);
                self.feed(py, intern!(py, "request_body"), (PyBytes::new(py, &data), end), full)
            }
            Piece::Trailers(trailers) => {
                self.feed(py, intern!(py, "request_trailers"), (pairs(py, &[], &trailers)?,), None)
            }
        })
    }

    /// Feed the response's head, and the first piece of its body if that has arrived.
    pub fn response_head(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
        first: Option<Piece>,
        stream_info: &StreamInfo<'_>,
    ) -> PyResult<()> {
        Python::attach(|py| {
            self.request.get().tell(py, stream_info.known())?;
            let given = pairs(py, &[(b":status", status.as_str().as_bytes())], headers)?;
            self.feed_headers(py, intern!(py, "response_headers"), &given, end, headers)?;
            match first {
                Some(piece) => self.feed_response_piece(py, piece),
                None => Ok(()),
            }?;
            self.finish_if_complete(py);
            Ok(())
        })
    }

    pub fn response_piece(&self, piece: Piece) -> PyResult<()> {
        Python::attach(|py| {
            self.feed_response_piece(py, piece)?;
            self.finish_if_complete(py);
            Ok(())
        })
    }

    fn feed_response_piece(&self, py: Python<'_>, piece: Piece) -> PyResult<()> {
        match piece {
            Piece::Data(data, end) => {
                let full = Some(intern!(py, "response_full")).filter(|_| !end);
                self.feed(py, intern!(py, "response_body"), (PyBytes::new(py, &data), end), full)
            }
            Piece::Trailers(trailers) => {
                self.feed(py, intern!(py, "response_trailers"), (pairs(py, &[], &trailers)?,), None)
            }
        }
    }

    /// Close the stream if both messages have come out of the filters, which saves a call later.
    fn finish_if_complete(&self, py: Python<'_>) {
        let mut flow = self.flow();
        let complete = flow.up.complete && flow.down.complete && !flow.reset && !flow.switching;
        if complete && !std::mem::replace(&mut flow.closed, true) {
            drop(flow);
            self.end(py, false);
        }
    }

    fn end(&self, py: Python<'_>, gone: bool) {
        if let Err(error) = self.try_end(py, gone) {
            error.write_unraisable(py, None);
        }
    }

    fn try_end(&self, py: Python<'_>, gone: bool) -> PyResult<()> {
        let (stream, generation) = (self.python.bind(py), self.filters.generation.bind(py));
        let sinks = self.filters.sinks.bind(py);
        if sinks.contains(stream)? {
            sinks.del_item(stream)?;
        }
        let close = intern!(py, "close");
        let todo = if gone && !stream.getattr("reset_details")?.is_truthy()? {
            stream.call_method1(close, (GONE,))?
        } else {
            stream.call_method0(close)?
        };
        if !todo.cast::<PyList>()?.is_empty() {
            generation.call_method1(intern!(py, "perform"), (todo,))?;
        }
        if self.looked_at {
            generation.call_method1("looked", (stream,))?;
        }
        if generation.getattr(intern!(py, "draining"))?.is_truthy()? {
            generation.call_method0("look_drained")?;
        }
        Ok(())
    }

    /// Whether a filter of the chain can change bodies.
    pub fn changes_bodies(&self) -> bool {
        let ask = || {
            let ask = |py: Python<'_>| self.python.bind(py).getattr(intern!(py, "changes_bodies"))?.is_truthy();
            Python::attach(ask).unwrap_or(true)
        };
        // Python chooses the chain of each stream if there is no entry.
        self.filters.changes_bodies.get(self.chain).map_or_else(ask, |known| *known.get_or_init(ask))
    }

    /// Whether a filter has pinned the route, whatever happens to the headers (Higress).
    pub fn keeps_route(&self) -> bool {
        Python::attach(|py| {
            let state = self.python.bind(py).getattr("filter_state")?;
            let said = state.call_method1("get", ("clear_route_cache",))?;
            said.eq(PyBytes::new(py, b"off"))
        })
        .unwrap_or_else(|error| {
            crate::unraisable(error);
            false
        })
    }

    /// Close the stream after both sides have ended; `gone` if the client left earlier.
    pub fn finish(&self, gone: bool) {
        if std::mem::replace(&mut self.flow().closed, true) {
            return;
        }
        Python::attach(|py| self.end(py, gone));
        self.flow().wake();
    }
}

/// Bytes from which a part of a body is shared with Python instead of copied.
const SHARED: usize = 4096;

/// The data of a part of a body that has come out of filters.
fn bytes(data: &Bound<'_, PyBytes>) -> Bytes {
    match data.as_bytes() {
        small if small.len() < SHARED => Bytes::copy_from_slice(small),
        _ => Bytes::from_owner(PyBackedBytes::from(data.clone())),
    }
}

// -- Heads that have come out of the filters ----------------------------------------------------------------------

fn each(headers: &Bound<'_, PyAny>, mut see: impl FnMut(&[u8], &[u8]) -> bool) -> PyResult<bool> {
    for one in headers.cast::<PyList>()?.iter() {
        let one = one.cast::<PyTuple>()?;
        let (name, value) = (one.get_borrowed_item(0)?, one.get_borrowed_item(1)?);
        if !see(name.cast::<PyBytes>()?.as_bytes(), value.cast::<PyBytes>()?.as_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Headers that filters got. Most come out unchanged and in the same order, and need not be made again.
struct Came<'a> {
    all: Vec<(&'a HeaderName, &'a HeaderValue)>,
    at: usize,
}

impl<'a> Came<'a> {
    fn new(headers: &'a HeaderMap) -> Came<'a> {
        Came { all: headers.iter().collect(), at: 0 }
    }

    /// The next header of this name, if its value is the same too; those before it did not come out.
    fn same(&mut self, name: &[u8], value: &[u8]) -> Option<(&'a HeaderName, &'a HeaderValue)> {
        let mut ahead = self.all.iter().enumerate().skip(self.at).take(AHEAD);
        let (at, (known, said)) = ahead.find(|(_, (known, _))| known.as_str().as_bytes() == name)?;
        self.at = at + 1;
        (said.as_bytes() == value).then_some((known, said))
    }

    /// Add a header; false if it cannot be sent.
    fn append(&mut self, map: &mut HeaderMap, name: &[u8], value: &[u8]) -> bool {
        if let Some((name, value)) = self.same(name, value) {
            map.append(name.clone(), value.clone());
            return true;
        }
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
            (Ok(name), Ok(value)) => {
                map.append(name, value);
                true
            }
            _ => false,
        }
    }
}

/// How many headers `same` looks ahead.
const AHEAD: usize = 4;

/// Remove the headers of a single connection.
fn clean(map: &mut HeaderMap) {
    for value in listed(map, header::CONNECTION) {
        for word in value.as_bytes().split(|byte| *byte == b',') {
            if let Ok(name) = HeaderName::from_bytes(word.trim_ascii()) {
                map.remove(name);
            }
        }
    }
    if map.keys().any(|name| of_one_connection(name) && *name != header::TE) || map.contains_key(header::EXPECT) {
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT] {
            map.remove(name);
        }
        map.remove("keep-alive");
        map.remove("proxy-connection");
    }
}

/// Headers to send, without pseudo headers and those of a single connection; `None` if one cannot be sent.
fn out(headers: &Bound<'_, PyAny>, came: &HeaderMap) -> PyResult<Option<HeaderMap>> {
    let mut came = Came::new(came);
    let mut map = HeaderMap::with_capacity(headers.len()? + 2);
    let good = each(headers, |name, value| name.first() == Some(&b':') || came.append(&mut map, name, value))?;
    clean(&mut map);
    Ok(good.then_some(map))
}

/// Keep one `content-length`, which is 0 if nothing follows. Another value, which a filter may have set, is corrected
/// when the length is known.
fn right_length(map: &mut HeaderMap, ends: bool) {
    if let Some(first) = map.get(header::CONTENT_LENGTH).cloned() {
        map.insert(header::CONTENT_LENGTH, if ends { HeaderValue::from_static("0") } else { first });
    }
}

pub fn length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok())
}

fn request_out(headers: &Bound<'_, PyAny>, ends: bool, came: &HeaderMap) -> PyResult<RequestOut> {
    let mut came = Came::new(came);
    let (mut method, mut authority, mut target, mut https) = (None, None, None, false);
    let mut map = HeaderMap::with_capacity(headers.len()? + 4);
    map.insert(header::HOST, HeaderValue::from_static("")); // reserves the first place
    let good = each(headers, |name, value| {
        match name {
            b":method" => method = Method::from_bytes(value).ok().filter(|method| *method != Method::CONNECT),
            b":path" => target = std::str::from_utf8(value).ok().map(str::to_owned),
            b":authority" => authority = HeaderValue::from_bytes(value).ok(),
            b":scheme" => https = value == b"https",
            [b':', ..] => (),
            _ => return came.append(&mut map, name, value),
        }
        true
    })?;
    let (true, Some(method), Some(target), Some(authority)) = (good, method, target, authority) else {
        return Ok(None);
    };
    let is_target = target.starts_with('/') || (target == "*" && method == Method::OPTIONS);
    if !is_target || target.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'#') {
        return Ok(None);
    }
    let upgrade = map.get(header::UPGRADE).cloned();
    clean(&mut map);
    right_length(&mut map, ends);
    Ok(Some(Box::new(Head { method, authority, target, https, headers: map, origin: None, upgrade })))
}

fn response_out(headers: &Bound<'_, PyAny>, switching: bool, came: &HeaderMap) -> PyResult<ResponseOut> {
    let mut status = None;
    each(headers, |name, value| {
        if name == b":status" {
            let sendable = |status: &StatusCode| {
                (200..600).contains(&status.as_u16()) || (switching && *status == StatusCode::SWITCHING_PROTOCOLS)
            };
            status = StatusCode::from_bytes(value).ok().filter(sendable);
        }
        false
    })?;
    let (Some(status), Some(mut map)) = (status, out(headers, came)?) else {
        return Ok(None);
    };
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        map.remove(header::CONTENT_LENGTH);
    } else {
        right_length(&mut map, false);
    }
    Ok(Some((status, map)))
}
