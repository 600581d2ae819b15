/* Stores exceptions until the outermost call has ended. */
#include "native.h"

void keep_exception(Trampolines *self) {
    PyObject *error = proxywasm_take_exception();
    PyObject *told = error ? PyObject_CallOneArg(self->raised, error) : NULL;
    if (!told) PyErr_Clear();
    Py_XDECREF(error);
    Py_XDECREF(told);
}
