//! Our signal handlers, in a process with other handlers.
//!
//! A trap is a signal: an invalid access to memory is a SIGSEGV, `unreachable` a SIGILL. Our handlers are installed
//! once, and pass other signals to the previous handlers. A handler that is installed later, such as faulthandler's or
//! another engine's, is in front and may not pass on our signals. So ours are put in front again before a guest is
//! entered, and pass other signals to the handlers that were in front.
//!
//! To query the kernel for the handlers takes as long as three calls into a guest. So they are queried only if they may
//! have changed: Python's functions that install handlers notify us (`observe`), other engines do too
//! (`handlers_changed`), and for everything else the watchdog checks every few milliseconds.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};

use libc::{c_int, c_void, sigaction, siginfo_t};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::stack;

type Handler = unsafe extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The signals that represent traps.
#[cfg(target_arch = "x86_64")]
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE];
#[cfg(target_arch = "aarch64")]
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGILL];

struct Actions(UnsafeCell<[MaybeUninit<sigaction>; SIGNALS.len()]>);

// SAFETY: written while the GIL is held; a handler that reads meanwhile sees the previous action.
unsafe impl Sync for Actions {}

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

/// Whether other handlers may be in front.
static SUSPICIOUS: AtomicBool = AtomicBool::new(true);
/// Whether Python's functions notify us.
static OBSERVING: AtomicBool = AtomicBool::new(false);

/// Install our handlers.
pub fn install(py: Python<'_>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (index, &signal) in SIGNALS.iter().enumerate() {
            unsafe { put_in_front(index, signal) };
        }
        OBSERVING.store(observe(py).unwrap_or(false), Relaxed);
    });
}

/// Put our handlers in front, if others may have been installed after them. Must be called with the GIL held.
#[inline]
pub fn look() {
    if SUSPICIOUS.load(Relaxed) {
        bring_forward();
    }
}

/// Make the next call into a guest check the handlers.
#[inline]
pub fn be_suspicious() {
    SUSPICIOUS.store(true, SeqCst);
}

/// Check whether our handlers are in front. The watchdog calls this.
pub fn check() {
    if !SIGNALS.iter().all(|&signal| unsafe { is_in_front(signal) }) {
        be_suspicious();
    }
}

/// Other code has installed signal handlers.
#[pyfunction]
pub fn handlers_changed() {
    be_suspicious();
}

#[cold]
fn bring_forward() {
    SUSPICIOUS.store(!OBSERVING.load(Relaxed), SeqCst);
    for (index, &signal) in SIGNALS.iter().enumerate() {
        // SAFETY: `install` has run, and the GIL is held.
        unsafe {
            if !is_in_front(signal) {
                put_in_front(index, signal);
            }
        }
    }
}

/// Any of the signatures of a Python function in C: all parameters are pointers or sizes.
type Form = unsafe extern "C" fn(usize, usize, usize, usize) -> *mut ffi::PyObject;

/// Python's functions that install handlers, or restore the previous ones.
const OBSERVED: [(&str, &str, Form); 3] = [
    ("faulthandler", "enable", observed::<0>),
    ("faulthandler", "disable", observed::<1>),
    ("_signal", "signal", observed::<2>),
];
static ORIGINALS: [AtomicUsize; OBSERVED.len()] = [const { AtomicUsize::new(0) }; OBSERVED.len()];

/// Make those functions notify us when they are called, by a changed entry in the table where Python finds them, so
/// that existing references to them notify us too. Returns whether this succeeded.
fn observe(py: Python<'_>) -> PyResult<bool> {
    for (index, (module, name, ours)) in OBSERVED.into_iter().enumerate() {
        let function = py.import(module)?.getattr(name)?;
        // SAFETY: the definition follows the head of such an object, and is checked before it is changed.
        unsafe {
            if ffi::Py_TYPE(function.as_ptr()) != &raw mut ffi::PyCFunction_Type {
                return Ok(false);
            }
            let original = ffi::PyCFunction_GetFunction(function.as_ptr()).map_or(0, |original| original as usize);
            let definition = *function.as_ptr().cast::<*mut ffi::PyMethodDef>().add(2);
            let place = (&raw mut (*definition).ml_meth).cast::<usize>();
            if original == 0 || *place != original {
                return Ok(false);
            }
            ORIGINALS[index].store(original, Relaxed);
            if !write(place, ours as *const () as usize) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Write to memory that may be read-only. Returns whether this succeeded. The kernel writes, because it returns an
/// error where we would crash.
unsafe fn write(place: *mut usize, value: usize) -> bool {
    let mut ends = [0; 2];
    unsafe {
        if libc::pipe(ends.as_mut_ptr()) != 0 {
            return false;
        }
        let size = size_of::<usize>();
        let written = libc::write(ends[1], (&raw const value).cast(), size) == size as isize
            && libc::read(ends[0], place.cast(), size) == size as isize;
        ends.iter().for_each(|&end| _ = libc::close(end));
        written
    }
}

unsafe extern "C" fn observed<const INDEX: usize>(a: usize, b: usize, c: usize, d: usize) -> *mut ffi::PyObject {
    // SAFETY: this is the previous function, called with our arguments.
    let original: Form = unsafe { std::mem::transmute(ORIGINALS[INDEX].load(Relaxed)) };
    let answer = unsafe { original(a, b, c, d) };
    be_suspicious();
    answer
}

unsafe fn is_in_front(signal: c_int) -> bool {
    unsafe {
        let mut current = MaybeUninit::uninit();
        sigaction(signal, null(), current.as_mut_ptr());
        current.assume_init().sa_sigaction == on_signal as *const () as usize
    }
}

unsafe fn put_in_front(index: usize, signal: c_int) {
    unsafe {
        let mut ours: sigaction = std::mem::zeroed();
        ours.sa_sigaction = on_signal as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        sigaction(signal, null(), BEHIND.at(index));
        sigaction(signal, &ours, null_mut());
    }
}

unsafe extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        if stack::trap(signal, info, context) {
            return;
        }
        let behind = SIGNALS.iter().position(|&ours| ours == signal).map(|index| *BEHIND.at(index));
        match behind {
            // The handler behind ours may call ours again: then no handler accepts the signal, and it ends the process.
            Some(action) if !FORWARDING.get() => {
                FORWARDING.set(true);
                call(signal, &action, info, context);
                FORWARDING.set(false);
            }
            _ => restore_default(signal, info),
        }
    }
}

/// Handle a signal that is not ours as `action` specifies.
pub unsafe fn call(signal: c_int, action: &sigaction, info: *mut siginfo_t, context: *mut c_void) {
    unsafe {
        match action.sa_sigaction {
            libc::SIG_DFL => restore_default(signal, info),
            libc::SIG_IGN => {}
            handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
                std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
            }
            handler => std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal),
        }
    }
}

/// Make the process end as it would without our handler: the faulting instruction runs again, and a signal that a
/// process has sent is sent again.
unsafe fn restore_default(signal: c_int, info: *const siginfo_t) {
    unsafe {
        let mut action: sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        sigaction(signal, &action, null_mut());
        if (*info).si_code <= 0 {
            libc::raise(signal);
        }
    }
}
