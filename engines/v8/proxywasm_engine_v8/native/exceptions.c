/* Exceptions as objects, and those that have to wait until the outermost call has ended. */
#include "native.h"

/* The exception that is set, and no longer set. */
static PyObject *take_exception(void) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

void set_exception(PyObject *error) {
    if (!error) return;
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

void keep_exception(Crossings *self) {
    PyObject *error = PyErr_Occurred() ? take_exception() : NULL;
    PyObject *told = error ? PyObject_CallOneArg(self->raised, error) : NULL;
    if (!told) PyErr_Clear();
    Py_XDECREF(error);
    Py_XDECREF(told);
}
