//! Asks services over gRPC whether a request may pass, as gateways do: external authorization, then a rate limit; and
//! reports each exchange on a stream.
//!
//! Configuration: words `NAME=VALUE`, separated by spaces.
//! `authz=CLUSTER`: asks `envoy.service.auth.v3.Authorization/Check` with method, path, host and headers. Who is let in
//! gets the headers of the answer; who is not, gets its status, headers and body.
//! `limit=CLUSTER`: asks `envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit` for the value of `x-user`; 429 if
//! that is over its limit. What the service has as headers, the client gets.
//! `report=CLUSTER`: opens the stream `test.Echo/StreamEcho`, sends the path, and then the status, which ends it.
//! `failure=allow`: a request passes if a service does not answer; else it is answered 500.
//!
//! Calls have the metadata `x-guard: NAME` and take 500 ms at most.

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, Status};
use std::collections::HashMap;
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { settings: HashMap::new() }));
}}

const TIMEOUT: Duration = Duration::from_millis(500);
const OVER_LIMIT: u64 = 2;

type Settings = HashMap<String, String>;
type Pairs = Vec<(String, String)>;

struct Root {
    settings: Settings,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let words = String::from_utf8_lossy(&configuration).into_owned();
        self.settings = words.split_whitespace().filter_map(|word| word.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect();
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Guard { settings: self.settings.clone(), asking: Asking::Nobody, to_client: vec![], report: None }))
    }
}

// Protobuf by hand -----------------------------------------------------------------------------------------------------

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(number: u64, content: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = vec![];
    for (number, content) in fields {
        field(*number, content, &mut out);
    }
    out
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn read_varint(data: &[u8], at: &mut usize) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = *data.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
}

/// The fields of a message, up to what is damaged.
fn fields(data: &[u8]) -> Vec<(u64, Value<'_>)> {
    let (mut found, mut at) = (vec![], 0);
    while let Some(tag) = read_varint(data, &mut at) {
        let value = match tag & 7 {
            0 => read_varint(data, &mut at).map(Value::Number),
            2 => read_varint(data, &mut at).and_then(|size| {
                let end = at.checked_add(size as usize)?;
                let content = data.get(at..end)?;
                at = end;
                Some(Value::Bytes(content))
            }),
            _ => None,
        };
        match value {
            Some(value) => found.push((tag >> 3, value)),
            None => break,
        }
    }
    found
}

fn number(data: &[u8], path: &[u64]) -> u64 {
    for (found, value) in fields(data) {
        match value {
            Value::Number(value) if path == [found] => return value,
            Value::Bytes(content) if path.len() > 1 && path[0] == found => return number(content, &path[1..]),
            _ => (),
        }
    }
    0
}

fn all<'a>(data: &'a [u8], wanted: u64) -> Vec<&'a [u8]> {
    fields(data).into_iter().filter_map(|(number, value)| match value {
        Value::Bytes(content) if number == wanted => Some(content),
        _ => None,
    }).collect()
}

fn text(data: &[u8], wanted: u64) -> String {
    all(data, wanted).last().map(|content| String::from_utf8_lossy(content).into_owned()).unwrap_or_default()
}

fn header(value: &[u8]) -> (String, String) {
    (text(value, 1), text(value, 2))
}

// The filter -----------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq)]
enum Asking {
    Nobody,
    Authz(u32),
    Limit(u32),
}

struct Guard {
    settings: Settings,
    asking: Asking,
    to_client: Pairs,
    report: Option<u32>,
}

