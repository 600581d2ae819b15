//! The server behind the filters: a pool of connections, and what it means if there is no answer.

use crate::body::Up;
use crate::config;
use crate::head::Base;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, Error, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::DigitallySignedStruct;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const RESET: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";

/// Why we answer instead of upstream: what the client gets, and the log.
pub struct Trouble {
    pub status: u16,
    pub text: String,
    pub details: String,
}

impl Trouble {
    pub fn new(status: u16, text: &str, details: &str) -> Trouble {
        Trouble { status, text: text.into(), details: details.into() }
    }

    /// As Envoy's router words it.
    pub fn reset(status: u16, reason: &str) -> Trouble {
        let details = format!("upstream_reset_before_response_started{{{}}}", reason.replace(' ', "_"));
        Trouble { status, text: format!("{RESET}{reason}"), details }
    }

    pub fn unsendable() -> Trouble {
        Trouble::new(503, "the request cannot be sent: a filter made a malformed header", "invalid_header")
    }
}

pub struct Upstream {
    pub base: Base,
    pub settings: config::Upstream,
    client: Client<Counting, Up>,
    connects: Arc<AtomicUsize>,
    slots: Arc<Semaphore>,
}

impl Upstream {
    pub fn new(settings: config::Upstream) -> Result<Upstream, String> {
        let base =
            Base::new(&settings.url).ok_or_else(|| format!("upstream.url: {} is no URL of a server", settings.url))?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(settings.connect_timeout.0));
        let secure = HttpsConnectorBuilder::new().with_tls_config(tls(&settings.tls)?).https_or_http();
        let secure = match &settings.tls.server_name {
            None => secure,
            Some(name) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|_| format!("upstream.tls.server_name: {name:?} is no name"))?;
                secure.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
        };
        let connects = Arc::<AtomicUsize>::default();
        let connector = Counting(secure.enable_http1().wrap_connector(tcp), connects.clone());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(settings.keepalive.0)
            .http1_max_headers(settings.max_headers)
            .http1_max_buf_size(settings.max_header_size.max(8192))
            .build(connector);
        let slots = Arc::new(Semaphore::new(settings.max_connections.min(Semaphore::MAX_PERMITS)));
        Ok(Upstream { base, settings, client, connects, slots })
    }

    /// Wait for leave to use a connection.
    pub async fn slot(&self) -> Result<OwnedSemaphorePermit, Trouble> {
        if let Ok(slot) = self.slots.clone().try_acquire_owned() {
            return Ok(slot);
        }
        match timeout(self.settings.connect_timeout.0, self.slots.clone().acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(Trouble::reset(503, "overflow")),
        }
    }

    /// Send a request. One without a body that meets a connection which was just closed is sent once more, if its
    /// method may be repeated (RFC 9110, 9.2.2).
    pub async fn send(&self, request: Request<Up>) -> Result<Response<Incoming>, Trouble> {
        let again = match request.method() {
            &Method::GET | &Method::HEAD | &Method::OPTIONS | &Method::TRACE | &Method::PUT | &Method::DELETE
                if matches!(request.body(), Up::Nothing) && !request.headers().contains_key(http::header::UPGRADE) =>
            {
                let mut again = Request::new(Up::Nothing);
                *again.method_mut() = request.method().clone();
                *again.uri_mut() = request.uri().clone();
                *again.headers_mut() = request.headers().clone();
                Some(again)
            }
            _ => None,
        };
        let connects = self.connects.load(Ordering::Relaxed);
        let error = match self.client.request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match again {
            Some(again) if connects == self.connects.load(Ordering::Relaxed) && closed(&error) => {
                self.client.request(again).await.map_err(|error| trouble(&error))
            }
            _ => Err(trouble(&error)),
        }
    }
}

fn hyper_error(error: &Error) -> Option<&hyper::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Whether the server went away before it said anything.
fn closed(error: &Error) -> bool {
    !error.is_connect()
        && hyper_error(error).is_some_and(|error| {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed() || io_kind(error).is_some()
        })
}

