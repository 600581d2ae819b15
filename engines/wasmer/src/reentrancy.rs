//! Who is inside of an instance, and whether the GIL is held meanwhile.
//!
//! A guest runs with the GIL held, for most calls last microseconds, and to let go of it at each crossing and take it
//! again costs as much as the crossing. One that runs for longer than some milliseconds lets go of it when the watchdog
//! asks for that (see `deadline`), until it next calls the host or returns.

use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use backtrace::Backtrace;
use pyo3::exceptions::{PyMemoryError, PyRecursionError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use wasmer_compiler::get_trace_and_trapcode;
use wasmer_types::{FrameInfo, RawValue, TrapCode};
use wasmer_vm::Trap;

use crate::deadline::{self, Watch};
use crate::exceptions::Exceptions;
use crate::host::Late;
use crate::signals;
use crate::stack::{self, Seat};
use crate::switch::{Frame, Function, Registers};

/// How many calls of one guest may be under way within each other. What is sensible is three or four.
const MAX_NESTED: i32 = 64;

/// What the crossings of one instance share.
pub struct CallState {
    /// 0: nobody is inside. n > 0: guest code runs, n calls deep. -n: a host function runs, called by the guest that
    /// is n calls deep.
    depth: Cell<i32>,
    /// The Python thread that is inside.
    thread: Cell<*mut ffi::PyThreadState>,
    seat: Cell<*const Seat>,
    /// The innermost call of this guest.
    pub frame: Cell<*const Frame>,
    closed: Cell<bool>,
    /// Whether a call has ended before one that it had led to. So it is never known to be left, and never freed.
    broken: Cell<bool>,
    /// What a host function raised, on its way out through the guest.
    raised: RefCell<Option<PyErr>>,
    /// The trap that the guest has met.
    trapped: Cell<Option<Trap>>,
    /// What the guest has thrown since the last outermost call began.
    pub exceptions: Exceptions,
    /// To be called when the guest's memory can be used.
    pub ready: RefCell<Option<Py<PyAny>>>,
    /// Makes the exception for a trap.
    pub failed: Py<PyAny>,
    watch: Arc<Watch>,
}

impl CallState {
    pub fn new(failed: Py<PyAny>, watch: Arc<Watch>) -> Self {
        Self {
            depth: Cell::new(0),
            thread: Cell::new(null_mut()),
            seat: Cell::new(null()),
            frame: Cell::new(null()),
            closed: Cell::new(false),
            broken: Cell::new(false),
            raised: RefCell::new(None),
            trapped: Cell::new(None),
            exceptions: Exceptions::default(),
            ready: RefCell::new(None),
            failed,
            watch,
        }
    }

    /// Refuse all calls from now on. Returns whether nobody is inside.
    pub fn close(&self) -> PyResult<bool> {
        self.refuse_others(unsafe { ffi::PyThreadState_Get() })?;
        self.closed.set(true);
        Ok(self.depth.get() == 0)
    }

    /// Whether it is closed and nobody is inside.
    #[inline]
    pub fn is_left(&self) -> bool {
        self.closed.get() && self.depth.get() == 0
    }

    /// Call a function of the guest with what is in `slots`. What it returns is in the first one.
    #[inline]
    pub unsafe fn call(&self, function: &Function, slots: *mut RawValue) -> PyResult<()> {
        let thread = unsafe { ffi::PyThreadState_Get() };
        let depth = self.depth.get();
        self.refuse_others(thread)?;
        if self.closed.get() {
            return Err(closed());
        }
        if self.broken.get() {
            return Err(out_of_order());
        }
        if depth <= -MAX_NESTED {
            return Err(nested_too_deeply());
        }
        if depth == 0 {
            signals::look();
            self.exceptions.forget();
            self.thread.set(thread);
            self.seat.set(Seat::mine());
            self.watch.enter(self.seat().thread());
        } else {
            self.watch.rest(false);
        }
        self.depth.set(1 - depth);
        let ended = unsafe { self.seat().run(self, &self.frame, function, slots) };
        self.reacquire_gil();
        self.depth.set(depth);
        if depth == 0 {
            self.watch.leave()
        } else {
            self.watch.rest(true)
        }
        if ended == Some(stack::RETURNED) { Ok(()) } else { Err(self.ended(ended)) }
    }

    /// Run a host function for the guest, with the GIL. Returns whether it raised an exception, which is kept.
    #[inline]
    pub fn outside(&self, run: impl FnOnce(Python<'_>) -> PyResult<()>) -> bool {
        let (depth, frame) = (self.depth.get(), self.frame.get());
        self.watch.rest(true);
        self.reacquire_gil();
        self.depth.set(-depth);
        // SAFETY: it is held now.
        let py = unsafe { Python::assume_attached() };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            if self.watch.is_asked() {
                py.check_signals()?; // host functions in C may not do so, and it has taken long
            }
            run(py)
        }));
        let error = match ran {
            _ if !self.seat().is_innermost(frame) => Some(self.break_off(frame)),
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(_) => Some(PyRuntimeError::new_err("a host function panicked, see what it wrote to stderr")),
        };
        self.depth.set(depth);
        self.watch.rest(false);
        error.map(|error| self.raised.replace(Some(error))).is_some()
    }

    /// Keep the trap that the guest has met.
    pub fn note(&self, trap: Trap) {
        self.trapped.set(Some(trap));
    }

    /// The exception for a call that did not return.
    #[cold]
    fn ended(&self, ended: Option<u32>) -> PyErr {
        if self.broken.get() {
            self.depth.set(-1);
        }
        match ended {
            Some(stack::RAISED) => self.raised.take().unwrap_or_else(no_stack),
            Some(stack::TRAPPED) => {
                let py = unsafe { Python::assume_attached() };
                self.trapped.take().map_or_else(no_stack, |trap| self.failure(py, &trap))
            }
            Some(stack::EXHAUSTED) => {
                let (trap_code, backtrace) = (TrapCode::StackOverflow, Backtrace::from(vec![]));
                self.failure(unsafe { Python::assume_attached() }, &Trap::Lib { trap_code, backtrace })
            }
            Some(_) => no_stack(),
            None => nested_too_deeply(),
        }
    }

    #[cold]
    fn break_off(&self, frame: *const Frame) -> PyErr {
        self.seat().abandon();
        if self.frame.get() != frame {
            self.broken.set(true);
        }
        out_of_order()
    }

    /// The exception for a call that ended with `trap`.
    #[cold]
    pub fn failure(&self, py: Python<'_>, trap: &Trap) -> PyErr {
        let (mut frames, code) = get_trace_and_trapcode(trap);
        if let Some(Late(trace)) = trap.downcast_ref() {
            frames.clone_from(trace);
        }
        let code = if self.is_late() { Some(TrapCode::HostInterrupt) } else { code };
        let message = code.map_or_else(|| trap.to_string(), |code| code.message().to_owned());
        let describe = |frame: &FrameInfo| {
            let name = frame.function_name().map(str::to_owned);
            (name.unwrap_or_else(|| format!("<wasm function {}>", frame.func_index())), frame.module_offset())
        };
        let frames: Vec<_> = frames.iter().map(describe).collect();
        match self.failed.bind(py).call1((code.map(|code| code as u32), message, frames)) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        }
    }

    /// Call `ready`, the first time.
    #[inline]
    pub fn be_ready(&self, py: Python<'_>) -> PyResult<()> {
        if self.ready.borrow().is_none() {
            return Ok(());
        }
        let ready = self.ready.take();
        ready.map_or(Ok(()), |ready| ready.into_bound(py).call0().map(drop))
    }

    #[inline]
    pub fn is_late(&self) -> bool {
        self.watch.is_late()
    }

    /// Let other threads run Python, if they may not yet. To be called while guest code runs in this thread, between
    /// two of its instructions or in a function of ours that it called, so that no lock is held.
    pub fn release_gil(&self) {
        if !self.watch.is_away() {
            self.watch.be_away(true);
            unsafe { ffi::PyEval_SaveThread() };
        }
    }

    /// The call that is under way goes on in a child process.
    pub fn after_fork(&self, thread: c_int) {
        self.watch.go_on(thread);
    }

    #[inline]
    fn reacquire_gil(&self) {
        if self.watch.is_away() {
            unsafe { ffi::PyEval_RestoreThread(self.thread.get()) };
            self.watch.be_away(false);
        }
    }

    #[inline]
    fn seat(&self) -> &Seat {
        // SAFETY: the thread that is inside lives.
        unsafe { &*self.seat.get() }
    }

    /// Calls nest within one thread. Nobody else may enter meanwhile.
    #[inline]
    fn refuse_others(&self, thread: *mut ffi::PyThreadState) -> PyResult<()> {
        let depth = self.depth.get();
        if depth > 0 || depth < 0 && self.thread.get() != thread { Err(another_thread()) } else { Ok(()) }
    }
}

