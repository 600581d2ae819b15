/* A function of the guest as C code calls it: past Python's numbers where the engine offers `native_call`. */
#include "native.h"

static PyObject *native_call_name;

/* The addresses that a function offers, or zeros. 0, or -1 with an exception. */
static int offered(PyObject *function, unsigned long long *call, unsigned long long *itself) {
    PyObject *pair = PyObject_GetAttr(function, native_call_name);
    if (!pair) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
        PyErr_Clear();
        return 0;
    }
    if (!PyTuple_Check(pair)) PyErr_SetString(PyExc_TypeError, "native_call is two addresses");
    bool good = PyTuple_Check(pair) && PyArg_ParseTuple(pair, "KK", call, itself);
    Py_DECREF(pair);
    return good ? 0 : -1;
}

int callback_set(Callback *self, PyObject *function) {
    unsigned long long call = 0, itself = 0;
    Py_XINCREF(function); /* whoever has it may let go of it while it is asked */
    if (function && offered(function, &call, &itself)) {
        Py_DECREF(function);
        return -1;
    }
    self->call = (NativeCall)(uintptr_t)call, self->itself = (void *)(uintptr_t)itself;
    Py_XSETREF(self->function, function);
    return 0;
}

int callback_call(const Callback *self, uint64_t *slots, size_t count) {
    if (self->call) return self->call(self->itself, slots, count);
    PyObject *args[MOST_PARAMS] = {NULL}, *result = NULL;
    size_t made = 0;
    while (made < count && (args[made] = PyLong_FromUnsignedLongLong(slots[made]))) made++;
    if (made == count) result = PyObject_Vectorcall(self->function, args, count, NULL);
    while (made) Py_DECREF(args[--made]);
    if (!result) return -1;
    slots[0] = result == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(result);
    Py_DECREF(result);
    return slots[0] == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}

int callback_names(void) {
    static const Name NAMES[] = {{&native_call_name, "native_call"}};
    return INTERN(NAMES);
}
