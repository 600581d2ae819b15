/* The trampolines of one instance: how its guest is entered and left, and which objects they keep alive. */
#include "native.h"

static PyObject *is_enabled, *bring_forward, *check_stack; /* of faulthandler, signals.py and stack.py */
static bool was_enabled;
static _Thread_local bool stack_suffices;

/* Put Wasmtime's handlers in front again if faulthandler was enabled or disabled, see signals.py. */
static bool follow_faulthandler(void) {
    PyObject *answer = PyCFunction_GET_FUNCTION(is_enabled)(PyCFunction_GET_SELF(is_enabled), NULL);
    if (!answer) return false;
    bool enabled = answer == Py_True;
    Py_DECREF(answer);
    if (enabled == was_enabled) return true;
    PyObject *done = PyObject_CallNoArgs(bring_forward);
    if (!done) return false;
    Py_DECREF(done);
    was_enabled = enabled;
    return true;
}

/* Whether this thread's stack is large enough, see stack.py. Otherwise sets an exception. */
static bool has_stack(void) {
    if (stack_suffices) return true;
    PyObject *done = PyObject_CallNoArgs(check_stack);
    Py_XDECREF(done);
    return stack_suffices = done != NULL;
}

void trampolines_prepare(PyObject *enabled, PyObject *forward, PyObject *check) {
    Py_XSETREF(is_enabled, Py_NewRef(enabled));
    Py_XSETREF(bring_forward, Py_NewRef(forward));
    Py_XSETREF(check_stack, Py_NewRef(check));
}

static PyObject *another_thread(void) {
    PyErr_SetString(PyExc_RuntimeError,
                    "another thread is inside this instance: one instance serves one thread at a time");
    return NULL;
}

static bool is_elsewhere(const Trampolines *self) {
    return self->depth > 0 || (self->depth && self->owner_thread != PyThread_get_thread_ident());
}

bool trampolines_enter(Trampolines *self) {
    if (is_elsewhere(self)) return another_thread();
    if (self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the instance is closed");
        return false;
    }
    if (!self->depth) {
        if (!has_stack() || !follow_faulthandler()) return false;
        self->owner_thread = PyThread_get_thread_ident();
        if (self->ticker) ticker_used(self->ticker);
        if (self->allowed) self->until = now() + self->allowed;
    }
    self->depth = 1 - self->depth;
    if (!self->holds) let_go(self);
    return true;
}

int trampolines_leave(Trampolines *self, void *error, void *trap) {
    retake(self);
    self->depth = 1 - self->depth;
    if (!error && !trap) return 0;
    PyObject *raised = self->error;
    bool expired = self->expired;
    self->error = NULL;
    self->expired = false;
    if (raised) {
        if (error) api.error_delete(error);
        if (trap) api.trap_delete(trap);
    } else {
        raised = PyObject_CallFunction(self->failed, "KKi", (unsigned long long)(uintptr_t)error,
                                       (unsigned long long)(uintptr_t)trap, (int)expired);
        if (!raised) return -1;
    }
    proxywasm_set_exception(raised);
    return -1;
}

/* -- The type ------------------------------------------------------------------------------------------------- */

static int trampolines_init(Trampolines *self, PyObject *args, PyObject *keywords) {
    unsigned long long context;
    double seconds;
    PyObject *failed, *starting, *store, *ticker;
    if (self->context) return PyErr_SetString(PyExc_RuntimeError, "trampolines are made once"), -1;
    if (!PyArg_ParseTuple(args, "KOOOOd:Trampolines", &context, &store, &failed, &starting, &ticker, &seconds))
        return -1;
    if (ticker != Py_None && !PyObject_TypeCheck(ticker, &TickerType))
        return PyErr_SetString(PyExc_TypeError, "expected a Ticker or None"), -1;
    self->context = (void *)(uintptr_t)context;
    self->store = Py_NewRef(store);
    self->failed = Py_NewRef(failed);
    self->starting = Py_NewRef(starting);
    self->holds = ticker != Py_None;
    self->ticker = self->holds ? (Ticker *)Py_NewRef(ticker) : NULL;
    double most = 1e9; /* seconds: some thirty years */
    self->allowed = seconds < 0 ? 0 : (uint64_t)((seconds < most ? seconds : most) * 1e9) + 1;
    return 0;
}

/* instantiate(module, imports, count, instance): three addresses, and the number of imports */
static PyObject *trampolines_instantiate(Trampolines *self, PyObject *args) {
    unsigned long long module, imports, instance;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "KKnK", &module, &imports, &count, &instance) || !trampolines_enter(self)) return NULL;
    void *trap = NULL;
    void *error = api.instance_new(self->context, (void *)(uintptr_t)module, (void *)(uintptr_t)imports, (size_t)count,
                                   (void *)(uintptr_t)instance, &trap);
    if (trampolines_leave(self, error, trap)) return NULL;
    Py_CLEAR(self->starting);
    Py_RETURN_NONE;
}

/* shut(): make all guest functions refuse calls. Returns whether no call is active. */
static PyObject *trampolines_shut(Trampolines *self, PyObject *unused) {
    if (is_elsewhere(self)) return another_thread();
    self->closed = true;
    return PyBool_FromLong(!self->depth);
}

static int trampolines_traverse(Trampolines *self, visitproc visit, void *arg) {
    Py_VISIT(self->error);
    Py_VISIT(self->starting);
    Py_VISIT(self->failed);
    Py_VISIT(self->store);
    for (Host *host = self->hosts; host; host = host->next) Py_VISIT(host->call);
    return 0;
}

static int trampolines_clear(Trampolines *self) {
    self->closed = true;
    Py_CLEAR(self->error);
    Py_CLEAR(self->starting);
    Py_CLEAR(self->failed);
    Py_CLEAR(self->store);
    for (Host *host = self->hosts; host; host = host->next) {
        host->native.call = NULL;
        Py_CLEAR(host->call);
    }
    return 0;
}

static void trampolines_dealloc(Trampolines *self) {
    PyObject_GC_UnTrack(self);
    trampolines_clear(self);
    Py_CLEAR(self->ticker);
    for (Host *host = self->hosts, *next; host; host = next) {
        next = host->next;
        PyMem_Free(host);
    }
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef trampolines_methods[] = {
    {"guest", (PyCFunction)guest_new, METH_VARARGS, NULL},
    {"host", (PyCFunction)host_new, METH_VARARGS, NULL},
    {"instantiate", (PyCFunction)trampolines_instantiate, METH_VARARGS, NULL},
    {"shut", (PyCFunction)trampolines_shut, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject TrampolinesType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_wasmtime._native.Trampolines",
    .tp_basicsize = sizeof(Trampolines),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)trampolines_init,
    .tp_dealloc = (destructor)trampolines_dealloc,
    .tp_traverse = (traverseproc)trampolines_traverse,
    .tp_clear = (inquiry)trampolines_clear,
    .tp_methods = trampolines_methods,
};
