//! The crossings between Python and a guest: guest functions as Python callables, Python callables as host functions.
//!
//! All that a crossing needs is resolved beforehand. The GIL is released while guest code runs, and taken again for
//! each host function. Values cross in slots of 16 bytes.

use std::arch::naked_asm;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::error::Error;
use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::Arc;

use pyo3::exceptions::{PyRecursionError, PyRuntimeError, PyTypeError};
use pyo3::ffi::{self, PyObject};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use wasmer_compiler::{FRAME_INFO, get_trace_and_trapcode};
use wasmer_types::{FrameInfo, FunctionType, RawValue, TrapCode, Type};
use wasmer_vm::{
    InternalStoreHandle, MaybeInstanceOwned, StoreObjects, Trap, VMCallerCheckedAnyfunc, VMConfig, VMContext,
    VMDynamicFunctionContext, VMExtern, VMFunction, VMFunctionBody, VMFunctionContext, VMFunctionKind, VMSignatureHash,
    VMTrampoline, on_host_stack, raise_user_trap, wasmer_call_trampoline,
};

use crate::deadline::{self, Watch};
use crate::instance::Instance;
use crate::signals;

/// How many calls of one guest may be under way within each other. What is sensible is three or four, and each takes
/// a stack of its own.
const MOST_NESTED: i32 = 64;
/// Functions of more values take a moment longer.
const FEW: usize = 16;

/// What the crossings of one instance share.
pub struct Gate {
    /// 0: nobody is inside. n > 0: guest code runs, n calls deep. -n: a host function runs, called by the guest that
    /// is n calls deep.
    depth: Cell<i32>,
    /// The Python thread that is inside.
    thread: Cell<*mut ffi::PyThreadState>,
    closed: Cell<bool>,
    /// What a host function raised, on its way out through the guest.
    raised: RefCell<Option<PyErr>>,
    /// To be called when the guest's memory can be used.
    pub ready: RefCell<Option<Py<PyAny>>>,
    /// Makes the exception for a trap.
    pub failed: Py<PyAny>,
    watch: Option<Arc<Watch>>,
    pub config: VMConfig,
}

impl Gate {
    pub fn new(failed: Py<PyAny>, watch: Option<Arc<Watch>>) -> Self {
        Self {
            depth: Cell::new(0),
            thread: Cell::new(null_mut()),
            closed: Cell::new(false),
            raised: RefCell::new(None),
            ready: RefCell::new(None),
            failed,
            watch,
            config: VMConfig { wasm_stack_size: None },
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

    /// Run guest code.
    #[inline]
    pub fn inside<T>(&self, run: impl FnOnce() -> T) -> PyResult<T> {
        let thread = unsafe { ffi::PyThreadState_Get() };
        let depth = self.depth.get();
        self.refuse_others(thread)?;
        if self.closed.get() {
            return Err(closed());
        }
        if depth <= -MOST_NESTED {
            return Err(nested_too_deeply());
        }
        let watch = self.watch.as_ref();
        if depth == 0 {
            self.thread.set(thread);
            signals::bring_forward();
            watch.inspect(|watch| watch.enter());
        }
        watch.inspect(|watch| watch.rest(false));
        self.depth.set(1 - depth);
        let before = deadline::note(watch.map_or(null(), Arc::as_ptr));
        let gave = unsafe {
            ffi::PyEval_SaveThread();
            let gave = catch_unwind(AssertUnwindSafe(run));
            watch.inspect(|watch| if depth == 0 { watch.leave() } else { watch.rest(true) });
            ffi::PyEval_RestoreThread(thread);
            gave
        };
        deadline::note(before);
        self.depth.set(depth);
        gave.map_err(|_| PyRuntimeError::new_err("Wasmer failed, see what it wrote to stderr"))
    }

    /// The exception for a call that ended with `trap`.
    #[cold]
    pub fn failure(&self, py: Python<'_>, trap: &Trap) -> PyErr {
        if let Some(error) = self.raised.take() {
            return error;
        }
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
    fn is_late(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.is_late())
    }

    /// Calls nest within one thread. Nobody else may enter meanwhile.
    #[inline]
    fn refuse_others(&self, thread: *mut ffi::PyThreadState) -> PyResult<()> {
        let depth = self.depth.get();
        if depth > 0 || depth < 0 && self.thread.get() != thread { Err(another_thread()) } else { Ok(()) }
    }
}

/// An exported function, kept by the Python function that calls it.
#[pyclass(frozen)]
pub struct GuestFunction {
    instance: Py<Instance>,
    gate: *const Gate,
    context: VMFunctionContext,
    trampoline: VMTrampoline,
    body: *const VMFunctionBody,
    params: Box<[Type]>,
    result: Option<Type>,
}

// SAFETY: what it points to belongs to `instance`, and is used with the GIL held or by the thread that is inside.
unsafe impl Send for GuestFunction {}
unsafe impl Sync for GuestFunction {}

struct Definition(UnsafeCell<ffi::PyMethodDef>);

// SAFETY: Python only reads it.
unsafe impl Sync for Definition {}

static DEFINITION: Definition = Definition(UnsafeCell::new(ffi::PyMethodDef {
    ml_name: c"guest".as_ptr(),
    ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: call_guest },
    ml_flags: ffi::METH_FASTCALL,
    ml_doc: null(),
}));

#[pymethods]
impl GuestFunction {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.instance)
    }
}

