//! The configuration, as JSON from the Python side, which has checked it.

use http::HeaderValue;
use pyo3::Py;
use pyo3::types::PyDict;
use serde::Deserialize;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A number of seconds in the configuration.
#[derive(Clone, Copy, Deserialize)]
#[serde(from = "f64")]
pub struct Seconds(pub Duration);

impl From<f64> for Seconds {
    fn from(seconds: f64) -> Self {
        Seconds(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(Duration::from_secs(1 << 30)))
    }
}

#[derive(Deserialize)]
pub struct Config {
    pub upstreams: BTreeMap<String, Upstream>,
    pub routes: Vec<Route>,
    /// How requests are sent to URLs that a header names instead of an upstream, if that is allowed.
    #[serde(default)]
    pub any_upstream: Option<Upstream>,
    /// Number of the chain for requests that no route fits.
    pub chain: Option<usize>,
    pub clients: Clients,
    pub forwarded: Forwarded,
    pub access_log: AccessLog,
    pub tls: Option<ServerTls>,
    pub stream_idle_timeout: Seconds,
    #[serde(default)]
    pub tcp: Vec<Tcp>,
}

/// A listener for connections of any protocol.
#[derive(Deserialize)]
pub struct Tcp {
    pub upstream: String,
    pub tls: Option<ServerTls>,
    pub connect_attempts: usize,
    pub idle_timeout: Seconds,
    /// Whether its connections pass filters.
    pub filtered: bool,
}

#[derive(Clone, Deserialize)]
pub struct Upstream {
    pub servers: Vec<Server>,
    pub protocol: Protocol,
    pub balance: Balance,
    pub outlier_detection: Option<OutlierDetection>,
    pub retry: Option<Retry>,
    pub connect_timeout: Seconds,
    pub max_headers: usize,
    pub max_header_size: usize,
    pub timeout: Seconds,
    pub total_timeout: Option<Seconds>,
    pub idle_timeout: Seconds,
    pub max_connections: usize,
    pub max_pending_requests: usize,
    pub max_requests: usize,
    pub keepalive: Seconds,
    /// How long a server that has answered may leave the rest of the request unread.
    pub linger: Seconds,
    pub rewrite_host: bool,
    pub tls: UpstreamTls,
}

#[derive(Clone, Deserialize)]
pub struct Server {
    pub url: String,
    pub weight: u32,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http1,
    Http2,
    Auto,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    RoundRobin,
    LeastRequests,
}

#[derive(Clone, Deserialize)]
pub struct OutlierDetection {
    pub consecutive_5xx: u32,
    pub base_ejection_time: Seconds,
    pub max_ejection_time: Seconds,
    pub max_ejection_percent: usize,
}

#[derive(Clone, Deserialize)]
pub struct Retry {
    pub retry_on: Vec<RetryOn>,
    pub retriable_status_codes: Vec<u16>,
    pub num_retries: u32,
    pub per_try_timeout: Option<Seconds>,
    pub base_interval: Seconds,
    pub max_interval: Seconds,
    pub max_body: usize,
}

/// Events, with Envoy's names.
#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum RetryOn {
    #[serde(rename = "5xx")]
    ServerError,
    GatewayError,
    Reset,
    ConnectFailure,
    RefusedStream,
    RetriableStatusCodes,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
}

#[derive(Deserialize)]
pub struct Route {
    pub name: Option<String>,
    pub virtual_host: Option<String>,
    pub hosts: Vec<String>,
    pub path: Option<String>,
    pub prefix: Option<String>,
    pub regex: Option<String>,
    pub methods: Vec<String>,
    pub headers: BTreeMap<String, String>,
    pub upstream: Option<String>,
    /// Several upstreams, with their shares.
    #[serde(default)]
    pub weighted: BTreeMap<String, u32>,
    #[serde(default)]
    pub redirect: Option<Redirect>,
    #[serde(default)]
    pub direct_response: Option<DirectResponse>,
    pub cluster_header: Option<String>,
    /// Whether to remove the header that names the upstream.
    #[serde(default)]
    pub remove_cluster_header: bool,
    pub prefix_rewrite: Option<String>,
    pub host_rewrite: Option<String>,
    pub timeout: Option<Seconds>,
    pub retry: Option<Retry>,
    pub chain: Option<usize>,
}

/// Where to redirect the client; parts that are not given stay as in its request.
#[derive(Deserialize)]
pub struct Redirect {
    pub scheme: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: Option<String>,
    pub prefix_rewrite: Option<String>,
    pub strip_query: bool,
    pub status: u16,
}

/// An answer without an upstream.
#[derive(Deserialize)]
pub struct DirectResponse {
    pub status: u16,
    pub body: String,
}

#[derive(Clone, Deserialize)]
pub struct UpstreamTls {
    pub verify: bool,
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub server_name: Option<String>,
}

#[derive(Deserialize)]
pub struct ServerTls {
    pub certificate: PathBuf,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
}

#[derive(Deserialize)]
pub struct Clients {
    pub max_headers: usize,
    pub max_header_size: usize,
    pub header_timeout: Seconds,
    pub keepalive: Seconds,
    pub max_connections: usize,
}

#[derive(Deserialize)]
pub struct Forwarded {
    pub use_remote_address: bool,
    pub xff_num_trusted_hops: usize,
    pub rfc7239: bool,
    pub generate_request_id: bool,
}

#[derive(Deserialize)]
pub struct AccessLog {
    pub format: String,
    pub file: String,
}

/// One connection of a client.
pub struct Peer {
    pub client: SocketAddr,
    /// The client's address without its port, as the value of a header.
    pub client_text: HeaderValue,
    pub server: SocketAddr,
    pub tls: Option<TlsInfo>,
    /// The same in the form for filters, made by the first request.
    pub scope: OnceCell<Py<PyDict>>,
}

impl Peer {
    pub fn new(client: SocketAddr, server: SocketAddr, tls: Option<TlsInfo>) -> Peer {
        let client_text = HeaderValue::from_str(&client.ip().to_string()).expect("an address");
        Peer { client, client_text, server, tls, scope: OnceCell::new() }
    }
}

/// The connection's TLS.
#[derive(Clone)]
pub struct TlsInfo {
    pub version: u16,
    /// The client's certificate in DER, if it sent one.
    pub certificate: Option<Vec<u8>>,
}
