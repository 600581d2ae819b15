//! Fails where it is told to. Its name section is kept, so that a backtrace can show names.
//!
//! Configuration: `[KIND:]PLACE`, the first place that is told so fails.
//!
//! PLACE: `on_vm_start` (given as VM configuration), `on_configure`, `request_headers`, `request_body`, `request_trailers`,
//!        `response_headers`, `response_body`, `response_trailers`, `tick`, `log`, `done`;
//!        or `refuse`: nothing fails, but on_configure (on_vm_start if it is the VM configuration) says no.
//! KIND:  `panic` (the default) traps; `loop` never returns; `memory` takes memory until there is none and then traps;
//!        `recurse` overflows the stack.

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, Bytes, ContextType, LogLevel};
use std::hint::black_box;
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { plan: Plan::default() }));
}}

#[derive(Clone, Default)]
struct Plan {
    kind: String,
    place: String,
}

impl Plan {
    fn read(configuration: Option<Bytes>) -> Plan {
        let text = String::from_utf8_lossy(&configuration.unwrap_or_default()).into_owned();
        let (kind, place) = text.split_once(':').unwrap_or(("panic", &text));
        Plan { kind: kind.into(), place: place.into() }
    }

    fn reach(&self, place: &str) {
        info!("panics: {place}");
        if self.place == place {
            match self.kind.as_str() {
                "loop" => loop_for_ever(),
                "memory" => take_all_memory(),
                "recurse" => {
                    recurse_for_ever(0);
                }
                _ => panic_as_told(place),
            }
        }
    }
}

#[inline(never)]
fn panic_as_told(place: &str) {
    panic!("told to panic in {place}");
}

#[inline(never)]
fn loop_for_ever() {
    let mut i = 0_u64;
    loop {
        i = black_box(i.wrapping_add(1));
    }
}

#[inline(never)]
fn take_all_memory() {
    let mut taken = Vec::new();
    loop {
        taken.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[inline(never)]
#[allow(unconditional_recursion)]
fn recurse_for_ever(depth: u64) -> u64 {
    black_box(recurse_for_ever(black_box(depth + 1))) + 1
}

struct Root {
    plan: Plan,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_vm_start(&mut self, _size: usize) -> bool {
        let plan = Plan::read(self.get_vm_configuration());
        plan.reach("on_vm_start");
        plan.place != "refuse"
    }

    fn on_configure(&mut self, _size: usize) -> bool {
        self.plan = Plan::read(self.get_plugin_configuration());
        self.plan.reach("on_configure");
        if self.plan.place == "tick" {
            self.set_tick_period(Duration::from_millis(10));
        }
        self.plan.place != "refuse"
    }

    fn on_tick(&mut self) {
        self.plan.reach("tick");
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Panics { plan: self.plan.clone() }))
    }
}

struct Panics {
    plan: Plan,
}

impl Context for Panics {
    fn on_done(&mut self) -> bool {
        self.plan.reach("done");
        true
    }
}

impl HttpContext for Panics {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.plan.reach("request_headers");
        Action::Continue
    }

    fn on_http_request_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        self.plan.reach("request_body");
        Action::Continue
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        self.plan.reach("request_trailers");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.plan.reach("response_headers");
        Action::Continue
    }

    fn on_http_response_body(&mut self, _size: usize, _end_of_stream: bool) -> Action {
        self.plan.reach("response_body");
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        self.plan.reach("response_trailers");
        Action::Continue
    }

    fn on_log(&mut self) {
        self.plan.reach("log");
    }
}
