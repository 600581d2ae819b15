//! Guest functions as Python callables and as C functions. Everything that a call needs is resolved in advance.

use std::ffi::{CStr, c_int, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::ptr::null_mut;

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi::{self, Py_ssize_t, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use wasmer_types::{RawValue, Type};
use wasmer_vm::VMFunction;

use crate::instance::Instance;
use crate::reentrancy::CallState;
use crate::switch::Function;
use crate::values::{FEW, ROOM, Vectorcall, is_whole, read, write};

/// An exported function.
struct GuestFunction {
    instance: Py<Instance>,
    state: *const CallState,
    function: Function,
    params: Box<[Type]>,
    result: Option<Type>,
}

impl GuestFunction {
    /// Call `run` with slots for the values of a call.
    #[inline]
    fn with_slots<T>(&self, given: usize, run: impl FnOnce(*mut RawValue) -> PyResult<T>) -> PyResult<T> {
        let wanted = self.params.len();
        if given != wanted {
            return Err(wrong_number(wanted, given));
        }
        if wanted <= FEW {
            run(MaybeUninit::<[RawValue; FEW]>::uninit().as_mut_ptr().cast())
        } else {
            run(vec![RawValue { u64: 0 }; wanted].as_mut_ptr())
        }
    }

    /// Call the guest with arguments in `slots`. The first slot receives the result.
    #[inline]
    unsafe fn run(&self, slots: *mut RawValue) -> PyResult<()> {
        let state = unsafe { &*self.state };
        let called = unsafe { state.call(&self.function, slots) };
        if state.is_left() {
            self.instance.get().free();
        }
        called
    }

    #[inline]
    unsafe fn call(&self, arguments: &[*mut PyObject]) -> PyResult<*mut PyObject> {
        self.with_slots(arguments.len(), |slots| unsafe {
            for (index, (&argument, &kind)) in arguments.iter().zip(&self.params).enumerate() {
                write(slots.add(index), kind, argument)?;
            }
            self.run(slots)?;
            Ok(self.result.map_or_else(|| ffi::Py_NewRef(ffi::Py_None()), |kind| read(slots, kind)))
        })
    }

    #[inline]
    unsafe fn call_natively(&self, words: *mut u64, count: usize) -> PyResult<()> {
        self.with_slots(count, |slots| unsafe {
            for index in 0..count {
                (*slots.add(index)).u64 = *words.add(index);
            }
            self.run(slots)?;
            *words = match self.result {
                None => 0,
                Some(Type::I32) => (*slots).u32.into(),
                Some(_) => (*slots).u64,
            };
            Ok(())
        })
    }
}

/// `native_call`, see the engine protocol.
unsafe extern "C" fn native_call(guest: *mut c_void, words: *mut u64, count: usize) -> c_int {
    match unsafe { held(guest.cast(), |function| function.call_natively(words, count)) } {
        Ok(()) => 0,
        Err(error) => {
            error.restore(unsafe { Python::assume_attached() });
            -1
        }
    }
}

#[cold]
fn wrong_number(wanted: usize, given: usize) -> PyErr {
    PyTypeError::new_err(format!("expected {wanted} arguments, got {given}"))
}

// -- The type, with a feature that PyO3's classes do not have: a call without a tuple of arguments -------------------

/// `Proxywasm_callback` of `proxywasm_host.h`: calls a guest function without Python.
#[repr(C)]
struct NativeCall {
    function: unsafe extern "C" fn(*mut c_void, *mut u64, usize) -> c_int,
    itself: *mut c_void,
}

const _: () = assert!(offset_of!(NativeCall, itself) == 8 && size_of::<NativeCall>() == 16);

/// The name of its capsule: `PROXYWASM_CALLBACK`.
const CALLBACK: &CStr = c"proxywasm_host.callback.1";

#[repr(C)]
struct Guest {
    head: PyObject,
    vectorcall: Vectorcall,
    native: NativeCall,
    function: GuestFunction,
}

const T_PYSSIZET: c_int = 19;
const READONLY: c_int = 1;
const HAVE_VECTORCALL: u32 = 1 << 11;

/// A Python callable that calls `function`, an export of `instance`.
pub fn guest_function<'py>(instance: &Bound<'py, Instance>, function: &VMFunction) -> PyResult<Bound<'py, PyAny>> {
    let made = GuestFunction {
        instance: instance.clone().unbind(),
        state: instance.get().state(),
        function: Function::of(function),
        params: function.signature.params().into(),
        result: function.signature.results().first().copied(),
    };
    let py = instance.py();
    let kind = kind(py)?;
    // SAFETY: the object is not used before it is complete.
    unsafe {
        let guest = ffi::PyType_GenericAlloc(kind.as_ptr().cast(), 0);
        if guest.is_null() {
            return Err(PyErr::fetch(py));
        }
        (&raw mut (*guest.cast::<Guest>()).vectorcall).write(call);
        (&raw mut (*guest.cast::<Guest>()).native).write(NativeCall { function: native_call, itself: guest.cast() });
        (&raw mut (*guest.cast::<Guest>()).function).write(made);
        Ok(Bound::from_owned_ptr(py, guest))
    }
}