impl GuestFunction {
    /// A Python function that calls `function`, an export of `instance`.
    pub fn make<'py>(instance: &Bound<'py, Instance>, function: &VMFunction) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: it lives as long as the store does.
        let place = unsafe { function.anyfunc.as_ptr().as_ref() };
        let guest = Self {
            instance: instance.clone().unbind(),
            gate: instance.get().gate(),
            context: place.vmctx,
            trampoline: place.call_trampoline,
            body: place.func_ptr,
            params: function.signature.params().into(),
            result: function.signature.results().first().copied(),
        };
        let guest = Bound::new(instance.py(), guest)?;
        // SAFETY: the definition is static, and what is made keeps `guest`.
        unsafe {
            let made = ffi::PyCFunction_NewEx(DEFINITION.0.get(), guest.as_ptr(), null_mut());
            Bound::from_owned_ptr_or_err(instance.py(), made)
        }
    }

    #[inline]
    unsafe fn call(&self, arguments: &[*mut PyObject]) -> PyResult<*mut PyObject> {
        unsafe {
            let py = Python::assume_attached();
            let wanted = self.params.len();
            if arguments.len() != wanted {
                return Err(wrong_number(wanted, arguments.len()));
            }
            let (mut few, mut many) = (MaybeUninit::<[RawValue; FEW]>::uninit(), Vec::new());
            let slots = if wanted <= FEW {
                few.as_mut_ptr().cast()
            } else {
                many.resize(wanted, RawValue { u64: 0 });
                many.as_mut_ptr()
            };
            for (index, (&argument, &kind)) in arguments.iter().zip(&self.params).enumerate() {
                write(slots.add(index), kind, argument)?;
            }
            let gate = &*self.gate;
            let (context, trampoline, body) = (self.context, self.trampoline, self.body);
            let ended =
                gate.inside(|| wasmer_call_trampoline(None, &gate.config, context, trampoline, body, slots.cast()))?;
            let answer = match ended {
                Ok(()) => self.result.map_or_else(|| ffi::Py_NewRef(ffi::Py_None()), |kind| read(slots, kind)),
                Err(trap) => return Err(self.ended(py, trap)),
            };
            if gate.is_left() {
                self.instance.get().free();
            }
            if answer.is_null() { Err(PyErr::fetch(py)) } else { Ok(answer) }
        }
    }

    #[cold]
    fn ended(&self, py: Python<'_>, trap: Trap) -> PyErr {
        let gate = unsafe { &*self.gate };
        let error = gate.failure(py, &trap);
        if gate.is_left() {
            self.instance.get().free();
        }
        error
    }
}

unsafe extern "C" fn call_guest(
    this: *mut PyObject,
    arguments: *mut *mut PyObject,
    count: ffi::Py_ssize_t,
) -> *mut PyObject {
    unsafe {
        let py = Python::assume_attached();
        let arguments = if count == 0 { &[] } else { std::slice::from_raw_parts(arguments, count as usize) };
        let guest = Borrowed::from_ptr(py, this);
        match guest.cast_unchecked::<GuestFunction>().get().call(arguments) {
            Ok(answer) => answer,
            Err(error) => {
                error.restore(py);
                null_mut()
            }
        }
    }
}

/// The way into a host function that leaves Python out, see the engine protocol.
type Entry = unsafe extern "C" fn(*mut c_void, *const u64, usize) -> i64;

