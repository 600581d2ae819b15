//! Deadlines: a thread looks at the clock every few milliseconds, and sends a signal to a thread that is late.
//!
//! If the signal finds it in guest code, its handler does what a trap there would do. If not, it does nothing and is
//! sent again; and a host function that returns late ends the call. Code without a deadline is the same code, so
//! nothing is compiled twice, and no loop looks at a counter.
//!
//! The signal is SIGURG, since nobody minds one more of it: it is ignored by default, and seldom used.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::{self, null, null_mut};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use libc::{c_int, c_void, sigaction, siginfo_t};
use pyo3::prelude::*;

use crate::signals;

/// Whether the registers of a thread can be read here.
pub const AVAILABLE: bool = cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")));

const TICK: Duration = Duration::from_millis(5);
const QUIET_TICKS: u32 = 200;
const IDLE: u8 = 0;
const INSIDE: u8 = 1;
const SIGNALLING: u8 = 2;

thread_local! {
    /// The watch of the guest that runs in this thread, null if it has none.
    static CURRENT: AtomicPtr<Watch> = const { AtomicPtr::new(null_mut()) };
}

/// The deadline of one instance, for each outermost call.
pub struct Watch {
    limit: Duration,
    code: Range<usize>,
    began: Instant,
    /// Nanoseconds since `began`.
    until: AtomicU64,
    thread: AtomicUsize,
    state: AtomicU8,
    late: AtomicBool,
    resting: AtomicBool,
    watchdog: AtomicPtr<Watchdog>,
}

impl Watch {
    /// A watch over code that lies at `code`.
    pub fn new(seconds: f64, code: Range<usize>) -> Arc<Self> {
        Arc::new(Self {
            limit: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(u32::MAX.into())),
            code,
            began: Instant::now(),
            until: AtomicU64::new(0),
            thread: AtomicUsize::new(0),
            state: AtomicU8::new(IDLE),
            late: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            watchdog: AtomicPtr::new(null_mut()),
        })
    }

    /// An outermost call begins in this thread.
    pub fn enter(self: &Arc<Self>) {
        let watchdog = Watchdog::get();
        if !ptr::eq(self.watchdog.swap(ptr::from_ref(watchdog).cast_mut(), Relaxed), watchdog) {
            watchdog.watch(self);
        }
        self.late.store(false, Relaxed);
        self.until.store((self.began.elapsed() + self.limit).as_nanos() as u64, Relaxed);
        self.thread.store(unsafe { libc::pthread_self() } as usize, Relaxed);
        self.state.store(INSIDE, SeqCst);
        watchdog.wake();
    }

    /// It ends. No signal is sent to this thread from here on.
    pub fn leave(&self) {
        while self.state.compare_exchange_weak(INSIDE, IDLE, SeqCst, Relaxed).is_err() {
            std::hint::spin_loop();
        }
    }

    /// Note whether a host function runs. It is let alone: a signal would interrupt what it waits for.
    pub fn rest(&self, resting: bool) {
        self.resting.store(resting, Relaxed);
    }

    /// Whether the call that is under way, or was the last, took too long.
    pub fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }

    /// Send the signal if it is time to. Returns whether a call is under way.
    fn check(&self) -> bool {
        if self.state.load(SeqCst) == IDLE {
            return false;
        }
        if (self.began.elapsed().as_nanos() as u64) < self.until.load(Relaxed) {
            return true;
        }
        if self.state.compare_exchange(INSIDE, SIGNALLING, SeqCst, Relaxed).is_ok() {
            // A call may have ended and another begun since we looked, but not from here on.
            if self.began.elapsed().as_nanos() as u64 >= self.until.load(Relaxed) {
                self.late.store(true, SeqCst);
                if !self.resting.load(SeqCst) {
                    listen();
                    // SAFETY: the thread is in a call, and cannot leave it in this state.
                    unsafe { libc::pthread_kill(self.thread.load(Relaxed) as libc::pthread_t, libc::SIGURG) };
                }
            }
            self.state.store(INSIDE, SeqCst);
        }
        true
    }
}

/// Note that guest code with this watch runs in this thread from now on. Returns what was noted before.
pub fn note(watch: *const Watch) -> *const Watch {
    CURRENT.with(|current| {
        let before = current.load(Relaxed);
        current.store(watch.cast_mut(), Release);
        before
    })
}

/// A thread that checks all watches, and ends itself when none was needed for a while.
struct Watchdog {
    watches: Mutex<Vec<Weak<Watch>>>,
    awake: AtomicBool,
}

