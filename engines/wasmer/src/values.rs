//! Numbers of Python in slots of 16 bytes, as Wasmer passes them.

use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use wasmer_types::{RawValue, Type};

/// Functions of more values take a moment longer.
pub const FEW: usize = 16;
/// A call without a tuple of arguments: of callee, arguments, their number, and names of the last ones.
pub type Vectorcall = unsafe extern "C" fn(*mut PyObject, *const *mut PyObject, usize, *mut PyObject) -> *mut PyObject;
/// In the number of arguments: that there is room in front of them.
pub const ROOM: usize = 1 << (usize::BITS - 1);
/// Words from one slot to the next.
pub const STRIDE: usize = size_of::<RawValue>() / size_of::<u64>();

/// Whether numbers of this type are whole.
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

/// Put a number into a slot. An i32 is what its lower half shows.
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
