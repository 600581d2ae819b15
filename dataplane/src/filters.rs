//! The Python side of a request: a stream of `proxywasm_host`, fed with the GIL held, and what comes out of it.
//!
//! Effects of the stream at hand are read here; all others are given to `perform`, which routes them. What comes out
//! of a stream without being fed (a tick, a reply to a callout) comes to its `Sink`.

use crate::config::{Peer, TlsInfo};
use crate::head::{Head, listed, of_one_connection};
use crate::routes::Route;
use crate::upstream::{Upstream, UpstreamError, UpstreamInfo};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;

/// Chains of filters, as `serve` gives them.
pub struct Filters {
    begin: Py<PyAny>,
    finish: Py<PyAny>,
    perform: Py<PyAny>,
    unsendable: Py<PyAny>,
    kinds: [Py<PyAny>; 9],
    /// Of each chain, whether a filter of it can change bodies.
    changes_bodies: Vec<OnceLock<bool>>,
}

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
pub type RequestOut = Option<Head>;
pub type ResponseOut = Option<(StatusCode, HeaderMap)>;

/// What has come out of the filters and was not taken, for one direction.
pub struct Direction<H> {
    pub head: Option<(H, bool)>,
    pub pieces: VecDeque<Piece>,
    /// The end has come out.
    pub complete: bool,
    /// Filters hold more than their limit: nothing more is to be read.
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
    /// Upstream goes over to another protocol: the response is 101.
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

/// A request in the filters.
pub struct Stream {
    python: Py<PyAny>,
    filters: Arc<Filters>,
    chain: usize,
    properties: Py<PyDict>,
    flow: Mutex<Flow>,
}

/// What filters can read of where a request goes, as properties.
#[derive(Default)]
pub struct StreamInfo<'a> {
    pub route: Option<&'a Route>,
    pub upstream: Option<&'a Upstream>,
    pub upstream_info: Option<&'a UpstreamInfo>,
    pub error: Option<&'a UpstreamError>,
}

