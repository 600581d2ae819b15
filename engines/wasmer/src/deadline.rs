//! Interrupts guests that run long: a watchdog thread checks them every few milliseconds, and signals their threads.
//!
//! If the signal interrupts guest code, its handler releases the GIL, or ends the call with a trap if the deadline has
//! passed. Otherwise it does nothing and is sent again; and a host function that returns late ends the call. Guests
//! with and without a deadline run the same code, so nothing is compiled twice, and no loop checks a counter.
//!
//! A call only records that it has begun, which takes almost no time. Its duration is counted from when the watchdog
//! sees it for the first time, up to one tick later.
//!
//! The signal is SIGURG, which is harmless to other code: it is ignored by default, and rarely used.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::{self, null, null_mut};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, c_void, sigaction, siginfo_t};
use pyo3::prelude::*;

use crate::reentrancy::interrupted;
use crate::signals;
use crate::stack::Seat;
use crate::switch::Registers;

const TICK: Duration = Duration::from_millis(5);
/// Time between two signals to a late call. A loop may spend most of its time in Wasmer's functions (growing memory by
/// zero pages), so that few signals interrupt guest code.
const HASTE: Duration = Duration::from_micros(20);
const QUIET_TICKS: u32 = 200;

/// The state of one instance that the watchdog uses.
pub struct Watch {
    limit: Option<Duration>,
    code: Range<usize>,
    /// Incremented when an outermost call begins, and when it ends. So it is odd during a call.
    turn: AtomicU64,
    /// The `turn` of the last late call, and of the last call that was signalled.
    late: AtomicU64,
    asked: AtomicU64,
    /// The kernel's ID of the thread inside.
    thread: AtomicI32,
    /// Whether a host function runs.
    resting: AtomicBool,
    /// Whether guest code runs without the GIL.
    away: AtomicBool,
    watchdog: AtomicPtr<Watchdog>,
}

impl Watch {
    /// A watch for a guest with code in the range `code`. `seconds` is the deadline of each outermost call, if any.
    pub fn new(seconds: Option<f64>, code: Range<usize>) -> Arc<Self> {
        let longest = Duration::from_secs(u32::MAX.into());
        Arc::new(Self {
            limit: seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(longest)),
            code,
            turn: AtomicU64::new(0),
            late: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            resting: AtomicBool::new(false),
            away: AtomicBool::new(false),
            watchdog: AtomicPtr::new(null_mut()),
        })
    }

    /// Record the beginning of an outermost call in the thread with this ID.
    #[inline]
    pub fn enter(self: &Arc<Self>, thread: c_int) {
        self.be_known(thread);
        self.resting.store(false, Relaxed);
        self.turn.store(self.turn.load(Relaxed).wrapping_add(1), Release);
        Watchdog::get().wake();
    }

    /// Continue an outermost call in a child process, in the thread with this ID.
    pub fn go_on(self: &Arc<Self>, thread: c_int) {
        self.be_known(thread);
        Watchdog::get().wake();
    }

    #[inline]
    fn be_known(self: &Arc<Self>, thread: c_int) {
        let watchdog = WATCHDOG.load(Acquire);
        if watchdog.is_null() || !ptr::eq(self.watchdog.load(Relaxed), watchdog) {
            self.begin();
        }
        self.thread.store(thread, Relaxed);
    }

    #[cold]
    fn begin(self: &Arc<Self>) {
        let watchdog = Watchdog::get();
        self.watchdog.store(ptr::from_ref(watchdog).cast_mut(), Relaxed);
        watchdog.watch(self);
    }

    /// Record the end of an outermost call.
    #[inline]
    pub fn leave(&self) {
        self.turn.store(self.turn.load(Relaxed).wrapping_add(1), Release);
    }

    /// Record whether a host function runs. It gets no signals, because they would interrupt its system calls.
    #[inline]
    pub fn rest(&self, resting: bool) {
        self.resting.store(resting, Relaxed);
    }

    #[inline]
    pub fn is_away(&self) -> bool {
        self.away.load(Relaxed)
    }

    #[inline]
    pub fn be_away(&self, away: bool) {
        self.away.store(away, Relaxed);
    }

    /// Whether the deadline of the active call has passed. Must be called during the call, or before the next one.
    #[inline]
    pub fn is_late(&self) -> bool {
        self.is_of_now(&self.late)
    }

    /// Whether a signal was sent during the active call.
    #[inline]
    pub fn is_asked(&self) -> bool {
        self.is_of_now(&self.asked)
    }

    /// The range of the guest's code.
    pub fn code(&self) -> &Range<usize> {
        &self.code
    }

    #[inline]
    fn is_of_now(&self, turn: &AtomicU64) -> bool {
        let turn = turn.load(Relaxed);
        turn != 0 && turn == (self.turn.load(Relaxed).wrapping_sub(1) | 1)
    }
}

