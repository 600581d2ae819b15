//! Lets a request pass if it brings the right token, or if somebody else says so.
//!
//! Configuration: a token, then the request needs `authorization: Bearer TOKEN`, else it is answered with 401;
//! or `callout:CLUSTER`, then the request waits until CLUSTER has answered `GET /check` (with the request's own
//! `authorization`): 200 lets it pass, anything else, or no answer within a second, is answered with 403.
//! No configuration is refused.
//!
//! Counters: `auth.allowed`, `auth.denied`.

use log::info;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { check: Check::Token(String::new()), counters: Counters { allowed: 0, denied: 0 } }));
}}

#[derive(Clone)]
enum Check {
    Token(String),
    Callout(String),
}

#[derive(Clone, Copy)]
struct Counters {
    allowed: u32,
    denied: u32,
}

struct Root {
    check: Check,
    counters: Counters,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        self.counters = Counters {
            allowed: hostcalls::define_metric(MetricType::Counter, "auth.allowed").unwrap(),
            denied: hostcalls::define_metric(MetricType::Counter, "auth.denied").unwrap(),
        };
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let configuration = String::from_utf8_lossy(&configuration).into_owned();
        if configuration.is_empty() {
            info!("auth: no token configured");
            return false;
        }
        self.check = match configuration.strip_prefix("callout:") {
            Some(cluster) => {
                info!("auth: configured, callout to {cluster}");
                Check::Callout(cluster.into())
            }
            None => {
                info!("auth: configured, token");
                Check::Token(configuration)
            }
        };
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Auth { check: self.check.clone(), counters: self.counters }))
    }
}

struct Auth {
    check: Check,
    counters: Counters,
}

impl Auth {
    fn allow(&self) {
        hostcalls::increment_metric(self.counters.allowed, 1).unwrap();
        info!("auth: allowed");
    }

    fn deny(&self, status: u32, headers: Vec<(&str, &str)>, body: &str) {
        hostcalls::increment_metric(self.counters.denied, 1).unwrap();
        info!("auth: denied with {status}");
        self.send_http_response(status, headers, Some(body.as_bytes()));
    }

    fn forbid(&self) {
        self.deny(403, vec![("content-type", "text/plain")], "forbidden\n");
    }

    fn ask(&self, cluster: &str, authorization: Option<&str>) -> Action {
        let mut headers = vec![(":method", "GET"), (":path", "/check"), (":authority", cluster)];
        headers.extend(authorization.map(|value| ("authorization", value)));
        match self.dispatch_http_call(cluster, headers, None, vec![], Duration::from_secs(1)) {
            Ok(token) => info!("auth: asking {cluster}, token {token}"),
            Err(status) => {
                info!("auth: cannot ask {cluster}: {status:?}");
                self.forbid();
            }
        }
        Action::Pause
    }
}

impl Context for Auth {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_size: usize, _trailers: usize) {
        if headers == 0 {
            let (code, message) = self.get_grpc_status();
            info!("auth: no answer, status {code} {}", message.unwrap_or_default());
            return self.forbid();
        }
        let status = self.get_http_call_response_header(":status").unwrap_or_default();
        let body = self.get_http_call_response_body(0, body_size).unwrap_or_default();
        info!("auth: token {token} answered {status} {}", String::from_utf8_lossy(&body));
        if status == "200" {
            self.allow();
            self.resume_http_request();
        } else {
            self.forbid();
        }
    }
}

impl HttpContext for Auth {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let authorization = self.get_http_request_header("authorization");
        match &self.check {
            Check::Callout(cluster) => self.ask(cluster, authorization.as_deref()),
            Check::Token(token) if authorization.as_deref().and_then(|value| value.strip_prefix("Bearer ")) == Some(token) => {
                self.allow();
                Action::Continue
            }
            Check::Token(_) => {
                self.deny(401, vec![("www-authenticate", "Bearer realm=\"proxy-wasm\""), ("content-type", "text/plain")], "unauthorized\n");
                Action::Pause
            }
        }
    }
}
