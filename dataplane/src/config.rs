//! What the configuration says, as JSON from the Python side, which has checked it.

use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Seconds as the configuration has them.
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
    pub upstream: Upstream,
    pub clients: Clients,
    pub forwarded: Forwarded,
    pub access_log: AccessLog,
    pub tls: Option<ServerTls>,
    pub stream_idle_timeout: Seconds,
}

#[derive(Clone, Deserialize)]
pub struct Upstream {
    pub url: String,
    pub connect_timeout: Seconds,
    pub max_headers: usize,
    pub max_header_size: usize,
    pub timeout: Seconds,
    pub idle_timeout: Seconds,
    pub max_connections: usize,
    pub keepalive: Seconds,
    pub rewrite_host: bool,
    pub tls: UpstreamTls,
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
    pub server: SocketAddr,
    pub tls: Option<TlsFacts>,
}

/// What TLS says of it.
#[derive(Clone)]
pub struct TlsFacts {
    pub version: u16,
    /// The client's certificate in DER, if it showed one.
    pub certificate: Option<Vec<u8>>,
}
