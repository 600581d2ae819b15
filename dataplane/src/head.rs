//! Heads of messages between the two sides: which headers pass, which are removed, and which we set.
//!
//! Headers of a single connection (RFC 9110, section 7.6.1) are not forwarded; hyper frames messages anew on each side.

use crate::body::Up;
use crate::config::{Forwarded, Peer};
use http::header::{self, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, request};
use std::net::IpAddr;

const XFF: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A request that is answered at once, before filters and upstream.
pub struct Refused(pub StatusCode, pub &'static str);

/// A request's head without the headers of a single connection; the value of `Host` is `authority`.
#[derive(Clone)]
pub struct Head {
    pub method: Method,
    pub authority: HeaderValue,
    pub target: String,
    pub https: bool,
    /// The first is `Host`, which later gets the value of `authority`.
    pub headers: HeaderMap,
    /// The client's address according to trusted proxies before us.
    pub origin: Option<IpAddr>,
    /// The protocol that the client asks to switch to.
    pub upgrade: Option<HeaderValue>,
}

impl Head {
    /// Replace the host, and put the client's into `X-Forwarded-Host`.
    pub fn say_host(&mut self, host: HeaderValue) {
        let before = std::mem::replace(&mut self.authority, host);
        if !before.is_empty() {
            self.headers.insert(HeaderName::from_static("x-forwarded-host"), before);
        }
    }
}

/// A host without its port.
pub fn host_of(authority: &[u8]) -> &[u8] {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(at) if !authority[at..].contains(&b']') => &authority[..at],
        _ => authority,
    }
}

pub fn of_one_connection(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || *name == header::TE
}

/// Whether `Connection` names this header.
fn named(connection: &[HeaderValue], name: &HeaderName) -> bool {
    !connection.is_empty()
        && connection.iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|word| word.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
        })
}

/// Bytes of headers on the wire.
pub fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum()
}

pub fn listed(headers: &HeaderMap, name: HeaderName) -> Vec<HeaderValue> {
    headers.get_all(name).iter().cloned().collect()
}

/// Whether a header that is a list contains this word.
pub fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|each| each.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    })
}

/// Read a request's head. An ambiguous head is refused, and one with more than `most` headers, which `http1_syntax`
/// counts for HTTP/1 only.
pub fn read(parts: &request::Parts, peer: &Peer, most: usize) -> Result<Box<Head>, Refused> {
    let bad = |why| Refused(StatusCode::BAD_REQUEST, why);
    if parts.headers.len() > most {
        return Err(Refused(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many headers"));
    }
    if parts.method == Method::CONNECT {
        return Err(Refused(StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported"));
    }
    let came = &parts.headers;
    let mut hosts = came.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("there are several Hosts"));
    }
    if let Some(codings) = came.get(header::TRANSFER_ENCODING) {
        if came.contains_key(header::CONTENT_LENGTH) {
            return Err(bad("Transfer-Encoding beside Content-Length"));
        }
        if came.get_all(header::TRANSFER_ENCODING).iter().count() > 1
            || !codings.as_bytes().eq_ignore_ascii_case(b"chunked")
        {
            return Err(Refused(StatusCode::NOT_IMPLEMENTED, "the only transfer coding known here is chunked"));
        }
    }
    if came.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(bad("there are several Content-Lengths"));
    }
    if parts.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(bad("the target is a URL of another scheme"));
    }
    if parts.uri.authority().is_some() && parts.uri.scheme().is_none() {
        return Err(bad("the target is neither a path nor a URL"));
    }
    let authority = match parts.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the Host is invalid"))?,
        None => match host {
            Some(host) => host.clone(),
            None if parts.version < Version::HTTP_11 => {
                HeaderValue::from_str(&peer.server.to_string()).expect("an address")
            }
            None => return Err(bad("the Host is missing")),
        },
    };
    if !authority.is_empty() && !is_authority(authority.as_bytes()) {
        return Err(bad("the Host is invalid"));
    }
    let target = match parts.uri.path_and_query().map_or("/", |both| both.as_str()) {
        "*" if parts.method != Method::OPTIONS => return Err(bad("the target * is for OPTIONS")),
        "" => "/".to_owned(),
        text if text.starts_with('?') => format!("/{text}"),
        text => text.to_owned(),
    };
    if !(target.starts_with('/') || target == "*") {
        return Err(bad("the target is neither a path nor a URL"));
    }
    let connection = listed(came, header::CONNECTION);
    let mut upgrade = None;
    if has_word(came, header::CONNECTION, "upgrade") && parts.version >= Version::HTTP_11 {
        upgrade = came.get(header::UPGRADE).cloned();
    }
    let mut headers = HeaderMap::with_capacity(came.len() + 4);
    headers.insert(header::HOST, authority.clone());
    for (name, value) in came {
        if *name == header::HOST || *name == header::COOKIE || *name == header::EXPECT {
            continue;
        }
        if *name == header::CONTENT_LENGTH || !(of_one_connection(name) || named(&connection, name)) {
            headers.append(name.clone(), value.clone());
        }
    }
    if has_word(came, header::TE, "trailers") {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let cookies: Vec<_> = if named(&connection, &header::COOKIE) { vec![] } else { listed(came, header::COOKIE) };
    match cookies.as_slice() {
        [] => (),
        [one] => drop(headers.insert(header::COOKIE, one.clone())),
        several => {
            // HTTP/2 may split cookies
            let all = several.iter().map(|each| each.as_bytes()).collect::<Vec<_>>().join(&b"; "[..]);
            headers.insert(header::COOKIE, HeaderValue::from_bytes(&all).expect("of values"));
        }
    }
    let https = peer.tls.is_some();
    Ok(Box::new(Head { method: parts.method.clone(), authority, target, https, headers, origin: None, upgrade }))
}