fn kind(py: Python<'_>) -> PyResult<&Py<PyAny>> {
    static KIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    KIND.get_or_try_init(py, || {
        let mut members = [
            ffi::PyMemberDef {
                name: c"__vectorcalloffset__".as_ptr(),
                type_code: T_PYSSIZET,
                offset: offset_of!(Guest, vectorcall) as Py_ssize_t,
                flags: READONLY,
                doc: std::ptr::null(),
            },
            unsafe { std::mem::zeroed() },
        ];
        let properties = [
            ffi::PyGetSetDef { name: c"native_call".as_ptr(), get: Some(get_native_call), ..Default::default() },
            ffi::PyGetSetDef::default(),
        ];
        let slot = |slot, function| ffi::PyType_Slot { slot, pfunc: function };
        let mut slots = [
            slot(ffi::Py_tp_dealloc, free as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse as *mut c_void),
            slot(ffi::Py_tp_call, call_with_tuple as *mut c_void),
            slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
            slot(ffi::Py_tp_getset, Box::leak(Box::new(properties)).as_mut_ptr().cast()),
            slot(0, null_mut()),
        ];
        let mut spec = ffi::PyType_Spec {
            name: c"proxywasm_engine_wasmer._native.GuestFunction".as_ptr(),
            basicsize: size_of::<Guest>() as c_int,
            itemsize: 0,
            flags: (ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_HAVE_GC) as u32 | HAVE_VECTORCALL,
            slots: slots.as_mut_ptr(),
        };
        unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&mut spec)).map(Bound::unbind) }
    })
}

unsafe fn function<'a>(guest: *mut PyObject) -> &'a GuestFunction {
    unsafe { &(*guest.cast::<Guest>()).function }
}

/// Call the function with a reference to it, because the call may drop all others.
#[inline]
unsafe fn held<T>(guest: *mut PyObject, call: impl FnOnce(&GuestFunction) -> T) -> T {
    unsafe {
        ffi::Py_IncRef(guest);
        let called = call(function(guest));
        ffi::Py_DecRef(guest);
        called
    }
}

unsafe fn answered(called: PyResult<*mut PyObject>) -> *mut PyObject {
    called.unwrap_or_else(|error| {
        error.restore(unsafe { Python::assume_attached() });
        null_mut()
    })
}

unsafe extern "C" fn call(
    guest: *mut PyObject,
    arguments: *const *mut PyObject,
    count: usize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    unsafe {
        if !keywords.is_null() && ffi::PyTuple_Size(keywords) != 0 {
            return answered(Err(no_keywords()));
        }
        let count = count & !ROOM;
        let arguments = if count == 0 { &[] } else { std::slice::from_raw_parts(arguments, count) };
        answered(held(guest, |function| function.call(arguments)))
    }
}

unsafe extern "C" fn call_with_tuple(
    guest: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    unsafe {
        if !keywords.is_null() && ffi::PyDict_Size(keywords) != 0 {
            return answered(Err(no_keywords()));
        }
        let count = ffi::PyTuple_Size(arguments);
        let arguments: Vec<_> = (0..count).map(|index| ffi::PyTuple_GetItem(arguments, index)).collect();
        answered(held(guest, |function| function.call(&arguments)))
    }
}

#[cold]
fn no_keywords() -> PyErr {
    PyTypeError::new_err("the guest's function takes no keyword arguments")
}

unsafe extern "C" fn get_native_call(guest: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    unsafe {
        let function = function(guest);
        if !function.params.iter().copied().chain(function.result).all(is_whole) {
            return answered(Err(PyAttributeError::new_err("native_call: a float can only cross from Python")));
        }
        ffi::PyCapsule_New((&raw mut (*guest.cast::<Guest>()).native).cast(), CALLBACK.as_ptr(), None)
    }
}

unsafe extern "C" fn traverse(guest: *mut PyObject, visit: ffi::visitproc, argument: *mut c_void) -> c_int {
    unsafe {
        match visit(ffi::Py_TYPE(guest).cast(), argument) {
            0 => visit(function(guest).instance.as_ptr(), argument),
            stopped => stopped,
        }
    }
}

unsafe extern "C" fn free(guest: *mut PyObject) {
    unsafe {
        ffi::PyObject_GC_UnTrack(guest.cast());
        let GuestFunction { instance, params, .. } = (&raw const (*guest.cast::<Guest>()).function).read();
        drop(params);
        ffi::Py_DecRef(instance.into_ptr()); // PyO3 would defer it, because it does not know that the GIL is held
        let kind = ffi::Py_TYPE(guest);
        ffi::PyObject_GC_Del(guest.cast());
        ffi::Py_DecRef(kind.cast());
    }
}
