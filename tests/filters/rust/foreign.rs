//! Calls foreign functions, and logs when it is called as one.
//!
//! Configuration: the name of a function, and on the lines after it the argument.
//!
//! Request: calls that function (unless the configuration is empty), then `compress` and `uncompress` on 1000 bytes.

use log::info;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, Status};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { name: String::new(), argument: Vec::new() }));
}}

struct Root {
    name: String,
    argument: Vec<u8>,
}

impl Context for Root {
    fn on_foreign_function(&mut self, function: u32, size: usize) {
        let data = hostcalls::get_buffer(BufferType::CallData, 0, size).unwrap().unwrap_or_default();
        info!("foreign: function {function} called with {size} bytes {}", hex(&data));
    }
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let mut parts = configuration.splitn(2, |byte| *byte == b'\n');
        self.name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        self.argument = parts.next().unwrap_or_default().to_vec();
        info!("foreign: configured, {:?} with {} bytes", self.name, self.argument.len());
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Foreign { name: self.name.clone(), argument: self.argument.clone() }))
    }
}

struct Foreign {
    name: String,
    argument: Vec<u8>,
}

impl Context for Foreign {
    fn on_foreign_function(&mut self, function: u32, size: usize) {
        let data = hostcalls::get_buffer(BufferType::CallData, 0, size).unwrap().unwrap_or_default();
        info!("foreign: function {function} called in a stream with {size} bytes {}", hex(&data));
    }
}

impl Foreign {
    fn round_trip(&self, data: &[u8]) -> Result<bool, Status> {
        let compressed = self.call_foreign_function("compress", Some(data))?.unwrap_or_default();
        let again = self.call_foreign_function("uncompress", Some(&compressed))?.unwrap_or_default();
        Ok(compressed.len() < data.len() && again == data)
    }
}

impl HttpContext for Foreign {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if !self.name.is_empty() {
            match self.call_foreign_function(&self.name, Some(&self.argument)) {
                Ok(result) => {
                    let result = result.unwrap_or_default();
                    info!("foreign: {}: Ok, {} bytes {}", self.name, result.len(), hex(&result));
                }
                Err(status) => info!("foreign: {}: {status:?}", self.name),
            }
        }
        match self.round_trip(&[b'x'; 1000]) {
            Ok(same) => info!("foreign: compress and uncompress: same {same}"),
            Err(status) => info!("foreign: compress and uncompress: {status:?}"),
        }
        Action::Continue
    }
}
