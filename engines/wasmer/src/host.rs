//! Host functions: Python callables that a guest imports.

use std::arch::naked_asm;
use std::cell::UnsafeCell;
use std::error::Error;
use std::ffi::c_void;
use std::fmt;
use std::ptr::{null, null_mut};

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use wasmer_compiler::FRAME_INFO;
use wasmer_types::{FrameInfo, FunctionType, RawValue, Type};
use wasmer_vm::{
    InternalStoreHandle, MaybeInstanceOwned, StoreObjects, VMCallerCheckedAnyfunc, VMContext, VMDynamicFunctionContext,
    VMExtern, VMFunction, VMFunctionBody, VMFunctionContext, VMFunctionKind, VMSignatureHash, on_host_stack,
    raise_user_trap,
};

use crate::gate::Gate;
use crate::values::{STRIDE, is_whole, read, write};

/// The way into a host function that leaves Python out, see the engine protocol.
type Entry = unsafe extern "C" fn(*mut c_void, *const u64, usize) -> i64;

/// A function and its first argument.
pub struct NativeEntry {
    function: Entry,
    itself: *mut c_void,
}

impl NativeEntry {
    /// What `handler` offers, if it does and `signature` allows it.
    pub fn of(handler: &Bound<'_, PyAny>, signature: &FunctionType) -> PyResult<Option<Self>> {
        let fits = signature.params().iter().copied().all(is_whole);
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
pub struct Late(pub Vec<FrameInfo>);

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
        let gate = unsafe { &*self.gate };
        if gate.outside(|py| unsafe { self.call_handler(py, slots) }) {
            Err(Box::new(Raised))
        } else if gate.is_late() {
            Err(Box::new(Late(unsafe { trace(frame) })))
        } else {
            Ok(())
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
