/* Enters the guest: the C form of VmBase in runtime/vm_base.py. */
#include "native.h"

static PyObject *ended_name, *run_deferred_name;

/* -- Callbacks -------------------------------------------------------------------------------------------------- */

static PyObject *known_names[KNOWN_CALLBACKS]; /* in the order of `Known_callback` */

static PyObject *get_dict(PyObject *self, void *at) { return Py_NewRef(*(PyObject **)((char *)self + (size_t)at)); }

static int set_dict(PyObject *self, PyObject *dict, void *at) {
    if (!dict || !PyDict_CheckExact(dict)) return PyErr_SetString(PyExc_TypeError, "a dict is wanted"), -1;
    Py_SETREF(*(PyObject **)((char *)self + (size_t)at), Py_NewRef(dict));
    return 0;
}

static int set_callbacks(VmBase *self, PyObject *callbacks, void *at) {
    if (set_dict((PyObject *)self, callbacks, at)) return -1;
    for (size_t i = 0; i < KNOWN_CALLBACKS; i++) {
        PyObject *function = PyDict_GetItemWithError(callbacks, known_names[i]);
        if ((!function && PyErr_Occurred()) || callback_set(&self->known[i], function)) return -1;
    }
    return 0;
}

/* -- Entering --------------------------------------------------------------------------------------------------- */

/* The dicts exist as long as the VM: to break a cycle, the garbage collector clears their contents. */
static PyObject *vm_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *contexts = PyDict_New(), *callbacks = PyDict_New();
    VmBase *self = contexts && callbacks ? (VmBase *)type->tp_alloc(type, 0) : NULL;
    if (self) self->contexts = Py_NewRef(contexts), self->callbacks = Py_NewRef(callbacks);
    Py_XDECREF(contexts);
    Py_XDECREF(callbacks);
    return (PyObject *)self;
}

static int vm_init(VmBase *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"idle", "deferred", NULL};
    PyObject *idle, *deferred;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:VmBase", names, &idle, &deferred)) return -1;
    PySequenceMethods *methods = Py_TYPE(deferred)->tp_as_sequence;
    if (!methods || !methods->sq_length) return PyErr_SetString(PyExc_TypeError, "what waits is in a deque"), -1;
    if (self->deferred) return PyErr_SetString(PyExc_RuntimeError, "a VM is initialised once"), -1;
    self->length = methods->sq_length;
    self->deferred = Py_NewRef(deferred);
    Py_XSETREF(self->failure, Py_NewRef(Py_None));
    Py_XSETREF(self->idle, Py_NewRef(idle));
    Py_XSETREF(self->context, Py_NewRef(idle));
    self->tells_end = true;
    self->next_context = 1;
    return 0;
}

/* Handle a call that has not returned. Returns 0 if its exception is handled, or -1 with an exception. */
static int vm_ended(VmBase *self, PyObject *context, PyObject *callback) {
    PyObject *error = proxywasm_take_exception();
    PyObject *told = PyObject_CallMethodObjArgs((PyObject *)self, ended_name, context, callback, error, NULL);
    if (!told) {
        Py_DECREF(error);
        return -1;
    }
    Py_DECREF(told);
    if (PyErr_GivenExceptionMatches(error, PyExc_Exception)) {
        Py_DECREF(error);
        return 0;
    }
    proxywasm_set_exception(error);
    return -1;
}

static int begin(VmBase *self, PyObject *context) {
    if (!self->idle || !self->deferred || self->context != self->idle) {
        PyErr_SetString(PyExc_RuntimeError,
                        "an event was fed to a guest that runs: wait until the current event has returned");
        return -1;
    }
    Py_SETREF(self->context, Py_NewRef(context));
    return 0;
}

enum { WENT = 0, WAS_STOPPED = 1 };

/* Leave the guest, and run deferred work. Returns WENT, WAS_STOPPED, or -1 with an exception. */
static int end(VmBase *self, PyObject *context, PyObject *callback, bool returned) {
    int failed = returned ? 0 : vm_ended(self, context, callback);
    Py_XSETREF(self->context, Py_XNewRef(self->idle));
    if (failed) return -1;
    Py_ssize_t waiting = self->length(self->deferred);
    if (waiting <= 0) return waiting < 0 ? -1 : WENT;
    bool stopped = self->stop_iteration;
    self->stop_iteration = false;
    PyObject *done = PyObject_CallMethodNoArgs((PyObject *)self, run_deferred_name);
    Py_XDECREF(done);
    return !done ? -1 : stopped ? WAS_STOPPED : WENT;
}

static PyObject *vm_enter(VmBase *self, PyObject *const *args, Py_ssize_t count) {
    if (count < 2) {
        PyErr_SetString(PyExc_TypeError, "enter() takes a context, a callback and its arguments");
        return NULL;
    }
    if (begin(self, args[0])) return NULL;
    PyObject *result = PyObject_Vectorcall(args[1], args + 2, (size_t)count - 2, NULL);
    int state = end(self, args[0], args[1], result);
    if (state < 0) Py_CLEAR(result);
    else if (state == WAS_STOPPED) Py_XSETREF(result, PyLong_FromUnsignedLong(STOPPED));
    else if (!result || result == Py_None) Py_XSETREF(result, PyLong_FromLong(0));
    return result;
}

bool vm_has(const VmBase *self, Known_callback which) {
    return self->known[which].function && self->failure == Py_None;
}

int vm_tell(VmBase *self, PyObject *context, Known_callback which, uint64_t *slots, size_t count) {
    Callback callback = self->known[which];
    if (begin(self, context)) return -1;
    Py_INCREF(callback.function);
    bool returned = !callback_call(&callback, slots, count);
    int state = end(self, context, callback.function, returned);
    Py_DECREF(callback.function);
    if (!returned) slots[0] = 0;
    if (state == WAS_STOPPED) slots[0] = STOPPED;
    return state < 0 ? -1 : 0;
}

