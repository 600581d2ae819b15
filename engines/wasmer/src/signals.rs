//! Our signal handlers, in one process with those of others.
//!
//! A trap is a signal: a bad access to memory is a SIGSEGV, `unreachable` a SIGILL. Our handlers are installed once, and
//! hand what is not ours to whoever was there before. One that comes later, such as faulthandler's or another engine's,
//! stands in front and may not know of us. So ours are put back in front before a guest is entered, and hand what is not
//! theirs to whoever stood there the last time.
//!
//! To ask the kernel who stands in front costs as much as three calls into a guest. So it is asked only if there is
//! reason to: Python's own functions that install handlers tell us when they were called (`observe`), other engines do
//! (`handlers_changed`), and for all else the watchdog asks, every few milliseconds.

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

/// The signals that traps are.
#[cfg(target_arch = "x86_64")]
const SIGNALS: [c_int; 3] = [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE];
#[cfg(target_arch = "aarch64")]
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGILL];

struct Actions(UnsafeCell<[MaybeUninit<sigaction>; SIGNALS.len()]>);

// SAFETY: written while the GIL is held; a handler that reads meanwhile sees the action that stood there before.
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

/// Whether others may stand in front.
static SUSPICIOUS: AtomicBool = AtomicBool::new(true);
/// Whether we are told of what Python installs.
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

/// Put our handlers in front, if others may have been installed after them. To be called with the GIL held.
#[inline]
pub fn look() {
    if SUSPICIOUS.load(Relaxed) {
        bring_forward();
    }
}

/// Have the next call into a guest look who stands in front.
#[inline]
pub fn be_suspicious() {
    SUSPICIOUS.store(true, SeqCst);
}

/// Look who stands in front. For the watchdog.
pub fn check() {
    if !SIGNALS.iter().all(|&signal| unsafe { is_in_front(signal) }) {
        be_suspicious();
    }
}

/// Signal handlers were installed.
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

/// Any of the forms that a function of Python has in C: all that it may be given are pointers and sizes.
type Form = unsafe extern "C" fn(usize, usize, usize, usize) -> *mut ffi::PyObject;

/// Python's functions that install handlers, or put back what was there before.
const OBSERVED: [(&str, &str, Form); 3] = [
    ("faulthandler", "enable", observed::<0>),
    ("faulthandler", "disable", observed::<1>),
    ("_signal", "signal", observed::<2>),
];
static ORIGINALS: [AtomicUsize; OBSERVED.len()] = [const { AtomicUsize::new(0) }; OBSERVED.len()];

/// Have those functions tell us when they were called, by an entry in the table that Python finds them in: so it does
/// not matter who has a reference to them. Returns whether they do.
fn observe(py: Python<'_>) -> PyResult<bool> {
    for (index, (module, name, ours)) in OBSERVED.into_iter().enumerate() {
        let function = py.import(module)?.getattr(name)?;
        // SAFETY: behind the head of such an object is its definition, which is checked before it is changed.
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

/// Write to memory that may be read-only. Returns whether it was not. The kernel does it, which fails where we would
/// crash.
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
    // SAFETY: it is what stood there before us, called as we are.
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
            // Who stands behind us may have us behind it: then this signal is nobody's, and ends the process.
            Some(action) if !FORWARDING.get() => {
                FORWARDING.set(true);
                call(signal, &action, info, context);
                FORWARDING.set(false);
            }
            _ => restore_default(signal, info),
        }
    }
}

/// Do what `action` says about a signal that was not for us.
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

/// Have the process end as it would without us: the instruction at fault is about to be run again, and a signal that
/// somebody sent is sent again.
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
