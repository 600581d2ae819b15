/* A function of the guest, for calls from C: without Python's numbers if the engine offers `native_call`. */
#include "native.h"

int callback_set(Callback *self, PyObject *function) {
    void *found = NULL;
    Py_XINCREF(function); /* its owner may release it while its attribute is read */
    if (function && proxywasm_find(function, "native_call", PROXYWASM_CALLBACK, &found)) {
        Py_DECREF(function);
        return -1;
    }
    self->native = found ? *(Proxywasm_callback *)found : (Proxywasm_callback){NULL, NULL};
    Py_XSETREF(self->function, function);
    return 0;
}

int callback_call(const Callback *self, uint64_t *slots, size_t count) {
    if (self->native.call) return self->native.call(self->native.self, slots, count);
    PyObject *args[MAX_PARAMS] = {NULL}, *result = NULL;
    size_t made = 0;
    while (made < count && (args[made] = PyLong_FromUnsignedLongLong(slots[made]))) made++;
    if (made == count) result = PyObject_Vectorcall(self->function, args, count, NULL);
    while (made) Py_DECREF(args[--made]);
    if (!result) return -1;
    slots[0] = result == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(result);
    Py_DECREF(result);
    return slots[0] == (uint64_t)-1 && PyErr_Occurred() ? -1 : 0;
}