/// Words from one slot to the next.
const STRIDE: usize = size_of::<RawValue>() / size_of::<u64>();

/// A function and its first argument.
pub struct NativeEntry {
    function: Entry,
    itself: *mut c_void,
}

impl NativeEntry {
    /// What `handler` offers, if it does and `signature` allows it.
    pub fn of(handler: &Bound<'_, PyAny>, signature: &FunctionType) -> PyResult<Option<Self>> {
        let fits = signature.params().iter().all(|kind| matches!(kind, Type::I32 | Type::I64));
        if !fits || !matches!(signature.results(), [] | [Type::I32]) {
            return Ok(None);
        }
        let Some(offered) = handler.getattr_opt("native_entry")? else { return Ok(None) };
        let (function, itself) = offered.extract::<(usize, usize)>()?;
        // SAFETY: the protocol says that it is the address of such a function.
        let function = unsafe { std::mem::transmute::<usize, Entry>(function) };
        Ok(Some(Self { function, itself: itself as *mut c_void }))
    }
}

/// A Python callable that a guest imports. What it points to belongs to the instance.
struct Host {
    handler: *mut PyObject,
    entry: Option<NativeEntry>,
    gate: *const Gate,
    params: Box<[Type]>,
    result: Option<Type>,
}

/// Why a host function ends the call of its guest, whose stack it is about to drop.
#[derive(Debug)]
struct Raised;

/// The same, with the guest's frames: Wasmer finds none, since it cannot see through the code that calls us.
#[derive(Debug)]
struct Late(Vec<FrameInfo>);

impl fmt::Display for Raised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a host function raised an exception")
    }
}

impl fmt::Display for Late {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a host function returned too late")
    }
}

impl Error for Raised {}
impl Error for Late {}

/// A host function of the type `signature` that calls `handler`. Both pointers have to outlive `objects`.
pub fn host_function(
    objects: &mut StoreObjects,
    signature: &FunctionType,
    hash: VMSignatureHash,
    handler: *mut PyObject,
    entry: Option<NativeEntry>,
    gate: *const Gate,
) -> VMExtern {
    let (params, result) = (signature.params().into(), signature.results().first().copied());
    let host = Host { handler, entry, gate, params, result };
    let host = Box::new(VMDynamicFunctionContext { address: call_host as *const VMFunctionBody, ctx: host });
    let place = VMCallerCheckedAnyfunc {
        func_ptr: null(), // resolving the imports sets it
        type_signature_hash: hash,
        vmctx: VMFunctionContext { host_env: &raw const *host as *mut c_void },
        call_trampoline: call_host_directly,
    };
    let function = VMFunction {
        anyfunc: MaybeInstanceOwned::Host(Box::new(UnsafeCell::new(place))),
        signature: signature.clone(),
        kind: VMFunctionKind::Dynamic,
        host_data: host,
    };
    VMExtern::Function(InternalStoreHandle::new(objects, function))
}

/// What a guest calls. Where its frame is can only be told before anything else is done.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn call_host(host: *const VMDynamicFunctionContext<Host>, slots: *mut RawValue) {
    naked_asm!("mov rdx, rbp", "jmp {}", sym call_host_from)
}

#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn call_host(host: *const VMDynamicFunctionContext<Host>, slots: *mut RawValue) {
    naked_asm!("mov x2, x29", "b {}", sym call_host_from)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe extern "C" fn call_host(host: *const VMDynamicFunctionContext<Host>, slots: *mut RawValue) {
    unsafe { call_host_from(host, slots, null()) }
}

/// This is on the guest's stack, which may be short, and which a trap drops: so nothing is done on it but this.
unsafe extern "C" fn call_host_from(
    host: *const VMDynamicFunctionContext<Host>,
    slots: *mut RawValue,
    frame: *const StackFrame,
) {
    unsafe {
        if let Err(error) = on_host_stack(|| (*host).ctx.call(slots, frame)) {
            raise_user_trap(error)
        }
    }
}

/// How each function of a guest begins its frame.
#[repr(C)]
struct StackFrame {
    caller: *const Self,
    return_to: usize,
}

/// The frames of the guest whose trampoline has the stack frame `frame`.
unsafe fn trace(mut frame: *const StackFrame) -> Vec<FrameInfo> {
    let mut frames = Vec::new();
    let Ok(known) = FRAME_INFO.read() else { return frames };
    // The chain is sound as long as it leads from guest code to guest code.
    while let Some(stack_frame) = unsafe { frame.as_ref() }
        && let Some(info) = known.lookup_frame_info(stack_frame.return_to - 1)
    {
        frames.push(info);
        frame = stack_frame.caller;
    }
    frames
}

