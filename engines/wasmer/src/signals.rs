//! Wasmer's signal handlers, in one process with those of others.
//!
//! A trap is a signal: a bad access to memory is a SIGSEGV, `unreachable` a SIGILL. Wasmer installs its handlers once,
//! and hands what is not its own to whoever was there before. One that comes later, such as faulthandler's or another
//! engine's, stands in front and may not know of us. So they are put back in front when an instance is entered, and
//! hand what is not theirs to whoever stood there the last time: that is why `forward`, not the handler that Wasmer
//! found when it was installed, is what comes after them.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::Once;

use libc::{c_int, c_void, sigaction, siginfo_t};

pub type Handler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The signals for which Wasmer installs handlers here.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE];
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGILL];

struct Actions(UnsafeCell<[MaybeUninit<sigaction>; SIGNALS.len()]>);

// SAFETY: written while the GIL is held; a handler that reads meanwhile sees the action that stood there before.
unsafe impl Sync for Actions {}

static OURS: Actions = Actions(UnsafeCell::new([MaybeUninit::uninit(); SIGNALS.len()]));
static BEHIND: Actions = Actions(UnsafeCell::new([MaybeUninit::uninit(); SIGNALS.len()]));

impl Actions {
    fn at(&self, index: usize) -> *mut sigaction {
        // SAFETY: `index` is one of `SIGNALS`.
        unsafe { (*self.0.get())[index].as_mut_ptr() }
    }
}

thread_local! {
    static FORWARDING: Cell<bool> = const { Cell::new(false) };
}

/// Let Wasmer install its handlers, with `forward` behind them.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| unsafe {
        let mut ours: sigaction = std::mem::zeroed();
        ours.sa_sigaction = forward as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for (index, &signal) in SIGNALS.iter().enumerate() {
            sigaction(signal, &ours, BEHIND.at(index));
        }
        wasmer_vm::init_traps();
        for (index, &signal) in SIGNALS.iter().enumerate() {
            sigaction(signal, null(), OURS.at(index));
        }
    });
}

/// Put Wasmer's handlers in front, if others were installed after them.
pub fn bring_forward() {
    // SAFETY: `install` has run, and the GIL is held.
    unsafe {
        if is_in_front(0) {
            return; // whoever takes one of these signals takes the first
        }
        for (index, &signal) in SIGNALS.iter().enumerate() {
            if !is_in_front(index) {
                sigaction(signal, null(), BEHIND.at(index));
                sigaction(signal, OURS.at(index), null_mut());
            }
        }
    }
}

/// Wasmer's handler of traps, to be called with the registers of a thread that is in guest code.
pub fn trap_handler() -> Handler {
    // SAFETY: `install` has run.
    unsafe { std::mem::transmute::<usize, Handler>((*OURS.at(0)).sa_sigaction) }
}

unsafe fn is_in_front(index: usize) -> bool {
    unsafe {
        let mut current = MaybeUninit::uninit();
        sigaction(SIGNALS[index], null(), current.as_mut_ptr());
        current.assume_init().sa_sigaction == (*OURS.at(index)).sa_sigaction
    }
}

unsafe extern "C" fn forward(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        let behind = SIGNALS.iter().position(|&ours| ours == signal).map(|index| *BEHIND.at(index));
        match behind {
            // Who stands behind us may have us behind it: then this signal is nobody's, and ends the process.
            Some(action) if !FORWARDING.get() => {
                FORWARDING.set(true);
                call(signal, &action, info, context);
                FORWARDING.set(false);
            }
            _ => restore_default(signal),
        }
    }
}

/// Do what `action` says about a signal that was not for us.
pub unsafe fn call(signal: c_int, action: &sigaction, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        match action.sa_sigaction {
            libc::SIG_DFL => restore_default(signal),
            libc::SIG_IGN => {}
            handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
                std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
            }
            handler => std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal),
        }
    }
}

unsafe fn restore_default(signal: c_int) {
    unsafe {
        let mut action: sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        sigaction(signal, &action, null_mut());
    }
}
