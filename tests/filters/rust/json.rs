//! Rewrites a JSON request body, as `go/body` does.
//!
//! Configuration: none.
//!
//! Request:  the body is held back until it is complete, then its JSON object gets `"seen": true` and is written anew, its
//! keys sorted. A body that is no JSON object is answered with 400. The request loses its `content-length`.
//! Response: adds `x-json: ok`, or `x-json: bad` to the 400 (a host which lets the filter see its own local response shows it).

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use serde_json::{json, Map, Value};

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
        Some(Box::new(Json { bad: false }))
    }
}

struct Json {
    bad: bool,
}

impl Json {
    fn refuse(&mut self, reason: &str) -> Action {
        self.bad = true;
        info!("json: bad JSON: {reason}");
        let answer = json!({ "error": reason }).to_string();
        self.send_http_response(400, vec![("content-type", "application/json")], Some(answer.as_bytes()));
        Action::Pause
    }
}

impl Context for Json {}

impl HttpContext for Json {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.remove_http_request_header("content-length");
        Action::Continue
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        info!("json: request body of {size} bytes so far, end of stream {end_of_stream}");
        if !end_of_stream {
            return Action::Pause;
        }
        let Some(body) = self.get_http_request_body(0, size) else {
            return Action::Continue;
        };
        let mut object: Map<String, Value> = match serde_json::from_slice(&body) {
            Ok(object) => object,
            Err(error) => return self.refuse(&error.to_string()),
        };
        object.insert("seen".into(), true.into());
        let rewritten = Value::Object(object).to_string();
        self.set_http_request_body(0, size, rewritten.as_bytes());
        info!("json: request body of {} bytes replaced by {} bytes", body.len(), rewritten.len());
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let verdict = if self.bad { "bad" } else { "ok" };
        self.add_http_response_header("x-json", verdict);
        info!("json: response, JSON was {verdict}");
        Action::Continue
    }
}