static WATCHDOG: AtomicPtr<Watchdog> = AtomicPtr::new(null_mut());

impl Watchdog {
    fn get() -> &'static Self {
        // SAFETY: once made it stays, for the thread may outlive everything else.
        match unsafe { WATCHDOG.load(Acquire).as_ref() } {
            Some(watchdog) => watchdog,
            None => {
                let new = Box::into_raw(Box::new(Self { watches: Mutex::default(), awake: AtomicBool::new(false) }));
                WATCHDOG.store(new, Release); // by one thread: the GIL is held
                unsafe { &*new }
            }
        }
    }

    fn watch(&self, watch: &Arc<Watch>) {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(watch));
    }

    fn wake(&'static self) {
        if self.awake.load(SeqCst) || self.awake.swap(true, SeqCst) {
            return;
        }
        // A thread inherits what it blocks. Python's signals are for other threads.
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        }
        let started = thread::Builder::new().name("wasmer-deadlines".into()).spawn(|| self.run());
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
        if started.is_err() {
            self.awake.store(false, SeqCst); // the next call tries again
        }
    }

    fn run(&self) {
        let mut quiet = 0;
        loop {
            thread::sleep(TICK);
            quiet = if self.check() { 0 } else { quiet + 1 };
            if quiet > QUIET_TICKS {
                self.awake.store(false, SeqCst);
                // Who entered before that saw us awake, and relies on us.
                if !self.check() || self.awake.swap(true, SeqCst) {
                    return;
                }
                quiet = 0;
            }
        }
    }

    fn check(&self) -> bool {
        let mut inside = false;
        self.watches.lock().unwrap_or_else(PoisonError::into_inner).retain(|watch| {
            let watch = watch.upgrade();
            inside |= watch.as_ref().is_some_and(|watch| watch.check());
            watch.is_some()
        });
        inside
    }
}

/// To be called in a child process: the thread has not come along, nor whoever held its lock.
#[pyfunction]
pub fn after_fork() {
    WATCHDOG.store(null_mut(), Release);
}

struct Before(UnsafeCell<MaybeUninit<sigaction>>);

// SAFETY: written before the handler that reads it is there, and after that by one thread, when someone replaced it.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));

/// See to it that the signal comes to us first: who installed a handler since then gets what is not ours.
fn listen() {
    unsafe {
        let mut current = MaybeUninit::uninit();
        sigaction(libc::SIGURG, null(), current.as_mut_ptr());
        let current: sigaction = current.assume_init();
        if current.sa_sigaction != interrupt as *const () as usize {
            *BEFORE.0.get() = MaybeUninit::new(current);
            let mut ours: sigaction = std::mem::zeroed();
            ours.sa_sigaction = interrupt as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            sigaction(libc::SIGURG, &ours, null_mut());
        }
    }
}

unsafe extern "C" fn interrupt(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        let watch = CURRENT.with(|current| current.load(Acquire)).as_ref();
        match watch {
            Some(watch) if watch.is_late() => {
                if find_guest(&watch.code, context) {
                    // Only the registers matter to it, and whether the signal may come with an address: SIGFPE has none.
                    signals::trap_handler()(libc::SIGFPE, info, context);
                }
            }
            _ => {
                let before = (*BEFORE.0.get()).assume_init();
                if before.sa_sigaction != libc::SIG_DFL {
                    signals::call(signal, &before, info, context);
                }
            }
        }
    }
}

/// Whether the thread with these registers is in guest code, where a trap may be made of it.
///
/// In front of a `ret` there is no telling who called the function: unwinding would miss the caller. So it is done
/// already, which is what would happen next anyway.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn find_guest(code: &Range<usize>, context: *mut c_void) -> bool {
    const RET: u8 = 0xc3;
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let counter = registers[libc::REG_RIP as usize] as usize;
        if !code.contains(&counter) || *(counter as *const u8) != RET {
            return code.contains(&counter);
        }
        let stack = registers[libc::REG_RSP as usize];
        let back = *(stack as *const usize);
        if code.contains(&back) {
            registers[libc::REG_RIP as usize] = back as i64;
            registers[libc::REG_RSP as usize] = stack + size_of::<usize>() as i64;
        }
        code.contains(&back)
    }
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
unsafe fn find_guest(code: &Range<usize>, context: *mut c_void) -> bool {
    code.contains(&unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.pc as usize })
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
unsafe fn find_guest(_: &Range<usize>, _: *mut c_void) -> bool {
    false
}