fn io_kind(error: &hyper::Error) -> Option<std::io::ErrorKind> {
    error.source().and_then(|source| source.downcast_ref::<std::io::Error>()).map(std::io::Error::kind)
}

fn trouble(error: &Error) -> Trouble {
    if error.is_connect() {
        let mut last: &dyn std::error::Error = error;
        let mut untrusted = None;
        while let Some(source) = last.source() {
            last = source;
            untrusted = untrusted.or_else(|| tls_error(last));
        }
        if last.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::TimedOut) {
            return Trouble::reset(503, "connection timeout");
        }
        let failed = Trouble::reset(503, "remote connection failure");
        let last = match untrusted {
            Some(rustls::Error::InvalidCertificate(why)) => format!("certificate verify failed: {why}"),
            _ => last.to_string(),
        };
        let text = format!("{}, transport failure reason: {last}", failed.text);
        return Trouble { text, ..failed };
    }
    match hyper_error(error) {
        Some(error) if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() => {
            Trouble::reset(502, "protocol error")
        }
        Some(error) if error.is_user() => {
            match error.source().and_then(|source| source.downcast_ref::<crate::body::Stopped>()) {
                Some(crate::body::Stopped::TooSlow) => Trouble::new(408, "request timeout", "request_overall_timeout"),
                Some(crate::body::Stopped::Broken) => Trouble::new(400, "", "downstream_remote_disconnect"),
                Some(crate::body::Stopped::WrongLength) => {
                    Trouble::reset(503, "the request's body has another length than its content-length")
                }
                _ => Trouble::unsendable(),
            }
        }
        _ => Trouble::reset(503, "connection termination"),
    }
}

/// What TLS says, which errors of input and output are wrapped around.
fn tls_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    inner.downcast_ref().or_else(|| tls_error(inner))
}

/// Counts connections as they are made.
#[derive(Clone)]
struct Counting(HttpsConnector<HttpConnector>, Arc<AtomicUsize>);

impl tower_service::Service<http::Uri> for Counting {
    type Response = <HttpsConnector<HttpConnector> as tower_service::Service<http::Uri>>::Response;
    type Error = <HttpsConnector<HttpConnector> as tower_service::Service<http::Uri>>::Error;
    type Future = <HttpsConnector<HttpConnector> as tower_service::Service<http::Uri>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.call(uri)
    }
}

// -- TLS ----------------------------------------------------------------------------------------------------------

fn told<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String + '_ {
    move |error| format!("TLS: cannot use {}: {error}", path.display())
}

pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(told(path))?.collect::<Result<_, _>>().map_err(told(path))?;
    if found.is_empty() { Err(told(path)("there is no certificate in it")) } else { Ok(found) }
}

pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(told(path))
}

pub fn authorities(path: &Path) -> Result<rustls::RootCertStore, String> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(told(path))?;
    }
    Ok(store)
}

fn tls(settings: &config::UpstreamTls) -> Result<rustls::ClientConfig, String> {
    let store = match &settings.ca {
        Some(path) => authorities(path)?,
        None => {
            let mut store = rustls::RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            store
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if settings.verify {
        let trusted = settings.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
        let usual = usual.map_err(|error| format!("TLS: cannot use the authorities: {error}"))?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting { usual, trusted }))
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider)))
    };
    match &settings.certificate {
        None => Ok(builder.with_no_client_auth()),
        Some(path) => {
            let key = key(settings.key.as_ref().unwrap_or(path))?;
            builder.with_client_auth_cert(certificates(path)?, key).map_err(told(path))
        }
    }
}

/// Believes also a certificate that is itself in the file of authorities, as OpenSSL does.
#[derive(Debug)]
struct Trusting {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let said = self.usual.verify_server_cert(certificate, between, name, ocsp, now);
        match &said {
            // told after its time was found to be right
            Err(error) if format!("{error:?}").contains("CaUsedAsEndEntity") && self.trusted.contains(certificate) => {
                let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
                rustls::client::verify_server_name(&parsed, name)?;
                Ok(ServerCertVerified::assertion())
            }
            _ => said,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Believes every certificate: `verify: false`.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
