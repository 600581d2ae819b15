//! Controls which thread is inside an instance, and whether it holds the GIL.
//!
//! A guest runs with the GIL held: most calls last microseconds, and to release and retake the GIL at each crossing
//! takes as long as the crossing. A guest that runs longer than some milliseconds releases it when the watchdog
//! requests that (see `deadline`), until it next calls the host or returns.

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

/// How deep calls of one guest may nest. Real filters need three or four levels.
const MAX_NESTED: i32 = 64;

/// The state that all calls of one instance share.
pub struct CallState {
    /// 0: no thread is inside. n > 0: guest code runs, n calls deep. -n: a host function runs, called by the guest at
    /// depth n.
    depth: Cell<i32>,
    /// The Python thread inside.
    thread: Cell<*mut ffi::PyThreadState>,
    seat: Cell<*const Seat>,
    /// The innermost call of this guest.
    pub frame: Cell<*const Frame>,
    closed: Cell<bool>,
    /// Whether a call has ended before a call nested in it. Then the end of all calls is never known, and the instance
    /// is never freed.
    broken: Cell<bool>,
    /// The exception of a host function, until the guest's call has ended.
    raised: RefCell<Option<PyErr>>,
    /// The trap that ended the guest's call.
    trapped: Cell<Option<Trap>>,
    /// The exceptions that the guest has thrown since the last outermost call began.
    pub exceptions: Exceptions,
    /// Called when the guest's memory is usable.
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

    /// Refuse further calls. Returns whether no call is active.
    pub fn close(&self) -> PyResult<bool> {
        self.refuse_others(unsafe { ffi::PyThreadState_Get() })?;
        self.closed.set(true);
        Ok(self.depth.get() == 0)
    }

    /// Whether the instance is closed and no call is active.
    #[inline]
    pub fn is_left(&self) -> bool {
        self.closed.get() && self.depth.get() == 0
    }

    /// Call a function of the guest with arguments in `slots`. The first slot receives the result.
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

    /// Run a host function for the guest, with the GIL held. Returns whether it raised an exception, which is stored.
    #[inline]
    pub fn outside(&self, run: impl FnOnce(Python<'_>) -> PyResult<()>) -> bool {
        let (depth, frame) = (self.depth.get(), self.frame.get());
        self.watch.rest(true);
        self.reacquire_gil();
        self.depth.set(-depth);
        // SAFETY: the GIL is held now.
        let py = unsafe { Python::assume_attached() };
        let ran = catch_unwind(AssertUnwindSafe(|| {
            if self.watch.is_asked() {
                py.check_signals()?; // the call has taken long, and host functions in C may not check
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

    /// Store the trap that ends the guest's call.
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

    /// Call `ready` at the first call of this function.
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

    /// Release the GIL, if it is held. Must be called while guest code runs in this thread, between two of its
    /// instructions or in a function of ours that it called, so that no lock is held.
    pub fn release_gil(&self) {
        if !self.watch.is_away() {
            self.watch.be_away(true);
            unsafe { ffi::PyEval_SaveThread() };
        }
    }

    /// Continue the active call in a child process.
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
        // SAFETY: the thread inside exists.
        unsafe { &*self.seat.get() }
    }

    /// Refuse a call from another thread. Calls nest only in the thread inside.
    #[inline]
    fn refuse_others(&self, thread: *mut ffi::PyThreadState) -> PyResult<()> {
        let depth = self.depth.get();
        if depth > 0 || depth < 0 && self.thread.get() != thread { Err(another_thread()) } else { Ok(()) }
    }
}

/// Handle a signal of the watchdog, which has interrupted the code with the registers in `context`.
pub unsafe fn interrupted(info: *const libc::siginfo_t, context: *mut c_void) {
    // In guest code, which holds no locks, a signal handler may call any function.
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

/// Do what the signal would have done if it had not arrived while a function of ours ran for the guest. Returns whether
/// the guest's deadline has passed.
pub fn catch_up() -> bool {
    let seat = unsafe { &*Seat::mine() };
    let Some(state) = seat.state() else { return false };
    if state.watch.is_asked() && !state.is_late() {
        state.release_gil();
    }
    state.is_late()
}

/// Whether the deadline of the guest that runs in this thread has passed.
#[inline]
pub fn is_late() -> bool {
    unsafe { (*Seat::mine()).state() }.is_some_and(CallState::is_late)
}

/// Count an exception that the guest has thrown. Returns whether it is within the limit.
pub fn note_exception() -> bool {
    let seat = unsafe { &*Seat::mine() };
    seat.state().is_none_or(|state| state.exceptions.note())
}

/// Release the GIL while the guest waits for a long operation.
pub fn release_gil_of_guest() {
    if let Some(state) = unsafe { (*Seat::mine()).state() } {
        state.release_gil();
    }
}

#[cold]
fn no_stack() -> PyErr {
    PyMemoryError::new_err("no memory is left for a guest's stack")
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
