//! Rewrites bodies: the request's as a whole, the response's chunk by chunk.
//!
//! Configuration: none.
//!
//! Request:  holds the body back until it is complete, then replaces it by its upper case.
//! Response: replaces each `foo` which lies within one chunk by `bar`, adds `x-body: rewritten`.
//! Both lose their `content-length`.

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Body))
    }
}

struct Body;

impl Context for Body {}

impl HttpContext for Body {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.remove_http_request_header("content-length");
        info!("body: request headers, end of stream {end_of_stream}");
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        info!("body: request body of {size} bytes so far, end of stream {end_of_stream}");
        if !end_of_stream {
            return Action::Pause;
        }
        if let Some(body) = self.get_http_request_body(0, size) {
            self.set_http_request_body(0, size, &body.to_ascii_uppercase());
            info!("body: request body of {} bytes replaced", body.len());
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        self.remove_http_response_header("content-length");
        self.add_http_response_header("x-body", "rewritten");
        info!("body: response headers, end of stream {end_of_stream}");
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let mut replaced = 0;
        if let Some(mut chunk) = self.get_http_response_body(0, size) {
            for i in 0..chunk.len().saturating_sub(2) {
                if chunk[i..].starts_with(b"foo") {
                    chunk[i..i + 3].copy_from_slice(b"bar");
                    replaced += 1;
                }
            }
            if replaced > 0 {
                self.set_http_response_body(0, size, &chunk);
            }
        }
        info!("body: response chunk of {size} bytes, {replaced} replaced, end of stream {end_of_stream}");
        Action::Continue
    }
}