static PyObject *vm_call(VmBase *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *enter[8];
    if (count < 2 || count > 8) {
        PyErr_SetString(PyExc_TypeError, "call() takes a context, a name and the callback's arguments");
        return NULL;
    }
    PyObject *callback = PyDict_GetItemWithError(self->callbacks, args[1]);
    if (!callback || self->failure != Py_None) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    memcpy(enter, args, (size_t)count * sizeof *enter);
    enter[1] = Py_NewRef(callback);
    PyObject *result = vm_enter(self, enter, count);
    Py_DECREF(callback);
    return result;
}

PyObject *vm_new_context_id(VmBase *self, PyObject *none) {
    for (;;) {
        PyObject *id = PyLong_FromUnsignedLong(self->next_context);
        if (!id) return NULL;
        if (!++self->next_context) self->next_context = 1;
        int taken = PyDict_Contains(self->contexts, id);
        if (!taken) return id;
        Py_DECREF(id);
        if (taken < 0) return NULL;
    }
}

static int vm_traverse(VmBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->context);
    Py_VISIT(self->idle);
    Py_VISIT(self->deferred);
    Py_VISIT(self->failure);
    Py_VISIT(self->contexts);
    Py_VISIT(self->callbacks);
    for (size_t i = 0; i < KNOWN_CALLBACKS; i++) Py_VISIT(self->known[i].function);
    return 0;
}

static int vm_clear(VmBase *self) {
    Py_CLEAR(self->context);
    Py_CLEAR(self->idle);
    Py_CLEAR(self->deferred);
    Py_CLEAR(self->failure);
    for (size_t i = 0; i < KNOWN_CALLBACKS; i++) callback_set(&self->known[i], NULL);
    return 0;
}

static void vm_dealloc(VmBase *self) {
    PyObject_GC_UnTrack(self);
    vm_clear(self);
    Py_XDECREF(self->contexts);
    Py_XDECREF(self->callbacks);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef vm_methods[] = {
    {"enter", (PyCFunction)(void (*)(void))vm_enter, METH_FASTCALL,
     "enter($self, context, callback, /, *args)\n--\n\n"
     "Call one of `Vm.callbacks` for a context; `args` begin with the context's id.\n\n"
     "Returns the guest's result (0 without one), or `STOPPED`. If the guest did not return, `Vm.failure` is set and\n"
     "the result has no meaning."},
    {"call", (PyCFunction)(void (*)(void))vm_call, METH_FASTCALL,
     "call($self, context, name, /, *args)\n--\n\n"
     "Call a callback by name, with `args` as in `enter`. Returns ``None`` if the guest has none, or has failed."},
    {"new_context_id", (PyCFunction)(void (*)(void))vm_new_context_id, METH_NOARGS,
     "new_context_id($self, /)\n--\n\n"
     "An id that no existing context has; never 0 (``allocContextId`` in ``wasm.cc`` of Envoy's host)."},
    {"ended", to_override, METH_VARARGS,
     "ended($self, context, callback, error, /)\n--\n\n"
     "Record the exception that ended a callback."},
    {"run_deferred", to_override, METH_VARARGS,
     "run_deferred($self, /)\n--\n\n"
     "Run the actions that wait for the guest to return."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef vm_members[] = {
    {"context", T_OBJECT_EX, offsetof(VmBase, context), 0, NULL},
    {"idle", T_OBJECT_EX, offsetof(VmBase, idle), 0, NULL},
    {"deferred", T_OBJECT_EX, offsetof(VmBase, deferred), READONLY, NULL},
    {"failure", T_OBJECT_EX, offsetof(VmBase, failure), 0, NULL},
    {"next_context", T_UINT, offsetof(VmBase, next_context), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef vm_getset[] = {
    {"contexts", get_dict, set_dict, NULL, (void *)offsetof(VmBase, contexts)},
    {"callbacks", get_dict, (setter)set_callbacks, NULL, (void *)offsetof(VmBase, callbacks)},
    FLAG(VmBase, stop_iteration),
    FLAG(VmBase, tells_end),
    FLAG(VmBase, changes_bodies),
    FLAG(VmBase, log_before_done),
    FLAG(VmBase, await_done),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject VmBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.VmBase",
    .tp_doc = "A guest that runs one callback at a time. `Vm` adds `ended` and `run_deferred`.",
    .tp_basicsize = sizeof(VmBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = vm_new,
    .tp_init = (initproc)vm_init,
    .tp_dealloc = (destructor)vm_dealloc,
    .tp_traverse = (traverseproc)vm_traverse,
    .tp_clear = (inquiry)vm_clear,
    .tp_methods = vm_methods,
    .tp_members = vm_members,
    .tp_getset = vm_getset,
};

int vm_names(void) {
    static const Name NAMES[] = {
        {&ended_name, "ended"},
        {&run_deferred_name, "run_deferred"},
        {&known_names[ON_CONTEXT_CREATE], "on_context_create"},
        {&known_names[ON_REQUEST_HEADERS], "on_request_headers"},
        {&known_names[ON_RESPONSE_HEADERS], "on_response_headers"},
        {&known_names[ON_REQUEST_BODY], "on_request_body"},
        {&known_names[ON_RESPONSE_BODY], "on_response_body"},
        {&known_names[ON_LOG], "on_log"},
        {&known_names[ON_DONE], "on_done"},
        {&known_names[ON_DELETE], "on_delete"},
    };
    return INTERN(NAMES);
}
