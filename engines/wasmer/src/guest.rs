//! Guest functions as Python callables. All that a call needs is resolved beforehand.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

use pyo3::exceptions::PyTypeError;
use pyo3::ffi::{self, PyObject};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use wasmer_types::{RawValue, Type};
use wasmer_vm::{Trap, VMFunction, VMFunctionBody, VMFunctionContext, VMTrampoline, wasmer_call_trampoline};

use crate::gate::Gate;
use crate::instance::Instance;
use crate::values::{read, write};

/// Functions of more values take a moment longer.
const FEW: usize = 16;

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

#[cold]
fn wrong_number(wanted: usize, given: usize) -> PyErr {
    PyTypeError::new_err(format!("the guest's function takes {wanted} arguments, {given} were given"))
}
