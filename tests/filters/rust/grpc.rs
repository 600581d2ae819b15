//! Makes a gRPC call, or holds a conversation on a gRPC stream, before it lets the request pass.
//!
//! Configuration: `CLUSTER,SERVICE,METHOD,MESSAGE`: a unary call, one second at most;
//! or `stream:CLUSTER,SERVICE,METHOD,MESSAGE`: a stream on which MESSAGE is sent twice, then closed from this side.
//! The message is sent as it is written, so a real server wants one whose text is a valid protobuf message: an empty one is.
//!
//! Request: waits for the end of the call, then gets `x-grpc-status` with the status (`not-sent` if there was no call).

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, Bytes, ContextType, LogLevel, Status};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { call: Call::default() }));
}}

#[derive(Clone, Default)]
struct Call {
    stream: bool,
    cluster: String,
    service: String,
    method: String,
    message: String,
}

impl Call {
    fn read(configuration: &str) -> Option<Call> {
        let (stream, rest) = match configuration.strip_prefix("stream:") {
            Some(rest) => (true, rest),
            None => (false, configuration),
        };
        let mut parts = rest.splitn(4, ',').map(String::from);
        let (cluster, service, method, message) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Call { stream, cluster, service, method, message })
    }
}

struct Root {
    call: Call,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        match Call::read(&String::from_utf8_lossy(&configuration)) {
            Some(call) => {
                info!("grpc: configured, {}/{} of {}, stream {}", call.service, call.method, call.cluster, call.stream);
                self.call = call;
                true
            }
            None => {
                info!("grpc: bad configuration");
                false
            }
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Grpc { call: self.call.clone() }))
    }
}

struct Grpc {
    call: Call,
}

fn pairs(metadata: Vec<(String, Bytes)>) -> String {
    let texts: Vec<String> = metadata.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    texts.join(" ")
}

impl Grpc {
    fn start(&self) -> Result<u32, Status> {
        let Call { cluster, service, method, message, .. } = &self.call;
        let metadata: Vec<(&str, &[u8])> = vec![("x-filter", b"grpc")];
        if !self.call.stream {
            return self.dispatch_grpc_call(cluster, service, method, metadata, Some(message.as_bytes()), Duration::from_secs(1));
        }
        let token = self.open_grpc_stream(cluster, service, method, metadata)?;
        self.send_grpc_stream_message(token, Some(message.as_bytes()), false);
        self.send_grpc_stream_message(token, Some(message.as_bytes()), false);
        self.close_grpc_stream(token);
        Ok(token)
    }

    fn finish(&self, status: u32) {
        self.add_http_request_header("x-grpc-status", &status.to_string());
        self.resume_http_request();
    }
}

impl Context for Grpc {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        if status == 0 {
            let answer = self.get_grpc_call_response_body(0, size).unwrap_or_default();
            info!("grpc: call {token} answered with {size} bytes {:?}", String::from_utf8_lossy(&answer));
        } else {
            let (code, message) = self.get_grpc_status();
            info!("grpc: call {token} failed with {status}: {code} {:?}", message.unwrap_or_default());
        }
        self.finish(status);
    }

    fn on_grpc_stream_initial_metadata(&mut self, token: u32, count: u32) {
        info!("grpc: stream {token} initial metadata, {count}: {}", pairs(self.get_grpc_stream_initial_metadata()));
    }

    fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
        let message = self.get_grpc_stream_message(0, size).unwrap_or_default();
        info!("grpc: stream {token} message of {size} bytes {:?}", String::from_utf8_lossy(&message));
    }

    fn on_grpc_stream_trailing_metadata(&mut self, token: u32, count: u32) {
        info!("grpc: stream {token} trailing metadata, {count}: {}", pairs(self.get_grpc_stream_trailing_metadata()));
    }

    fn on_grpc_stream_close(&mut self, token: u32, status: u32) {
        let (code, message) = self.get_grpc_status();
        info!("grpc: stream {token} closed with {status}: {code} {:?}", message.unwrap_or_default());
        self.finish(status);
    }
}

impl HttpContext for Grpc {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        match self.start() {
            Ok(token) => {
                info!("grpc: {} {token} started", if self.call.stream { "stream" } else { "call" });
                Action::Pause
            }
            Err(status) => {
                info!("grpc: not sent: {status:?}");
                self.add_http_request_header("x-grpc-status", "not-sent");
                Action::Continue
            }
        }
    }
}
