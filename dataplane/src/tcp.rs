//! Connections of any protocol, through network filters to a server, as in Envoy's TCP proxy.
//!
//! The server is connected once the filters let the connection continue. Until then the client is read only while a
//! filter waits for its data.

use crate::config::{Peer, Tcp};
use crate::filters::{Filters, Flow, Piece, scope};
use crate::server::accept;
use crate::server_thread::{Generation, ServerThread};
use crate::tunnel::{Passed, SPACE, Side, both_ways, moving};
use crate::upstream::{Address, Upstream};
use bytes::Bytes;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use pyo3::{intern, prelude::*};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// A listener: the destination and the settings of its connections.
pub struct Listener {
    pub upstream: Arc<Upstream>,
    pub settings: Tcp,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// Carry a connection that the listener with this number has accepted.
pub async fn connection(thread: Rc<ServerThread>, number: usize, client: TcpStream) {
    let generation = thread.generation();
    let clients = &generation.config.clients;
    let (Ok(from), Ok(at)) = (client.peer_addr(), client.local_addr()) else { return };
    let _counted = thread.connected();
    let _ = client.set_nodelay(true);
    if thread.connections() > clients.max_connections {
        return;
    }
    match &generation.tcp[number].tls {
        None => talk(&generation, number, client, Peer::new(from, at, None)).await,
        Some(tls) => {
            if let Some((client, info)) = accept(tls, clients, client).await {
                talk(&generation, number, client, Peer::new(from, at, Some(info))).await;
            }
        }
    }
}

async fn talk<C: AsyncRead + AsyncWrite + Unpin>(generation: &Generation, number: usize, client: C, peer: Peer) {
    let listener = &generation.tcp[number];
    let filters = generation.filters.as_ref().filter(|_| listener.settings.filtered);
    let opened = Connection::open(filters, number, &peer, &listener.upstream.name);
    let Ok(connection) = opened.map_err(crate::unraisable) else { return };
    let carried = carry(listener, &connection, client);
    if moving(&connection, listener.settings.idle_timeout.0, carried).await == Some(Side::Client) {
        connection.left();
    }
}

/// Carry bytes without filters until both sides have ended, one breaks off, or nothing moves for `idle`. Returns whether
/// both have ended.
pub async fn unfiltered<C, S>(client: C, server: S, idle: Duration) -> bool
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let connection = Connection { wire: Wire::new(), filtered: None };
    let carried = both_ways(&connection, client, server, false);
    moving(&connection, idle, carried).await.is_some_and(|ended| ended.is_ok())
}

/// Carry a connection to its end. Returns the side that has closed it; filters and failures count as the server.
async fn carry<C: AsyncRead + AsyncWrite + Unpin>(listener: &Listener, connection: &Connection, mut client: C) -> Side {
    let mut ended = false;
    while !connection.established() {
        if connection.wire.closed.load(Relaxed) {
            return Side::Server;
        }
        let full = connection.flow().up.full;
        let mut space = vec![0; SPACE];
        tokio::select! {
            read = client.read(&mut space), if !ended && !full => {
                let Ok(size) = read else { return Side::Client };
                ended = size == 0;
                space.truncate(size);
                if let Err(error) = connection.feed(Side::Server, Piece::Data(space.into(), ended)) {
                    crate::unraisable(error);
                    return Side::Server;
                }
            }
            () = connection.wire.stirred.notified() => (),
        }
    }
    if connection.wire.closed.load(Relaxed) {
        return Side::Server;
    }
    let Ok((server, address, _lease)) = listener.upstream.connect(listener.settings.connect_attempts).await else {
        return Side::Server;
    };
    connection.connected(&address);
    match both_ways(connection, client, server, ended).await {
        Ok(()) => connection.last(),
        Err(side) => side,
    }
}

/// What has come out of the filters of a connection.
struct Wire {
    flow: Mutex<Flow>,
    /// Data has come out, or the filters have let the connection continue.
    stirred: Notify,
    /// A filter has closed it: nothing more comes out.
    closed: AtomicBool,
    /// When data last arrived or was written, and the side that ended last.
    moved: Mutex<(Instant, Side)>,
}

/// Receives the effects of a connection's stream.
#[pyclass(frozen)]
struct Sink(Arc<Wire>);

#[pymethods]
impl Sink {
    fn __call__(&self, effect: &Bound<'_, PyAny>) -> PyResult<()> {
        static KINDS: PyOnceLock<[Py<PyAny>; 2]> = PyOnceLock::new();
        let py = effect.py();
        let kinds = KINDS.get_or_try_init(py, || -> PyResult<_> {
            let effects = py.import("proxywasm_host.runtime.effects")?;
            Ok([effects.getattr("DownstreamData")?.unbind(), effects.getattr("UpstreamData")?.unbind()])
        })?;
        let kind = effect.get_type();
        let to = match kinds.iter().position(|each| kind.is(each.bind(py))) {
            Some(0) => Side::Server,
            Some(_) => Side::Client,
            None => {
                self.0.close();
                return Ok(());
            }
        };
        let end = effect.getattr(intern!(py, "end_stream"))?.is_truthy()?;
        let data = effect.getattr(intern!(py, "data"))?.cast_into::<PyBytes>()?;
        self.0.out(to, Bytes::from_owner(PyBackedBytes::from(data)), end);
        Ok(())
    }
}

impl Wire {
    fn new() -> Arc<Wire> {
        let moved = Mutex::new((Instant::now(), Side::Server));
        Arc::new(Wire { flow: Mutex::default(), stirred: Notify::new(), closed: AtomicBool::new(false), moved })
    }

