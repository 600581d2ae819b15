//! Reads, adds, replaces and removes headers: the filter of the README.
//!
//! Configuration: the value of the header `x-wasm`; `hello` if empty.
//!
//! Request:  adds `x-wasm`, removes `x-remove-me`.
//! Response: adds `x-wasm`, replaces `server` by `proxy-wasm`.

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { value: String::new() }));
}}

struct Root {
    value: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_else(|| b"hello".to_vec());
        self.value = String::from_utf8_lossy(&configuration).into_owned();
        info!("headers: configured, value {}", self.value);
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Headers { value: self.value.clone() }))
    }
}

struct Headers {
    value: String,
}

impl Context for Headers {}

impl HttpContext for Headers {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        let agent = self.get_http_request_header("user-agent").unwrap_or_else(|| "-".into());
        self.add_http_request_header("x-wasm", &self.value);
        self.remove_http_request_header("x-remove-me");
        info!("headers: request for {path} by {agent}");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let server = self.get_http_response_header("server").unwrap_or_else(|| "-".into());
        self.add_http_response_header("x-wasm", &self.value);
        self.set_http_response_header("server", Some("proxy-wasm"));
        info!("headers: response by {server}");
        Action::Continue
    }

    fn on_log(&mut self) {
        info!("headers: done");
    }
}