/// The watchdog has sent this thread a signal, which has interrupted what has the registers in `context`.
pub unsafe fn interrupted(info: *const libc::siginfo_t, context: *mut c_void) {
    // A signal may call what it likes here, for guest code is not in the middle of anything.
    unsafe {
        let Some(state) = (*Seat::mine()).state() else { return };
        if deadline::find_guest(state.watch.code(), &Registers(context)) {
            if state.is_late() {
                stack::trap(libc::SIGURG, info, context);
            } else {
                let number = *libc::__errno_location();
                state.release_gil();
                *libc::__errno_location() = number;
            }
        }
    }
}

/// What the signal would have done, where it may have come while a function of ours ran for the guest, in which it does
/// nothing. Returns whether the guest is late.
pub fn catch_up() -> bool {
    let seat = unsafe { &*Seat::mine() };
    let Some(state) = seat.state() else { return false };
    if state.watch.is_asked() && !state.is_late() {
        state.release_gil();
    }
    state.is_late()
}

/// Whether the guest that runs in this thread is late.
#[inline]
pub fn is_late() -> bool {
    unsafe { (*Seat::mine()).state() }.is_some_and(CallState::is_late)
}

/// Note that the guest has thrown an exception. Returns whether it may.
pub fn note_exception() -> bool {
    let seat = unsafe { &*Seat::mine() };
    seat.state().is_none_or(|state| state.exceptions.note())
}

/// Let other threads run Python while the guest waits for something that takes long.
pub fn release_gil_of_guest() {
    if let Some(state) = unsafe { (*Seat::mine()).state() } {
        state.release_gil();
    }
}

#[cold]
fn no_stack() -> PyErr {
    PyMemoryError::new_err("there is no memory for a guest's stack")
}

#[cold]
fn out_of_order() -> PyErr {
    PyRuntimeError::new_err(
        "calls into guests have not ended in the order that they began in: a host function must not switch to another \
         greenlet",
    )
}

#[cold]
fn another_thread() -> PyErr {
    PyRuntimeError::new_err("another thread is inside this instance: one instance serves one thread at a time")
}

#[cold]
pub fn closed() -> PyErr {
    PyRuntimeError::new_err("the instance is closed")
}

#[cold]
fn nested_too_deeply() -> PyErr {
    PyRecursionError::new_err(format!("host and guest call each other more than {MAX_NESTED} deep"))
}
