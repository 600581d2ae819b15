//! The data plane of `proxywasm serve`: HTTP/1.1 and HTTP/2 on hyper, with filters of `proxywasm_host` in between.
//!
//! Threads share no connections or requests (`server_thread`), so they wait only for the GIL, which is held only while
//! filters run. `server` is the side of clients (`http1_syntax` refuses invalid messages that hyper would accept).
//! `upstream` is the other side (`routes` to it, `balance` between its servers, `connect`, `http1`, `http2`, `retry`).
//! `exchange` is a request between them, with `head` and `body` (`tunnel` and `websocket`, once both sides have left
//! HTTP). `filters` is the Python side, and `access` the log and the metrics. `tcp` carries other protocols.

mod access;
mod balance;
mod body;
mod config;
mod connect;
mod exchange;
mod filters;
mod head;
mod http1;
mod http1_syntax;
mod http2;
mod retry;
mod routes;
mod server;
mod server_thread;
mod tcp;
mod tls;
mod tunnel;
mod upstream;
mod websocket;

use pyo3::prelude::*;

/// A request allocates and frees dozens of small blocks, which takes less time with mimalloc than with glibc. Huge
/// pages would make the process larger (`no_thp`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Report an exception that should not have been raised.
pub(crate) fn unraisable(error: PyErr) {
    Python::attach(|py| error.write_unraisable(py, None));
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<filters::PyRequest>()?;
    module.add_class::<server_thread::PyServerThread>()
}