/// The same for an import that is exported again.
unsafe extern "C" fn call_host_directly(context: *mut VMContext, _: *const VMFunctionBody, slots: *mut RawValue) {
    unsafe { call_host(context.cast_const().cast(), slots) };
}

impl Host {
    #[inline]
    unsafe fn call(&self, slots: *mut RawValue, frame: *const StackFrame) -> Result<(), Box<dyn Error + Send + Sync>> {
        unsafe {
            let gate = &*self.gate;
            let depth = gate.depth.get();
            let watch = gate.watch.as_ref();
            watch.inspect(|watch| watch.rest(true));
            ffi::PyEval_RestoreThread(gate.thread.get());
            gate.depth.set(-depth);
            let called = self.call_handler(Python::assume_attached(), slots);
            let raised = called.map_err(|error| gate.raised.replace(Some(error))).is_err();
            gate.depth.set(depth);
            ffi::PyEval_SaveThread();
            watch.inspect(|watch| watch.rest(false));
            if raised {
                Err(Box::new(Raised))
            } else if gate.is_late() {
                Err(Box::new(Late(trace(frame))))
            } else {
                Ok(())
            }
        }
    }

    #[inline]
    unsafe fn call_handler(&self, py: Python<'_>, slots: *mut RawValue) -> PyResult<()> {
        unsafe {
            (*self.gate).be_ready(py)?;
            if let Some(entry) = &self.entry {
                let answer = (entry.function)(entry.itself, slots.cast_const().cast(), STRIDE);
                if answer < 0 {
                    return Err(PyErr::fetch(py));
                }
                if self.result.is_some() {
                    (*slots).u64 = answer as u64;
                }
                return Ok(());
            }
            let arguments = ffi::PyTuple_New(self.params.len() as ffi::Py_ssize_t);
            if arguments.is_null() {
                return Err(PyErr::fetch(py));
            }
            for (index, &kind) in self.params.iter().enumerate() {
                ffi::PyTuple_SetItem(arguments, index as ffi::Py_ssize_t, read(slots.add(index), kind));
            }
            let answer = ffi::PyObject_Call(self.handler, arguments, null_mut());
            ffi::Py_DecRef(arguments);
            if answer.is_null() {
                return Err(PyErr::fetch(py));
            }
            let written = self.result.map_or(Ok(()), |kind| write(slots, kind, answer));
            ffi::Py_DecRef(answer);
            written
        }
    }
}

/// The number in a slot, as a new reference, or null with an exception set.
#[inline]
unsafe fn read(slot: *const RawValue, kind: Type) -> *mut PyObject {
    unsafe {
        match kind {
            Type::I32 => ffi::PyLong_FromUnsignedLongLong((*slot).u32.into()),
            Type::I64 => ffi::PyLong_FromUnsignedLongLong((*slot).u64),
            Type::F32 => ffi::PyFloat_FromDouble((*slot).f32.into()),
            _ => ffi::PyFloat_FromDouble((*slot).f64),
        }
    }
}

/// Put a number into a slot. An i32 is what its lower half shows.
#[inline]
unsafe fn write(slot: *mut RawValue, kind: Type, number: *mut PyObject) -> PyResult<()> {
    unsafe {
        let suspicious = match kind {
            Type::I32 | Type::I64 => {
                let number = ffi::PyLong_AsUnsignedLongLongMask(number);
                (*slot).u64 = number;
                number == u64::MAX
            }
            kind => {
                let number = ffi::PyFloat_AsDouble(number);
                if kind == Type::F32 {
                    (*slot).f32 = number as f32
                } else {
                    (*slot).f64 = number
                }
                number == -1.0
            }
        };
        if suspicious && !ffi::PyErr_Occurred().is_null() {
            return Err(PyErr::fetch(Python::assume_attached()));
        }
        Ok(())
    }
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
    PyRecursionError::new_err(format!("host and guest call each other more than {MOST_NESTED} deep"))
}

#[cold]
fn wrong_number(wanted: usize, given: usize) -> PyErr {
    PyTypeError::new_err(format!("the guest's function takes {wanted} arguments, {given} were given"))
}
