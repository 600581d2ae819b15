//! Host functions: Python callables that a guest imports.

use std::cell::{Cell, UnsafeCell};
use std::error::Error;
use std::ffi::{CStr, c_void};
use std::fmt;
use std::mem::offset_of;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use wasmer_compiler::FRAME_INFO;
use wasmer_types::{FrameInfo, FunctionType, RawValue, Type};
use wasmer_vm::{
    InternalStoreHandle, MaybeInstanceOwned, StoreObjects, Trap, VMCallerCheckedAnyfunc, VMDynamicFunctionContext,
    VMExtern, VMFunction, VMFunctionBody, VMFunctionContext, VMFunctionKind, VMSignatureHash,
};

use crate::reentrancy::CallState;
use crate::stack::{RAISED, RETURNED, TRAPPED};
use crate::switch::{Frame, call_host, call_host_directly};
use crate::values::{FEW, ROOM, STRIDE, Vectorcall, is_whole, read, write};

/// `Proxywasm_hostcall` of `proxywasm_host.h`: calls a host function without Python.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NativeEntry {
    function: unsafe extern "C" fn(*mut c_void, *const u64, usize) -> i64,
    itself: *mut c_void,
}

const _: () = assert!(offset_of!(NativeEntry, itself) == 8 && size_of::<NativeEntry>() == 16);

/// The name of its capsule: `PROXYWASM_HOSTCALL`. Other versions are ignored.
const HOSTCALL: &CStr = c"proxywasm_host.hostcall.1";

impl NativeEntry {
    /// The native entry of `handler`, if it has one and `signature` allows it.
    pub fn of(handler: &Bound<'_, PyAny>, signature: &FunctionType) -> PyResult<Option<Self>> {
        let fits = signature.params().iter().copied().all(is_whole);
        if !fits || !matches!(signature.results(), [] | [Type::I32]) {
            return Ok(None);
        }
        let Some(offered) = handler.getattr_opt("native_entry")? else { return Ok(None) };
        // SAFETY: a capsule of this name points to one, as long as `handler` exists.
        unsafe {
            if ffi::PyCapsule_IsValid(offered.as_ptr(), HOSTCALL.as_ptr()) == 0 {
                return Ok(None);
            }
            Ok(Some(*ffi::PyCapsule_GetPointer(offered.as_ptr(), HOSTCALL.as_ptr()).cast::<Self>()))
        }
    }
}

/// A Python callable that a guest imports. The instance owns everything that it points to.
#[repr(C)]
pub struct Host {
    /// The cell in the state with the frame of the guest's call, for `call_host`.
    frame: *const Cell<*const Frame>,
    handler: *mut PyObject,
    vectorcall: Option<Vectorcall>,
    entry: Option<NativeEntry>,
    state: *const CallState,
    params: Box<[Type]>,
    result: Option<Type>,
}

/// The error of a host function that returned after the deadline, with the guest's frames: Wasmer cannot find them,
/// because it cannot unwind the caller of this code.
#[derive(Debug)]
pub struct Late(pub Vec<FrameInfo>);

impl fmt::Display for Late {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a host function returned too late")
    }
}

impl Error for Late {}

/// `PyObject_Vectorcall`, which calls without a tuple. It belongs to the stable ABI since CPython 3.12, so older
/// versions may not have it.
fn vectorcall() -> Option<Vectorcall> {
    static FOUND: LazyLock<Option<Vectorcall>> = LazyLock::new(|| unsafe {
        let function = libc::dlsym(libc::RTLD_DEFAULT, c"PyObject_Vectorcall".as_ptr());
        // SAFETY: this is its type.
        (!function.is_null()).then(|| std::mem::transmute::<*mut c_void, Vectorcall>(function))
    });
    *FOUND
}

