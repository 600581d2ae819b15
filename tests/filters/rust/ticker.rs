//! Ticks, counts the ticks in shared data, sends itself a message about each through a shared queue, keeps metrics.
//!
//! VM configuration: the period in milliseconds, 100 if empty.
//!
//! Each tick adds one to the decimal number in the shared data `ticks` (with compare and swap, again until it works) and
//! enqueues `tick N` in the shared queue `ticks`; what comes out of the queue is logged.
//! Metrics: counter `ticker.ticks`, gauge `ticker.last` (N), histogram `ticker.pending` (messages taken at a time).
//! Response: adds `x-ticks` with the shared number.

use log::info;
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType, Status};
use std::time::Duration;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Ticker { queue: 0, ticks: 0, last: 0, pending: 0 }));
}}

const TICKS: &str = "ticks";

struct Ticker {
    queue: u32,
    // metrics
    ticks: u32,
    last: u32,
    pending: u32,
}

impl Context for Ticker {}

fn number(data: Option<Vec<u8>>) -> u64 {
    data.and_then(|data| String::from_utf8(data).ok()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Ticker {
    fn count(&self) -> u64 {
        loop {
            let (data, cas) = self.get_shared_data(TICKS);
            let n = number(data) + 1;
            match self.set_shared_data(TICKS, Some(n.to_string().as_bytes()), cas) {
                Ok(()) => return n,
                Err(Status::CasMismatch) => info!("ticker: somebody else counted, once more"),
                Err(status) => panic!("set_shared_data: {status:?}"),
            }
        }
    }
}

impl RootContext for Ticker {
    fn on_vm_start(&mut self, _size: usize) -> bool {
        let period = match number(self.get_vm_configuration()) {
            0 => 100,
            period => period,
        };
        self.queue = self.register_shared_queue(TICKS);
        self.ticks = hostcalls::define_metric(MetricType::Counter, "ticker.ticks").unwrap();
        self.last = hostcalls::define_metric(MetricType::Gauge, "ticker.last").unwrap();
        self.pending = hostcalls::define_metric(MetricType::Histogram, "ticker.pending").unwrap();
        self.set_tick_period(Duration::from_millis(period));
        info!("ticker: started, period {period} ms");
        true
    }

    fn on_tick(&mut self) {
        let n = self.count();
        hostcalls::increment_metric(self.ticks, 1).unwrap();
        hostcalls::record_metric(self.last, n).unwrap();
        info!("ticker: tick {n}");
        self.enqueue_shared_queue(self.queue, Some(format!("tick {n}").as_bytes())).unwrap();
    }

    fn on_queue_ready(&mut self, queue: u32) {
        let mut taken = 0;
        while let Some(message) = self.dequeue_shared_queue(queue).unwrap() {
            info!("ticker: dequeued {}", String::from_utf8_lossy(&message));
            taken += 1;
        }
        hostcalls::record_metric(self.pending, taken).unwrap();
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(ShowTicks))
    }
}

struct ShowTicks;

impl Context for ShowTicks {}

impl HttpContext for ShowTicks {
    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let n = number(self.get_shared_data(TICKS).0);
        self.add_http_response_header("x-ticks", &n.to_string());
        info!("ticker: response after {n} ticks");
        Action::Continue
    }
}
