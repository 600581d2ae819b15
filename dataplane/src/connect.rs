//! Connections to servers of upstreams: made within a time limit, and still read after writing has failed.

use crate::config;
use crate::tls;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

/// Connects within a time limit, with TLS if the URL says so.
#[derive(Clone)]
pub struct Connector {
    secure: HttpsConnector<Tcp>,
    within: Duration,
}

impl Connector {
    /// `offered`: protocols for ALPN.
    pub fn new(settings: &config::Upstream, offered: &[&[u8]]) -> Result<Connector, String> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(settings.connect_timeout.0));
        let secure = HttpsConnectorBuilder::new().with_tls_config(tls::client(&settings.tls)?).https_or_http();
        let secure = match &settings.tls.server_name {
            None => secure,
            Some(name) => {
                let name =
                    ServerName::try_from(name.clone()).map_err(|_| format!("tls.server_name: {name:?} is no name"))?;
                secure.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
        };
        let secure = match offered {
            [] => secure.enable_http1().wrap_connector(Tcp(tcp)),
            [_] => secure.enable_http2().wrap_connector(Tcp(tcp)),
            _ => secure.enable_all_versions().wrap_connector(Tcp(tcp)),
        };
        Ok(Connector { secure, within: settings.connect_timeout.0 })
    }
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<Tcp> as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Connecting<Self::Response, BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.secure.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = timeout(self.within, self.secure.call(uri));
        Box::pin(async { connecting.await.unwrap_or_else(|_| Err(io::Error::from(ErrorKind::TimedOut).into())) })
    }
}

#[derive(Clone)]
pub struct Tcp(HttpConnector);

impl Service<Uri> for Tcp {
    type Response = Stream;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Connecting<Stream, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async { Ok(Stream { io: connecting.await?, closed: false }) })
    }
}

/// A server that has answered may close while the request's body is still on its way. Data that cannot be written is
/// then dropped without an error, because hyper would return the error instead of the answer, which can still be read.
pub struct Stream {
    io: TokioIo<TcpStream>,
    closed: bool,
}

impl Stream {
    fn written(&mut self, size: usize, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match done {
            Poll::Ready(Err(error)) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.closed = true;
                Poll::Ready(Ok(size))
            }
            done => done,
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Ok(data.len()));
        }
        let done = Pin::new(&mut self.io).poll_write(context, data);
        self.written(data.len(), done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size = data.iter().map(|part| part.len()).sum();
        if self.closed {
            return Poll::Ready(Ok(size));
        }
        let done = Pin::new(&mut self.io).poll_write_vectored(context, data);
        self.written(size, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
