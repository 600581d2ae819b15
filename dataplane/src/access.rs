//! Records each request: a line of the access log, and metrics.

use crate::config::AccessLog;
use crate::routes::Route;
use crate::upstream::UpstreamInfo;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::FromRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Upper bounds of the latency buckets, in seconds.
pub const BOUNDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// How long a line may wait, to be written together with others.
const TOGETHER: Duration = Duration::from_millis(10);
const FULL: usize = 32 << 10;

/// Counters of one thread.
#[derive(Default)]
pub struct Counts {
    pub in_progress: i64,
    pub statuses: std::collections::BTreeMap<u16, u64>,
    pub buckets: [u64; BOUNDS.len() + 1],
    pub seconds: f64,
}

impl Counts {
    fn finished(&mut self, status: u16, seconds: f64) {
        *self.statuses.entry(status).or_default() += 1;
        self.buckets[BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len())] += 1;
        self.seconds += seconds;
    }
}

/// The data of a request for its log line.
#[derive(Default)]
pub struct Line {
    pub client: Option<IpAddr>,
    pub method: String,
    pub https: bool,
    pub host: Option<String>,
    pub target: String,
    pub protocol: &'static str,
    pub agent: Option<String>,
    pub request_id: Option<String>,
    pub route: Option<String>,
    pub upstream: Option<String>,
}

/// The log file. Lines that cannot be written are dropped: a full disk or pipe must not stop requests.
pub struct Log {
    pub format: Format,
    file: RefCell<Option<File>>,
    waiting: RefCell<Vec<u8>>,
    flushing: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Format {
    Off,
    Common,
    Json,
}

impl Log {
    pub fn new(settings: &AccessLog) -> Result<Log, String> {
        let format = match settings.format.as_str() {
            "common" => Format::Common,
            "json" => Format::Json,
            _ => Format::Off,
        };
        let file = match settings.file.as_str() {
            _ if format == Format::Off => None,
            // the process may have no standard output
            "-" => Some(unsafe { libc::dup(1) }).filter(|fd| *fd >= 0).map(|fd| unsafe { File::from_raw_fd(fd) }),
            path => Some(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(path)
                    .map_err(|error| format!("cannot write the access log {path}: {error}"))?,
            ),
        };
        Ok(Log { format, file: RefCell::new(file), waiting: RefCell::default(), flushing: Cell::new(false) })
    }

    fn write(self: &Rc<Self>, line: &str) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.extend_from_slice(line.as_bytes());
        waiting.push(b'\n');
        if waiting.len() >= FULL {
            drop(waiting);
            self.flush();
        } else if !self.flushing.replace(true) {
            let log = self.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(TOGETHER).await;
                log.flushing.set(false);
                log.flush();
            });
        }
    }

    pub fn flush(&self) {
        let lines = std::mem::take(&mut *self.waiting.borrow_mut());
        if let Some(file) = self.file.borrow_mut().as_mut() {
            let _ = file.write_all(&lines);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A request under way, recorded when this is dropped.
pub struct Record {
    pub status: u16,
    pub bytes: u64,
    pub details: Option<String>,
    line: Option<Box<Line>>,
    began: Instant,
    log: Rc<Log>,
    counts: std::sync::Arc<Mutex<Counts>>,
}

impl Record {
    pub fn begin(line: Option<Line>, log: Rc<Log>, counts: std::sync::Arc<Mutex<Counts>>) -> Record {
        counts.lock().unwrap().in_progress += 1;
        let line = line.map(Box::new);
        Record { status: 0, bytes: 0, details: None, line, began: Instant::now(), log, counts }
    }

    /// Note where the request went.
    pub fn upstream(&mut self, route: Option<&Route>, upstream: &UpstreamInfo) {
        if let Some(line) = self.line.as_mut().filter(|_| self.log.format == Format::Json) {
            line.route = route.and_then(|route| route.name.as_deref().map(str::to_owned));
            line.upstream = (upstream.attempts > 0).then(|| upstream.address.to_string());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let seconds = self.began.elapsed().as_secs_f64();
        {
            let mut counts = self.counts.lock().unwrap();
            counts.in_progress -= 1;
            counts.finished(self.status, seconds);
        }
        if let Some(line) = self.line.take() {
            let text = match self.log.format {
                Format::Off => return,
                Format::Common => common(&line, self.status, self.bytes),
                Format::Json => as_json(&line, self.status, self.bytes, seconds, self.details.as_deref()),
            };
            self.log.write(&text);
        }
    }
}

/// `192.0.2.1 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/1.1" 200 2326`; the status is 0 if the client left before.
fn common(line: &Line, status: u16, bytes: u64) -> String {
    let (year, month, day, hour, minute, second) = now();
    let client = line.client.map_or("-".into(), |client| client.to_string());
    let mut text =
        format!("{client} - - [{day:02}/{}/{year}:{hour:02}:{minute:02}:{second:02} +0000] \"", MONTHS[month - 1]);
    for char in [&line.method, " ", &line.target, " ", line.protocol].iter().flat_map(|part| part.chars()) {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            ' '..='~' => text.push(char),
            _ => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            }
        }
    }
    let _ = if bytes == 0 { write!(text, "\" {status} -") } else { write!(text, "\" {status} {bytes}") };
    text
}

/// The same and more, as a JSON object.
fn as_json(line: &Line, status: u16, bytes: u64, seconds: f64, details: Option<&str>) -> String {
    let (year, month, day, hour, minute, second) = now();
    json!({
        "time": format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"),
        "client": line.client.map(|client| client.to_string()),
        "method": line.method,
        "scheme": if line.https { "https" } else { "http" },
        "host": line.host,
        "path": line.target,
        "protocol": line.protocol,
        "status": status,
        "bytes": bytes,
        "duration_ms": (seconds * 1e6).round() / 1e3,
        "user_agent": line.agent,
        "request_id": line.request_id,
        "details": details,
        "route": line.route,
        "upstream": line.upstream,
    })
    .to_string()
}

/// Year, month, day, hour, minute and second in UTC.
fn now() -> (i64, usize, i64, i64, i64, i64) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // the Gregorian date of a day, counted from 1 March 0000
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month as usize, day, rest / 3600, rest / 60 % 60, rest % 60)
}