/// Whether this is a host, with or without a port (RFC 9110, section 7.2).
fn is_authority(text: &[u8]) -> bool {
    let host = host_of(text);
    let port = text[host.len()..].strip_prefix(b":").unwrap_or_default();
    let inside = match host {
        [b'[', inside @ .., b']'] => inside.iter().all(|byte| byte.is_ascii_alphanumeric() || b":.%_~-".contains(byte)),
        name => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._~%!$&'()*+;=-".contains(byte)),
    };
    inside && port.iter().all(u8::is_ascii_digit)
}

/// Describe the client to upstream and filters, as Envoy does (`conn_manager_utility.cc`).
pub fn forward(head: &mut Head, settings: &Forwarded, peer: &Peer) {
    let headers = &mut head.headers;
    let before = headers.get_all(XFF).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..]);
    let hops: Vec<&[u8]> =
        before.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()).collect();
    let scheme = HeaderValue::from_static(if head.https { "https" } else { "http" });
    let trusted = settings.xff_num_trusted_hops + usize::from(!settings.use_remote_address);
    if trusted > 0 && trusted <= hops.len() {
        head.origin = address(hops[hops.len() - trusted]);
    }
    if settings.use_remote_address {
        let all = match before.as_slice() {
            [] => peer.client_text.clone(),
            _ => {
                HeaderValue::from_bytes(&[&before[..], b",", peer.client_text.as_bytes()].concat()).expect("of values")
            }
        };
        headers.insert(XFF, all);
    }
    if (settings.use_remote_address && settings.xff_num_trusted_hops == 0) || !headers.contains_key(PROTO) {
        headers.insert(PROTO, scheme.clone());
    }
    if settings.generate_request_id && !headers.contains_key(REQUEST_ID) {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut text);
        headers.insert(REQUEST_ID, HeaderValue::from_str(id).expect("ASCII"));
    }
    if settings.rfc7239 {
        let client = peer.client.ip().to_string();
        let node = if peer.client.is_ipv6() { format!("\"[{client}]\"") } else { client };
        let host: Vec<u8> = head.authority.as_bytes().iter().copied().filter(|byte| !b"\"\\".contains(byte)).collect();
        let element = [b"for=", node.as_bytes(), b";host=\"", &host, b"\";proto=", scheme.as_bytes()].concat();
        let mut all =
            listed(headers, header::FORWARDED).iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        all.push(element);
        headers.insert(header::FORWARDED, HeaderValue::from_bytes(&all.join(&b", "[..])).expect("of values"));
    }
    match headers.get(PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") => head.https = true,
        Some(b"http") => head.https = false,
        _ => (),
    }
}

fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    text.parse().ok().or_else(|| text.rsplit_once(':')?.0.trim_matches(['[', ']']).parse().ok())
}

/// Make the request for upstream; `None` if HTTP cannot express it.
pub fn for_upstream(head: Box<Head>, base: &Base, rewrite_host: bool, http2: bool, body: Up) -> Option<Request<Up>> {
    let mut head = *head;
    let target = match head.target == "*" || base.prefix.is_empty() {
        true => std::mem::take(&mut head.target),
        false => format!("{}{}", base.prefix, head.target),
    };
    if rewrite_host || head.authority.is_empty() {
        head.say_host(HeaderValue::from_str(base.authority.as_str()).ok()?);
    }
    let uri = match http2 {
        true => Uri::builder().scheme(base.scheme.clone()).authority(head.authority.as_bytes()),
        false => Uri::builder(),
    };
    let uri = uri.path_and_query(target).build().ok()?;
    let mut headers = head.headers;
    match http2 {
        true => drop(headers.remove(header::HOST)),
        false => drop(headers.insert(header::HOST, head.authority)),
    }
    if !http2 && !matches!(body, Up::Nothing) && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = head.upgrade.filter(|_| !http2) {
        upgrade(&mut headers, protocol);
    }
    let mut request = Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Some(request)
}

/// The URL of a server, in parts.
pub struct Base {
    pub scheme: http::uri::Scheme,
    pub authority: http::uri::Authority,
    pub prefix: String,
}

impl Base {
    pub fn new(url: &str) -> Option<Base> {
        let parts = url.parse::<Uri>().ok()?.into_parts();
        let prefix = parts.path_and_query.map_or(String::new(), |path| path.path().trim_end_matches('/').to_owned());
        Some(Base { scheme: parts.scheme?, authority: parts.authority?, prefix })
    }

    pub fn uri(&self) -> Uri {
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        uri.path_and_query("/").build().expect("it was one")
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        let port = self.authority.port_u16().unwrap_or(if self.scheme == http::uri::Scheme::HTTPS { 443 } else { 80 });
        format!("{}:{port}", self.authority.host())
    }
}

/// Set the headers of a switch to another protocol.
pub fn upgrade(headers: &mut HeaderMap, to: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, to);
}

/// Take a response with 101 apart: the connection, and the headers for the client.
pub fn switching<B>(response: &mut http::Response<B>) -> (hyper::upgrade::OnUpgrade, HeaderMap) {
    let mut headers = end_to_end(response.headers());
    if let Some(to) = response.headers().get(header::UPGRADE) {
        upgrade(&mut headers, to.clone());
    }
    (hyper::upgrade::on(response), headers)
}

/// A response's headers without those of a single connection.
pub fn end_to_end(came: &HeaderMap) -> HeaderMap {
    let connection = listed(came, header::CONNECTION);
    if connection.is_empty() && !came.keys().any(of_one_connection) {
        return came.clone();
    }
    let mut headers = HeaderMap::with_capacity(came.len());
    for (name, value) in came {
        if !(of_one_connection(name) || named(&connection, name)) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}