/// A watch, and the call that the watchdog found there at its last check, with the time when it first saw the call.
struct Seen {
    watch: Weak<Watch>,
    turn: u64,
    since: Instant,
}

impl Seen {
    /// Send the signal if it is due. Returns whether a call is active, or `None` if the watch is gone.
    fn check(&mut self, now: Instant) -> Option<bool> {
        let watch = self.watch.upgrade()?;
        let turn = watch.turn.load(Acquire);
        if turn % 2 == 0 {
            return Some(false);
        }
        if self.turn != turn {
            (self.turn, self.since) = (turn, now);
            return Some(true);
        }
        let late = watch.limit.is_some_and(|limit| now.duration_since(self.since) >= limit);
        if late {
            watch.late.store(turn, SeqCst);
        }
        watch.asked.store(turn, SeqCst);
        if (late || !watch.away.load(SeqCst)) && !watch.resting.load(SeqCst) {
            listen();
            send(watch.thread.load(Relaxed));
        }
        Some(true)
    }
}

impl Seen {
    fn is_late(&self) -> bool {
        self.watch.upgrade().is_some_and(|watch| watch.is_late() && !watch.resting.load(SeqCst))
    }
}

/// A thread that checks all watches, and ends after some time without a call.
struct Watchdog {
    watches: Mutex<Vec<Seen>>,
    awake: AtomicBool,
}

static WATCHDOG: AtomicPtr<Watchdog> = AtomicPtr::new(null_mut());

impl Watchdog {
    fn get() -> &'static Self {
        // SAFETY: it is never freed, because the thread may outlive everything else.
        match unsafe { WATCHDOG.load(Acquire).as_ref() } {
            Some(watchdog) => watchdog,
            None => {
                let new = Box::into_raw(Box::new(Self { watches: Mutex::default(), awake: AtomicBool::new(false) }));
                WATCHDOG.store(new, Release); // only one thread at a time: the GIL is held
                unsafe { &*new }
            }
        }
    }

    fn watch(&self, watch: &Arc<Watch>) {
        let seen = Seen { watch: Arc::downgrade(watch), turn: 0, since: Instant::now() };
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    #[inline]
    fn wake(&'static self) {
        if !self.awake.load(Relaxed) {
            self.start();
        }
    }

    #[cold]
    fn start(&'static self) {
        if self.awake.swap(true, SeqCst) {
            return;
        }
        signals::be_suspicious(); // there was no check for some time
        // The new thread inherits blocked signals. Python's signals are for other threads.
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        }
        let started = thread::Builder::new().name("wasmer-watchdog".into()).spawn(|| self.run());
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
        if started.is_err() {
            self.awake.store(false, SeqCst); // the next call tries again
        }
    }

    fn run(&self) {
        let mut quiet = 0;
        let mut pause = TICK;
        loop {
            thread::sleep(pause);
            let (inside, late) = self.check();
            pause = if late { HASTE } else { TICK };
            quiet = if inside { 0 } else { quiet + 1 };
            if quiet > QUIET_TICKS {
                self.awake.store(false, SeqCst);
                // A call that began before saw `awake`, and needs this thread. After a tick, its writes are visible.
                thread::sleep(TICK);
                if !self.check().0 || self.awake.swap(true, SeqCst) {
                    return;
                }
                quiet = 0;
            }
        }
    }

    /// Check all watches. Returns whether a call is active, and whether a late call may be in guest code.
    fn check(&self) -> (bool, bool) {
        signals::check();
        let now = Instant::now();
        let (mut inside, mut late) = (false, false);
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).retain_mut(|seen| {
            let checked = seen.check(now);
            inside |= checked == Some(true);
            late |= checked == Some(true) && seen.is_late();
            checked.is_some()
        });
        (inside, late)
    }
}