    fn out(&self, to: Side, data: Bytes, end: bool) {
        if self.closed.load(Relaxed) {
            return;
        }
        let mut flow = self.flow.lock().unwrap();
        let (pieces, complete, full) = match to {
            Side::Server => {
                let up = &mut flow.up;
                (&mut up.pieces, &mut up.complete, &mut up.full)
            }
            Side::Client => {
                let down = &mut flow.down;
                (&mut down.pieces, &mut down.complete, &mut down.full)
            }
        };
        if !data.is_empty() {
            pieces.push_back(Piece::Data(data, end));
        }
        *complete |= end;
        *full = false;
        flow.wake();
        self.stirred.notify_one();
    }

    /// Close the connection, for a filter or after a failure, once earlier data is written.
    fn close(&self) {
        self.closed.store(true, Relaxed);
        let mut flow = self.flow.lock().unwrap();
        flow.up.complete = true;
        flow.down.complete = true;
        flow.wake();
        self.stirred.notify_one();
    }
}

/// A connection, with its filters if there are any.
struct Connection {
    wire: Arc<Wire>,
    filtered: Option<Filtered>,
}

struct Filtered {
    filters: Arc<Filters>,
    stream: Py<PyAny>,
    /// Its destination, as properties.
    routed: Py<PyDict>,
    /// Whether the client has closed the connection.
    remote: Cell<bool>,
}

/// Closes the stream, also if the server ends while the connection is open.
impl Drop for Filtered {
    fn drop(&mut self) {
        let told = Python::attach(|py| -> PyResult<()> {
            let keywords = PyDict::new(py);
            keywords.set_item("remote", self.remote.get())?;
            let generation = self.filters.generation.bind(py);
            generation.call_method(intern!(py, "disconnected"), (&self.stream,), Some(&keywords)).map(drop)
        });
        let _ = told.map_err(crate::unraisable);
    }
}

impl Connection {
    /// Make the stream of a connection, and tell the filters that it is open.
    fn open(filters: Option<&Arc<Filters>>, number: usize, peer: &Peer, upstream: &str) -> PyResult<Connection> {
        let wire = Wire::new();
        let Some(filters) = filters else { return Ok(Connection { wire, filtered: None }) };
        Python::attach(|py| {
            let routed = PyDict::new(py);
            routed.set_item("xds.cluster_name", upstream)?;
            let asked = (number, scope(py, None, peer, None)?, &routed, Sink(wire.clone()));
            let stream = filters.generation.bind(py).call_method1(intern!(py, "connection"), asked)?.unbind();
            let (routed, remote) = (routed.unbind(), Cell::default());
            let filtered = Filtered { filters: filters.clone(), stream, routed, remote };
            let connection = Connection { wire, filtered: Some(filtered) };
            connection.event(py, intern!(py, "new_connection"), ())?;
            Ok(connection)
        })
    }

    fn event<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, pyo3::types::PyString>,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> PyResult<()> {
        let Some(Filtered { filters, stream, .. }) = &self.filtered else { return Ok(()) };
        let todo = stream.bind(py).call_method1(name, arguments)?;
        filters.generation.bind(py).call_method1(intern!(py, "perform"), (todo,))?;
        Ok(())
    }

    /// Whether the filters have let it continue.
    fn established(&self) -> bool {
        let Some(Filtered { stream, .. }) = &self.filtered else { return true };
        let asked = |py: Python<'_>| stream.bind(py).getattr(intern!(py, "established"))?.is_truthy();
        Python::attach(asked).map_err(crate::unraisable).unwrap_or_else(|()| {
            self.wire.close(); // do not connect without an answer
            true
        })
    }

    fn connected(&self, address: &Address) {
        let Some(Filtered { routed, .. }) = &self.filtered else { return };
        let address = address.to_string();
        let told = Python::attach(|py| -> PyResult<()> {
            let routed = routed.bind(py);
            if let Some(port) = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()) {
                routed.set_item("upstream.port", port)?;
            }
            routed.set_item("upstream.address", address)
        });
        let _ = told.map_err(crate::unraisable);
    }

    /// The side that ended last.
    fn last(&self) -> Side {
        self.wire.moved.lock().unwrap().1
    }

    /// Note that the client has closed the connection.
    fn left(&self) {
        if let Some(filtered) = &self.filtered {
            filtered.remote.set(true);
        }
    }
}

impl Passed for Connection {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.wire.flow.lock().unwrap()
    }

    fn feed(&self, to: Side, piece: Piece) -> PyResult<()> {
        let Piece::Data(data, end) = piece else { return Ok(()) };
        {
            let mut moved = self.wire.moved.lock().unwrap();
            moved.0 = Instant::now();
            if end {
                moved.1 = if to == Side::Server { Side::Client } else { Side::Server };
            }
        }
        let Some(Filtered { stream, .. }) = &self.filtered else {
            self.wire.out(to, data, end);
            return Ok(());
        };
        Python::attach(|py| {
            let (event, full) = match to {
                Side::Server => (intern!(py, "downstream_data"), intern!(py, "downstream_full")),
                Side::Client => (intern!(py, "upstream_data"), intern!(py, "upstream_full")),
            };
            self.event(py, event, (PyBytes::new(py, &data), end))?;
            let is_full = stream.bind(py).getattr(full)?.is_truthy()?;
            let mut flow = self.flow();
            match to {
                Side::Server => flow.up.full = is_full,
                Side::Client => flow.down.full = is_full,
            }
            Ok(())
        })
    }

    fn written(&self) {
        self.wire.moved.lock().unwrap().0 = Instant::now();
    }

    fn moved(&self) -> Instant {
        self.wire.moved.lock().unwrap().0
    }
}
