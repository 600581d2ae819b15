//! WebSockets over HTTP/2 (RFC 8441): a CONNECT that names the protocol. Filters get the form of HTTP/1.1, a GET with
//! an upgrade (RFC 6455), as in Envoy. Only the opening differs.

use crate::body::Content;
use crate::head;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

const NAME: &str = "websocket";
/// RFC 6455, section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub fn is(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(NAME.as_bytes())
}

/// The `Sec-WebSocket-Accept` that answers a key.
fn accept(key: &[u8]) -> HeaderValue {
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key);
    digest.update(GUID);
    HeaderValue::try_from(BASE64_STANDARD.encode(digest.finish())).expect("base64")
}

// -- From a client ------------------------------------------------------------------------------------------------

/// Turn a CONNECT for a WebSocket into an upgrade, with a key that we make. Returns the `Sec-WebSocket-Accept` that
/// must answer it.
pub fn from_connect<B>(request: &mut Request<B>) -> Option<HeaderValue> {
    let protocol = request.extensions().get::<Protocol>().filter(|_| request.method() == Method::CONNECT)?;
    if !is(protocol.as_ref()) {
        return None;
    }
    *request.method_mut() = Method::GET;
    let key = HeaderValue::try_from(BASE64_STANDARD.encode(fastrand::u128(..).to_ne_bytes())).expect("base64");
    let accepted = accept(key.as_bytes());
    head::upgrade(request.headers_mut(), HeaderValue::from_static(NAME));
    request.headers_mut().insert(header::SEC_WEBSOCKET_KEY, key);
    Some(accepted)
}

/// The response to such a CONNECT, where any 2xx would mean acceptance.
pub fn to_connect(status: StatusCode, mut headers: HeaderMap, content: Content) -> (StatusCode, HeaderMap, Content) {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
            headers.remove(name);
        }
        (StatusCode::OK, headers, content)
    } else if status.is_success() {
        (StatusCode::BAD_GATEWAY, HeaderMap::new(), Content::Nothing)
    } else {
        (status, headers, content)
    }
}

// -- To a server --------------------------------------------------------------------------------------------------

/// Turn an upgrade into a CONNECT, without its key. Returns the `Sec-WebSocket-Accept` that answers the key.
pub fn connect<B>(request: &mut Request<B>) -> Option<HeaderValue> {
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(NAME));
    request.headers_mut().remove(header::SEC_WEBSOCKET_KEY).map(|key| accept(key.as_bytes()))
}

/// Turn the acceptance of a CONNECT into that of an upgrade.
pub fn connected<B>(response: &mut Response<B>, accepted: Option<HeaderValue>) {
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        head::upgrade(response.headers_mut(), HeaderValue::from_static(NAME));
        accepted.into_iter().for_each(|value| drop(response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, value)));
    }
}