/// Reset the state in a child process, which has neither the watchdog nor the holder of its lock.
#[pyfunction]
pub fn after_fork() {
    WATCHDOG.store(null_mut(), Release);
    Seat::after_fork();
}

/// Its address is the value of our signals, which distinguishes them from others with the same number.
static MARK: u8 = 0;

/// The `siginfo_t` of a signal with a value.
#[repr(C)]
struct Message {
    signal: c_int,
    error: c_int,
    code: c_int,
    process: c_int,
    user: c_int,
    value: *const u8,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Message>() == size_of::<siginfo_t>());

/// Send the signal. It has no effect if the thread is gone, or not in a guest any more.
fn send(thread: c_int) {
    unsafe {
        let (process, user) = (libc::getpid(), libc::getuid() as c_int);
        let message = Message {
            signal: libc::SIGURG,
            error: 0,
            code: libc::SI_QUEUE,
            process,
            user,
            value: &raw const MARK,
            rest: [0; 12],
        };
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, libc::SIGURG, &raw const message);
    }
}

unsafe fn is_ours(info: *const siginfo_t) -> bool {
    unsafe { (*info).si_code == libc::SI_QUEUE && (*info.cast::<Message>()).value == &raw const MARK }
}

struct Before(UnsafeCell<MaybeUninit<sigaction>>);

// SAFETY: written before the handler that reads it is installed, and later by one thread, after the handler was
// replaced.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));

/// Put our handler in front. A handler that was installed meanwhile gets the signals that are not ours.
fn listen() {
    unsafe {
        let mut current = MaybeUninit::uninit();
        sigaction(libc::SIGURG, null(), current.as_mut_ptr());
        let current: sigaction = current.assume_init();
        if current.sa_sigaction != on_signal as *const () as usize {
            *BEFORE.0.get() = MaybeUninit::new(current);
            let mut ours: sigaction = std::mem::zeroed();
            ours.sa_sigaction = on_signal as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            sigaction(libc::SIGURG, &ours, null_mut());
        }
    }
}

unsafe extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        if is_ours(info) {
            interrupted(info, context);
            return;
        }
        let before = (*BEFORE.0.get()).assume_init();
        if before.sa_sigaction != libc::SIG_DFL {
            signals::call(signal, &before, info, context);
        }
    }
}

/// Whether the thread with these registers is in guest code, where the signal may become a trap.
///
/// Before a `ret`, unwinding would miss the caller of the function. So this function performs the `ret`, the next
/// instruction.
#[cfg(target_arch = "x86_64")]
pub unsafe fn find_guest(code: &Range<usize>, registers: &Registers) -> bool {
    const RET: u8 = 0xc3;
    unsafe {
        let counter = registers.counter();
        if !code.contains(&counter) || *(counter as *const u8) != RET {
            return code.contains(&counter);
        }
        let stack = registers.stack();
        let back = *(stack as *const usize);
        if code.contains(&back) {
            registers.go_on(back, stack + size_of::<usize>());
        }
        code.contains(&back)
    }
}

#[cfg(target_arch = "aarch64")]
pub unsafe fn find_guest(code: &Range<usize>, registers: &Registers) -> bool {
    code.contains(&unsafe { registers.counter() })
}
