//! A network filter: makes what the client sends upper case, leaves alone what the server sends.
//!
//! Configuration: empty, or `deny`: a new connection is held and closed.

use log::info;
use proxy_wasm::traits::{Context, RootContext, StreamContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, PeerType};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { deny: false }));
}}

struct Root {
    deny: bool,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        self.deny = self.get_plugin_configuration().as_deref() == Some(b"deny");
        info!("tcp: configured, deny {}", self.deny);
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::StreamContext)
    }

    fn create_stream_context(&self, _context_id: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Connection { deny: self.deny }))
    }
}

struct Connection {
    deny: bool,
}

impl Context for Connection {
    fn on_done(&mut self) -> bool {
        info!("tcp: done");
        true
    }
}

impl StreamContext for Connection {
    fn on_new_connection(&mut self) -> Action {
        if self.deny {
            info!("tcp: new connection denied");
            self.close_downstream();
            return Action::Pause;
        }
        info!("tcp: new connection");
        Action::Continue
    }

    fn on_downstream_data(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let Some(data) = self.get_downstream_data(0, size) {
            self.set_downstream_data(0, size, &data.to_ascii_uppercase());
        }
        info!("tcp: downstream data of {size} bytes, end of stream {end_of_stream}");
        Action::Continue
    }

    fn on_downstream_close(&mut self, peer: PeerType) {
        info!("tcp: downstream closed by {peer:?}");
    }

    fn on_upstream_data(&mut self, size: usize, end_of_stream: bool) -> Action {
        info!("tcp: upstream data of {size} bytes, end of stream {end_of_stream}");
        Action::Continue
    }

    fn on_upstream_close(&mut self, peer: PeerType) {
        info!("tcp: upstream closed by {peer:?}");
    }

    fn on_log(&mut self) {
        info!("tcp: log");
    }
}