impl StreamInfo<'_> {
    /// Under Envoy's names.
    fn tell(&self, py: Python<'_>, properties: &Bound<'_, PyDict>) -> PyResult<()> {
        let names = [
            (intern!(py, "xds.route_name"), self.route.and_then(|route| route.name.as_deref())),
            (intern!(py, "xds.virtual_host_name"), self.route.and_then(|route| route.virtual_host.as_deref())),
            (intern!(py, "xds.cluster_name"), self.upstream.map(|upstream| upstream.name.as_str())),
        ];
        for (name, value) in names {
            match value {
                Some(value) => properties.set_item(name, value)?,
                None if self.upstream_info.is_some() && properties.contains(name)? => properties.del_item(name)?,
                None => (),
            }
        }
        if let Some(upstream_info) = self.upstream_info.filter(|upstream_info| upstream_info.attempts > 0) {
            properties.set_item(intern!(py, "upstream.address"), &upstream_info.address)?;
            if let Some(port) = upstream_info.address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()) {
                properties.set_item(intern!(py, "upstream.port"), port)?;
            }
            properties.set_item(intern!(py, "upstream.request_attempt_count"), upstream_info.attempts)?;
        }
        if let Some(error) = self.error {
            properties.set_item("response.flags", error.flag)?;
            properties.set_item("response.code_details", &error.details)?;
            if let Some(why) = &error.transport {
                properties.set_item("upstream.transport_failure_reason", why)?;
            }
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

/// What is known of the connection, as ASGI has it; `origin` is the client's address as trusted proxies tell it.
fn scope(py: Python<'_>, protocol: &str, peer: &Peer, origin: Option<IpAddr>) -> PyResult<Py<PyDict>> {
    let usual = origin.is_none() && protocol != "1.0";
    if let Some(scope) = peer.scope.get().filter(|_| usual) {
        return Ok(scope.clone_ref(py));
    }
    let scope = PyDict::new(py);
    scope.set_item("http_version", protocol)?;
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

impl Filters {
    pub fn new(chain: &Bound<'_, PyAny>) -> PyResult<Filters> {
        let effects = chain.py().import("proxywasm_host.runtime.effects")?;
        let kinds: Vec<Py<PyAny>> =
            KINDS.iter().map(|name| effects.getattr(*name).map(Bound::unbind)).collect::<PyResult<_>>()?;
        let method = |name: &str| chain.getattr(name).map(Bound::unbind);
        Ok(Filters {
            begin: method("begin")?,
            finish: method("finish")?,
            perform: method("perform")?,
            unsendable: method("unsendable")?,
            kinds: kinds.try_into().map_err(|_| pyo3::exceptions::PyTypeError::new_err("effects"))?,
            changes_bodies: vec![OnceLock::new(); chain.getattr("chains")?.len()?],
        })
    }

    /// A request comes in.
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
            let pseudo = [
                (&b":authority"[..], head.authority.as_bytes()),
                (&b":path"[..], head.target.as_bytes()),
                (&b":method"[..], head.method.as_str().as_bytes()),
                (&b":scheme"[..], scheme),
            ];
            let headers = pairs(py, &pseudo, &head.headers)?;
            let scope = scope(py, protocol, peer, head.origin)?;
            let sink = Py::new(py, Sink { stream: Mutex::new(None) })?;
            let properties = PyDict::new(py);
            stream_info.tell(py, &properties)?;
            let given = (&sink, &headers, end, scope, chain, &properties);
            let begun = self.begin.bind(py).call1(given)?;
            let begun = begun.cast::<PyTuple>()?;
            let python = begun.get_item(0)?;
            let stream = Arc::new(Stream {
                python: python.unbind(),
                filters: self.clone(),
                chain,
                properties: properties.unbind(),
                flow: Mutex::default(),
            });
            *sink.borrow(py).stream.lock().unwrap() = Some(Arc::downgrade(&stream));
            stream.take(py, &begun.get_item(1)?)?;
            Ok(stream)
        })
    }

    fn read(&self, py: Python<'_>, effect: &Bound<'_, PyAny>, which: usize, flow: &mut Flow) -> PyResult<()> {
        let end =
            |effect: &Bound<'_, PyAny>| -> PyResult<bool> { effect.getattr(intern!(py, "end_stream"))?.is_truthy() };
        match which {
            0 => {
                let end = end(effect)?;
                let headers = effect.getattr(intern!(py, "headers"))?;
                let head = request_out(&headers, end)?;
                if head.is_none() {
                    self.unsendable.bind(py).call1(("request", headers))?;
                }
                flow.up.complete = end;
                flow.up.head = Some((head, end));
            }
            1 | 4 => {
                let end = end(effect)?;
                let data = Bytes::copy_from_slice(effect.getattr(intern!(py, "data"))?.cast::<PyBytes>()?.as_bytes());
                let (pieces, complete, full) = match which {
                    1 => (&mut flow.up.pieces, &mut flow.up.complete, &mut flow.up.full),
                    _ => (&mut flow.down.pieces, &mut flow.down.complete, &mut flow.down.full),
                };
                pieces.push_back(Piece::Data(data, end));
                *complete = end;
                *full = false;
            }
            2 | 5 => {
                let trailers = out(&effect.getattr(intern!(py, "trailers"))?)?.unwrap_or_default();
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
                let head = response_out(&headers, flow.switching)?;
                if head.is_none() {
                    self.unsendable.bind(py).call1(("response", headers))?;
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

    /// Read what an event has returned.
    fn take(&self, py: Python<'_>, todo: &Bound<'_, PyAny>) -> PyResult<()> {
        let own = self.python.bind(py);
        let mut others: Option<Bound<'_, PyList>> = None;
        for effect in todo.cast::<PyList>()?.iter() {
            let kind = effect.get_type();
            match self.filters.kinds.iter().position(|each| kind.is(each.bind(py))) {
                Some(which) if effect.getattr(intern!(py, "stream"))?.is(own) => {
                    self.filters.read(py, &effect, which, &mut self.flow())?;
                }
                _ => others.get_or_insert_with(|| PyList::empty(py)).append(effect)?,
            }
        }
        if let Some(others) = others {
            self.filters.perform.bind(py).call1((others,))?;
        }
        self.flow().wake();
        Ok(())
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
        self.take(py, &todo)?;
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

    /// The response's head has come, and with it perhaps the first piece of its body.
    pub fn response_head(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        end: bool,
        first: Option<Piece>,
        stream_info: &StreamInfo<'_>,
    ) -> PyResult<()> {
        Python::attach(|py| {
            stream_info.tell(py, self.properties.bind(py))?;
            let headers = pairs(py, &[(b":status", status.as_str().as_bytes())], headers)?;
            self.feed(py, intern!(py, "response_headers"), (headers, end), None)?;
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

    /// Both messages have come out of the filters: they need not be called once more for the end.
    fn finish_if_complete(&self, py: Python<'_>) {
        let mut flow = self.flow();
        let complete = flow.up.complete && flow.down.complete && !flow.reset && !flow.switching;
        if complete && !std::mem::replace(&mut flow.closed, true) {
            drop(flow);
            self.end(py, false);
        }
    }

    fn end(&self, py: Python<'_>, gone: bool) {
        if let Err(error) = self.filters.finish.bind(py).call1((self.python.bind(py), gone)) {
            error.write_unraisable(py, None);
        }
    }

    /// Whether a filter of the chain can change bodies.
    pub fn changes_bodies(&self) -> bool {
        let ask = || {
            let ask = |py: Python<'_>| self.python.bind(py).getattr(intern!(py, "changes_bodies"))?.is_truthy();
            Python::attach(ask).unwrap_or(true)
        };
        // Where the chain is chosen in Python, it is another one for each stream.
        self.filters.changes_bodies.get(self.chain).map_or_else(ask, |known| *known.get_or_init(ask))
    }

    /// Whether a filter has said that the route stays, whatever becomes of the headers (Higress).
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

    /// Both sides are done with it; `gone`, if the client left before.
    pub fn finish(&self, gone: bool) {
        if std::mem::replace(&mut self.flow().closed, true) {
            return;
        }
        Python::attach(|py| self.end(py, gone));
        self.flow().wake();
    }
}

/// Takes note of what comes out of a stream that was not fed.
#[pyclass(frozen)]
pub struct Sink {
    stream: Mutex<Option<std::sync::Weak<Stream>>>,
}

#[pymethods]
impl Sink {
    fn __call__(&self, effect: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(stream) = self.stream.lock().unwrap().as_ref().and_then(std::sync::Weak::upgrade) else {
            return Ok(());
        };
        let kind = effect.get_type();
        if let Some(which) = stream.filters.kinds.iter().position(|each| kind.is(each.bind(effect.py()))) {
            stream.filters.read(effect.py(), effect, which, &mut stream.flow())?;
            stream.flow().wake();
        }
        Ok(())
    }
}

// -- Heads that have come out of the filters ----------------------------------------------------------------------

fn each(headers: &Bound<'_, PyAny>, mut see: impl FnMut(&[u8], &[u8]) -> bool) -> PyResult<bool> {
    for one in headers.cast::<PyList>()?.iter() {
        let one = one.cast::<PyTuple>()?;
        let (name, value) = (one.get_item(0)?, one.get_item(1)?);
        if !see(name.cast::<PyBytes>()?.as_bytes(), value.cast::<PyBytes>()?.as_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Add a header; false if it cannot be sent.
fn append(map: &mut HeaderMap, name: &[u8], value: &[u8]) -> bool {
    match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii())) {
        (Ok(name), Ok(value)) => {
            map.append(name, value);
            true
        }
        _ => false,
    }
}

/// Take away what is a matter of one connection.
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

/// Headers without pseudo headers and what is a matter of one connection; `None` if they cannot be sent.
fn out(headers: &Bound<'_, PyAny>) -> PyResult<Option<HeaderMap>> {
    let mut map = HeaderMap::with_capacity(headers.len()? + 2);
    let good = each(headers, |name, value| name.first() == Some(&b':') || append(&mut map, name, value))?;
    clean(&mut map);
    Ok(good.then_some(map))
}

/// Leave one `content-length` of several, which says 0 if nothing follows. What it says else is put right when that is
/// known: it is not what the sender said.
fn right_length(map: &mut HeaderMap, ends: bool) {
    if let Some(first) = map.get(header::CONTENT_LENGTH).cloned() {
        map.insert(header::CONTENT_LENGTH, if ends { HeaderValue::from_static("0") } else { first });
    }
}

pub fn length(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse().ok())
}

fn request_out(headers: &Bound<'_, PyAny>, ends: bool) -> PyResult<RequestOut> {
    let (mut method, mut authority, mut target, mut https) = (None, None, None, false);
    let mut map = HeaderMap::with_capacity(headers.len()? + 4);
    map.insert(header::HOST, HeaderValue::from_static("")); // its place: the first
    let good = each(headers, |name, value| {
        match name {
            b":method" => method = Method::from_bytes(value).ok().filter(|method| *method != Method::CONNECT),
            b":path" => target = std::str::from_utf8(value).ok().map(str::to_owned),
            b":authority" => authority = HeaderValue::from_bytes(value).ok(),
            b":scheme" => https = value == b"https",
            [b':', ..] => (),
            _ => return append(&mut map, name, value),
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
    Ok(Some(Head { method, authority, target, https, headers: map, origin: None, upgrade }))
}

fn response_out(headers: &Bound<'_, PyAny>, switching: bool) -> PyResult<ResponseOut> {
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
    let (Some(status), Some(mut map)) = (status, out(headers)?) else {
        return Ok(None);
    };
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        map.remove(header::CONTENT_LENGTH);
    } else {
        right_length(&mut map, false);
    }
    Ok(Some((status, map)))
}
