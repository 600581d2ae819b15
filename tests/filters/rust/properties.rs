//! Logs properties.
//!
//! Configuration: one path a line, its segments separated by dots; a backslash takes the next character as it is.
//!
//! Request:  sets the property `demo.set` (one segment, `demo\.set` in the configuration) to `one segment`, and the property
//!           `demo`, `set` to `two segments`, then logs each path of the configuration. Envoy gives back only the former.
//! Response: logs each once more.

use log::info;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use std::rc::Rc;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { paths: Rc::new(Vec::new()) }));
}}

struct Path {
    text: String,
    segments: Vec<String>,
}

impl Path {
    fn read(text: &str) -> Path {
        let mut segments = vec![String::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '.' => segments.push(String::new()),
                '\\' => segments.last_mut().unwrap().extend(characters.next()),
                other => segments.last_mut().unwrap().push(other),
            }
        }
        Path { text: text.into(), segments }
    }

    fn show(&self, phase: &str) {
        match hostcalls::get_property(self.segments.iter().map(String::as_str).collect()) {
            Ok(Some(value)) => {
                let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
                info!("properties: {phase}: {} = {hex}", self.text);
            }
            Ok(None) => info!("properties: {phase}: {}: none", self.text),
            Err(status) => info!("properties: {phase}: {}: {status:?}", self.text),
        }
    }
}

struct Root {
    paths: Rc<Vec<Path>>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let text = String::from_utf8_lossy(&configuration);
        self.paths = Rc::new(text.lines().filter(|line| !line.is_empty()).map(Path::read).collect());
        info!("properties: configured, {} paths", self.paths.len());
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Properties { paths: self.paths.clone() }))
    }
}

struct Properties {
    paths: Rc<Vec<Path>>,
}

impl Context for Properties {}

impl HttpContext for Properties {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.set_property(vec!["demo.set"], Some(b"one segment"));
        self.set_property(vec!["demo", "set"], Some(b"two segments"));
        self.paths.iter().for_each(|path| path.show("request"));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.paths.iter().for_each(|path| path.show("response"));
        Action::Continue
    }
}