/// A host function of the type `signature` that calls `handler`. Both pointers must outlive `objects`.
pub fn host_function(
    objects: &mut StoreObjects,
    signature: &FunctionType,
    hash: VMSignatureHash,
    handler: *mut PyObject,
    entry: Option<NativeEntry>,
    state: *const CallState,
) -> VMExtern {
    let (params, result) = (signature.params().into(), signature.results().first().copied());
    let frame = unsafe { &raw const (*state).frame };
    let host = Host { frame, handler, vectorcall: vectorcall(), entry, state, params, result };
    let host = Box::new(VMDynamicFunctionContext { address: call_host as *const VMFunctionBody, ctx: host });
    let place = VMCallerCheckedAnyfunc {
        func_ptr: null(), // set when the imports are resolved
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

/// Called by `call_host`. Returns how the guest's call ends, or `RETURNED` if it continues.
pub unsafe extern "C" fn answer(
    host: *const VMDynamicFunctionContext<Host>,
    slots: *mut RawValue,
    frame: *const StackFrame,
) -> u32 {
    unsafe {
        let host = &(*host).ctx;
        let state = &*host.state;
        if state.outside(|py| host.call(py, slots)) {
            RAISED
        } else if state.is_late() {
            state.note(Trap::user(Box::new(Late(trace(frame)))));
            TRAPPED
        } else {
            RETURNED
        }
    }
}

/// The beginning of the stack frame of each guest function.
#[repr(C)]
pub struct StackFrame {
    caller: *const Self,
    return_to: usize,
}

/// The frames of the guest, starting from the stack frame `frame` of its trampoline.
unsafe fn trace(mut frame: *const StackFrame) -> Vec<FrameInfo> {
    let mut frames = Vec::new();
    let Ok(known) = FRAME_INFO.read() else { return frames };
    // The chain is valid as long as it leads from guest code to guest code.
    while let Some(stack_frame) = unsafe { frame.as_ref() }
        && let Some(info) = known.lookup_frame_info(stack_frame.return_to - 1)
    {
        frames.push(info);
        frame = stack_frame.caller;
    }
    frames
}

impl Host {
    #[inline]
    unsafe fn call(&self, py: Python<'_>, slots: *mut RawValue) -> PyResult<()> {
        unsafe {
            (*self.state).be_ready(py)?;
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
            let answer = match self.vectorcall {
                Some(vectorcall) if self.params.len() <= FEW => self.call_with_few(vectorcall, slots),
                _ => self.call_with_tuple(slots),
            };
            if answer.is_null() {
                return Err(PyErr::fetch(py));
            }
            let written = self.result.map_or(Ok(()), |kind| write(slots, kind, answer));
            ffi::Py_DecRef(answer);
            written
        }
    }

    unsafe fn call_with_few(&self, vectorcall: Vectorcall, slots: *mut RawValue) -> *mut PyObject {
        unsafe {
            let (mut arguments, count) = ([null_mut(); 1 + FEW], self.params.len()); // the callee may use the first
            for (index, &kind) in self.params.iter().enumerate() {
                arguments[1 + index] = read(slots.add(index), kind);
            }
            let answer = match arguments[1..=count].iter().any(|argument| argument.is_null()) {
                true => null_mut(),
                false => vectorcall(self.handler, arguments.as_mut_ptr().add(1), count | ROOM, null_mut()),
            };
            arguments[1..=count].iter().for_each(|&argument| ffi::Py_DecRef(argument));
            answer
        }
    }

    unsafe fn call_with_tuple(&self, slots: *mut RawValue) -> *mut PyObject {
        unsafe {
            let arguments = ffi::PyTuple_New(self.params.len() as ffi::Py_ssize_t);
            if arguments.is_null() {
                return null_mut();
            }
            for (index, &kind) in self.params.iter().enumerate() {
                ffi::PyTuple_SetItem(arguments, index as ffi::Py_ssize_t, read(slots.add(index), kind));
            }
            let answer = ffi::PyObject_Call(self.handler, arguments, null_mut());
            ffi::Py_DecRef(arguments);
            answer
        }
    }
}
