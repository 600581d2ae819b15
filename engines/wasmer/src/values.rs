//! Converts between Python's numbers and the slots of 16 bytes in which Wasmer passes values.

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use wasmer_types::{RawValue, Type};

/// Up to this number, values need no allocation.
pub const FEW: usize = 16;
/// A call without a tuple of arguments: callee, arguments, number of arguments, names of keyword arguments.
pub type Vectorcall = unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;
/// A flag in the number of arguments: there is space before the first argument.
pub const ROOM: usize = 1 << (usize::BITS - 1);
/// Words from one slot to the next.
pub const STRIDE: usize = size_of::<RawValue>() / size_of::<u64>();

/// Whether the type is an integer.
pub fn is_whole(kind: Type) -> bool {
    matches!(kind, Type::I32 | Type::I64)
}

/// The number in a slot, as a new reference, or null with an exception set.
#[inline]
pub unsafe fn read(slot: *const RawValue, kind: Type) -> *mut PyObject {
    unsafe {
        match kind {
            Type::I32 => ffi::PyLong_FromUnsignedLongLong((*slot).u32.into()),
            Type::I64 => ffi::PyLong_FromUnsignedLongLong((*slot).u64),
            Type::F32 => ffi::PyFloat_FromDouble((*slot).f32.into()),
            _ => ffi::PyFloat_FromDouble((*slot).f64),
        }
    }
}

/// Write a number to a slot. An i32 takes its lower half.
#[inline]
pub unsafe fn write(slot: *mut RawValue, kind: Type, number: *mut PyObject) -> PyResult<()> {
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
