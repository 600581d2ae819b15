//! Chooses the server of an upstream for a request, and ejects failing servers for a while.

use crate::config::{Balance, OutlierDetection};
use crate::head::Base;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// The state of an upstream's server. All configurations that name it share it, so it survives a reload.
#[derive(Default)]
pub struct Known {
    pub requests: AtomicU64,
    pub failures: AtomicU64,
    pub connect_failures: AtomicU64,
    pub ejections: AtomicU64,
    health: Mutex<Health>,
}

/// Keyed by upstream and server.
pub type AllKnown = BTreeMap<(String, String), Arc<Known>>;

#[derive(Default)]
struct Health {
    consecutive: u32,
    /// Ejections in a row. The count restarts after a server has stayed in for as long as its last ejection lasted.
    ejected: u32,
    until: Option<Instant>,
}

impl Known {
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.health.lock().unwrap().until.is_some_and(|until| now < until)
    }
}

/// One server, with its requests under way.
pub struct Server {
    pub base: Base,
    /// `HOST:PORT`.
    pub address: Arc<str>,
    pub known: Arc<Known>,
    weight: i64,
    active: Arc<AtomicUsize>,
}

impl Server {
    pub fn new(base: Base, weight: u32, known: Arc<Known>) -> Server {
        Server { address: base.address().into(), base, weight: weight.into(), known, active: Arc::default() }
    }

    /// Count a request to this server.
    pub fn begin(&self) -> Active {
        self.known.requests.fetch_add(1, Relaxed);
        Active::new(&self.active)
    }
}

/// Adds one to a counter until it is dropped.
pub struct Active(Arc<AtomicUsize>);

impl Active {
    pub fn new(counter: &Arc<AtomicUsize>) -> Active {
        counter.fetch_add(1, Relaxed);
        Active(counter.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The servers of an upstream.
pub struct Servers {
    all: Vec<Server>,
    balance: Balance,
    outliers: Option<OutlierDetection>,
    /// How far each server has fallen behind its share.
    behind: Mutex<Vec<i64>>,
}

impl Servers {
    pub fn new(all: Vec<Server>, balance: Balance, outliers: Option<OutlierDetection>) -> Servers {
        let behind = Mutex::new(vec![0; all.len()]);
        Servers { all, balance, outliers, behind }
    }

    /// The server for a request: the one with the address `wanted` if it was not tried, else one by the balancing
    /// policy.
    ///
    /// The policy skips ejected servers and those that were tried, unless no other is left.
    pub fn pick(&self, tried: &[usize], wanted: Option<&str>) -> (usize, &Server) {
        let at = match wanted.and_then(|address| self.all.iter().position(|server| *server.address == *address)) {
            Some(at) if !tried.contains(&at) => at,
            _ if self.all.len() == 1 => 0,
            _ => self.next(&self.candidates(tried)),
        };
        (at, &self.all[at])
    }

    fn candidates(&self, tried: &[usize]) -> Vec<usize> {
        let now = Instant::now();
        let healthy: Vec<_> = (0..self.all.len()).filter(|at| !self.all[*at].known.is_ejected(now)).collect();
        let all = if healthy.is_empty() { (0..self.all.len()).collect() } else { healthy };
        let untried: Vec<_> = all.iter().copied().filter(|at| !tried.contains(at)).collect();
        if untried.is_empty() { all } else { untried }
    }

    fn next(&self, among: &[usize]) -> usize {
        match self.balance {
            Balance::RoundRobin => self.by_turn(among),
            Balance::LeastRequests => {
                let active = |at: &usize| self.all[*at].active.load(Relaxed) as i64 + 1;
                let least = among.iter().min_by(|one, other| {
                    (active(one) * self.all[**other].weight).cmp(&(active(other) * self.all[**one].weight))
                });
                let least = least.expect("there is a server");
                let equal = |at: &usize| active(at) * self.all[*least].weight == active(least) * self.all[*at].weight;
                self.by_turn(&among.iter().copied().filter(equal).collect::<Vec<_>>())
            }
        }
    }

    /// Choose each server as often as its weight says, as evenly spread as possible.
    fn by_turn(&self, among: &[usize]) -> usize {
        let mut behind = self.behind.lock().unwrap();
        let mut all = 0;
        for at in among {
            behind[*at] += self.all[*at].weight;
            all += self.all[*at].weight;
        }
        let mut next = among[0];
        for at in &among[1..] {
            if behind[*at] > behind[next] {
                next = *at;
            }
        }
        behind[next] -= all;
        next
    }

    /// Note whether a request to a server failed, and eject the server if it is due, as Envoy's outlier detection does.
    pub fn note(&self, at: usize, failed: bool) {
        let known = &self.all[at].known;
        if failed {
            known.failures.fetch_add(1, Relaxed);
        }
        let Some(settings) = &self.outliers else {
            return;
        };
        let now = Instant::now();
        let mut health = known.health.lock().unwrap();
        if !failed {
            health.consecutive = 0;
            return;
        }
        if health.until.is_some_and(|until| now < until) {
            return;
        }
        health.consecutive += 1;
        if health.consecutive < settings.consecutive_5xx {
            return;
        }
        drop(health);
        let others = self.all.iter().filter(|server| server.known.is_ejected(now)).count();
        if (others + 1) * 100 > (self.all.len() * settings.max_ejection_percent).max(100) {
            return;
        }
        let mut health = known.health.lock().unwrap();
        let longest = settings.max_ejection_time.0;
        let lasts = |times: u32| settings.base_ejection_time.0.checked_mul(times).unwrap_or(longest).min(longest);
        let rested = health.until.is_none_or(|until| now > until + lasts(health.ejected));
        health.ejected = if rested { 1 } else { health.ejected + 1 };
        health.until = Some(now + lasts(health.ejected));
        health.consecutive = 0;
        known.ejections.fetch_add(1, Relaxed);
    }
}
