/* Host functions as callbacks for Wasmtime. */
#include "native.h"

static const char HOST_RAISED[] = "a host function raised an exception";

/* Call the host function; the first slot receives the result. Returns 0, or -1 with an exception. */
static int call_host(const Host *host, Slot *slots) {
    if (host->native.call) {
        int64_t result = host->native.call(host->native.self, (const uint64_t *)slots, sizeof(Slot) / sizeof(uint64_t));
        if (result < 0) return -1;
        if (host->result) slots->i32 = (uint32_t)result;
        return 0;
    }
    const size_t stride = sizeof(Slot) / sizeof(uint64_t);
    PyObject *result = proxywasm_call(host->call, host->params, host->count, slots->words, stride);
    if (!result) return -1;
    int failed = host->result ? proxywasm_to_word(host->result, result, &slots->i64) : 0;
    Py_DECREF(result);
    return failed;
}

static int arrive(Trampolines *self, void *caller) {
    if (self->depth < -MAX_NESTED) {
        PyErr_Format(PyExc_RecursionError, "host and guest call each other more than %d deep", MAX_NESTED);
        return -1;
    }
    if (!self->starting) return 0;
    PyObject *starting = self->starting;
    self->starting = NULL;
    PyObject *done = PyObject_CallFunction(starting, "K", (unsigned long long)(uintptr_t)caller);
    Py_DECREF(starting);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

void *host_called(void *environment, void *caller, Slot *slots, size_t count) {
    Host *host = environment;
    Trampolines *self = host->trampolines;
    void *trap = NULL;
    retake(self);
    self->depth = -self->depth;
    if (arrive(self, caller) || call_host(host, slots)) {
        Py_XSETREF(self->error, proxywasm_take_exception());
        trap = api.trap_new(HOST_RAISED, sizeof HOST_RAISED - 1);
    }
    self->depth = -self->depth;
    if (!self->holds) let_go(self);
    return trap;
}

/* -- Making a host function ----------------------------------------------------------------------------------- */

/* Use the `native_entry` of a host function, if it has one and its type allows it. */
static int find_entry(Host *host) {
    void *entry;
    if (proxywasm_find(host->call, "native_entry", PROXYWASM_HOSTCALL, &entry)) return -1;
    if (!entry) return 0;
    if (!proxywasm_are_integers(host->params, host->count) || (host->result && host->result != 'i')) return 0;
    host->native = *(Proxywasm_hostcall *)entry;
    return 0;
}

PyObject *host_new(Trampolines *trampolines, PyObject *args) {
    const char *params, *result;
    Py_ssize_t count, results;
    PyObject *call;
    if (!PyArg_ParseTuple(args, "Os#s#", &call, &params, &count, &result, &results)) return NULL;
    if (!proxywasm_are_types(params, count) || !proxywasm_are_types(result, results) || results > 1)
        return PyErr_SetString(PyExc_ValueError, "an unknown kind"), NULL;
    Host *host = PyMem_Calloc(1, sizeof(Host) + (size_t)count);
    if (!host) return PyErr_NoMemory();
    host->next = trampolines->hosts, trampolines->hosts = host;
    host->trampolines = trampolines;
    host->call = Py_NewRef(call);
    host->result = *result;
    host->count = (size_t)count;
    memcpy(host->params, params, (size_t)count);
    if (find_entry(host)) return NULL;
    return PyLong_FromVoidPtr(host);
}