fn borrowed(pairs: &Pairs) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Guard {
    fn ask(&self, name: &str, service: &str, method: &str, message: &[u8]) -> Option<Result<u32, Status>> {
        let cluster = self.settings.get(name)?;
        Some(self.dispatch_grpc_call(cluster, service, method, vec![("x-guard", name.as_bytes())], Some(message), TIMEOUT))
    }

    /// Ask the first service; true if the request has to wait.
    fn ask_authz(&mut self) -> bool {
        let mut http = vec![];
        for (name, value) in self.get_http_request_headers() {
            let number = match name.as_str() { ":method" => 2, ":path" => 4, ":authority" => 5, _ => 3 };
            if number == 3 {
                field(3, &message(&[(1, name.as_bytes()), (2, value.as_bytes())]), &mut http);
            } else {
                field(number, value.as_bytes(), &mut http);
            }
        }
        let check = message(&[(1, &message(&[(4, &message(&[(2, &http)]))]))]);
        match self.ask("authz", "envoy.service.auth.v3.Authorization", "Check", &check) {
            None => self.ask_limit(),
            Some(Ok(token)) => {
                self.asking = Asking::Authz(token);
                true
            }
            Some(Err(status)) => self.failed("authz", &format!("{status:?}")) && self.ask_limit(),
        }
    }

    /// Ask the second service; true if the request has to wait.
    fn ask_limit(&mut self) -> bool {
        let user = self.get_http_request_header("x-user").unwrap_or_default();
        let entry = message(&[(1, b"user"), (2, user.as_bytes())]);
        let request = message(&[(1, b"guard"), (2, &message(&[(1, &entry)]))]);
        match self.ask("limit", "envoy.service.ratelimit.v3.RateLimitService", "ShouldRateLimit", &request) {
            None => false,
            Some(Ok(token)) => {
                self.asking = Asking::Limit(token);
                true
            }
            Some(Err(status)) => !self.failed("limit", &format!("{status:?}")),
        }
    }

    /// A service does not answer; false if the request has been answered for that.
    fn failed(&self, name: &str, why: &str) -> bool {
        info!("guard: {name} failed: {why}");
        let allow = self.settings.get("failure").is_some_and(|mode| mode == "allow");
        if !allow {
            self.send_http_response(500, vec![], Some(b"a service does not answer\n"));
        }
        allow
    }

    /// What the first service said; true if the request may go on.
    fn authorized(&self, answer: &[u8]) -> bool {
        let headers = |number| -> Pairs {
            all(answer, number).iter().flat_map(|part| all(part, 2)).flat_map(|option| all(option, 1)).map(header).collect()
        };
        if number(answer, &[1, 1]) == 0 {
            for (name, value) in headers(3) {
                self.add_http_request_header(&name, &value);
            }
            return true;
        }
        let status = number(answer, &[2, 1, 1]);
        let body = all(answer, 2).last().map(|denied| text(denied, 3)).unwrap_or_default();
        info!("guard: denied with {status}");
        self.send_http_response(status as u32, borrowed(&headers(2)), Some(body.as_bytes()));
        false
    }

    /// What the second service said; true if the request may go on.
    fn within_limit(&mut self, answer: &[u8]) -> bool {
        self.to_client = all(answer, 3).into_iter().map(header).collect();
        let over = number(answer, &[1]) == OVER_LIMIT;
        if over {
            info!("guard: over its limit");
            self.send_http_response(429, borrowed(&self.to_client), Some(b"too many requests\n"));
        }
        !over
    }
}

impl Context for Guard {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        let answer = if status == 0 { self.get_grpc_call_response_body(0, size).unwrap_or_default() } else { vec![] };
        let why = if status == 0 { String::new() } else { format!("{status} {}", self.get_grpc_status().1.unwrap_or_default()) };
        let asked = std::mem::replace(&mut self.asking, Asking::Nobody);
        let goes_on = if asked == Asking::Authz(token) {
            let passed = if status == 0 { self.authorized(&answer) } else { self.failed("authz", &why) };
            passed && !self.ask_limit()
        } else if asked == Asking::Limit(token) {
            if status == 0 { self.within_limit(&answer) } else { self.failed("limit", &why) }
        } else {
            false
        };
        if goes_on {
            self.resume_http_request();
        }
    }

    fn on_grpc_stream_initial_metadata(&mut self, _token: u32, _count: u32) {
        let begun = self.get_grpc_stream_initial_metadata().iter().any(|(name, _)| name == "x-begin");
        info!("guard: report begun {begun}");
    }

    fn on_grpc_stream_message(&mut self, _token: u32, size: usize) {
        let said = self.get_grpc_stream_message(0, size).unwrap_or_default();
        info!("guard: report: {}", String::from_utf8_lossy(&said));
    }

    fn on_grpc_stream_trailing_metadata(&mut self, _token: u32, _count: u32) {
        let ended = self.get_grpc_stream_trailing_metadata().iter().any(|(name, _)| name == "x-end");
        info!("guard: report ended {ended}");
    }

    fn on_grpc_stream_close(&mut self, _token: u32, status: u32) {
        info!("guard: report closed with {status}");
    }
}

impl HttpContext for Guard {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let Some(cluster) = self.settings.get("report") {
            self.report = self.open_grpc_stream(cluster, "test.Echo", "StreamEcho", vec![("x-guard", b"report")]).ok();
            if let Some(token) = self.report {
                let path = self.get_http_request_header(":path").unwrap_or_default();
                self.send_grpc_stream_message(token, Some(path.as_bytes()), false);
            }
        }
        if self.ask_authz() { Action::Pause } else { Action::Continue }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        for (name, value) in &self.to_client {
            self.set_http_response_header(name, Some(value));
        }
        if let Some(token) = self.report.take() {
            let status = self.get_http_response_header(":status").unwrap_or_default();
            self.send_grpc_stream_message(token, Some(status.as_bytes()), false);
            self.close_grpc_stream(token);
        }
        Action::Continue
    }
}
