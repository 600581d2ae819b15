/* Guest functions as Python callables. */
#include "native.h"

enum { HEADROOM = 32 }; /* depth of nested Python calls */

/* Whether Python's stack has room for a host function and for the handling of its exception. */
static bool has_headroom(void) {
    PyThreadState *thread = PyThreadState_Get();
#if PY_VERSION_HEX >= 0x030C0000
    int left = thread->py_recursion_remaining;
#elif PY_VERSION_HEX >= 0x030B0000
    int left = thread->recursion_remaining;
#else
    int left = Py_GetRecursionLimit() - thread->recursion_depth;
#endif
    return left > HEADROOM;
}

/* Whether a call may begin now; otherwise sets an exception. */
static bool may_enter(Trampolines *self) {
    if (!has_headroom()) {
        PyErr_SetString(PyExc_RecursionError, "too little of Python's stack is left to enter a guest");
        return false;
    }
    if (trampolines_are_elsewhere(self)) return another_thread(), false;
    if (self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the instance is closed");
        return false;
    }
    if (self->depth <= -MAX_NESTED) {
        PyErr_Format(PyExc_RecursionError, "host and guest call each other more than %d deep", MAX_NESTED);
        return false;
    }
    if (self->depth) {
        if (!self->until || !self->until[1]) return true;
        proxywasm_set_exception(PyObject_CallMethod(self->watch, "trap", NULL));
        return false;
    }
    if (!affinity_take(self->affinity)) return false;
    if (self->until) self->until[0] = now() + self->seconds, self->until[1] = 0;
    ticker_needed();
    return true;
}

/* Call `function`, whose arguments are in the page. */
static bool run(Trampolines *self, void *function) {
    Affinity *affinity = self->affinity;
    Scope *scope = affinity->scope;
    bool outermost = !self->depth;
    Trampolines *outer = here.current;
    here.current = self;
    uint64_t next = scope->next, limit = scope->limit;
    self->depth = 1 - self->depth;
    if (outermost) {
        unsigned calls = atomic_load_explicit(&self->calls, memory_order_relaxed);
        atomic_store_explicit(&self->calls, calls + 1, memory_order_relaxed);
        /* V8 may have dropped the request when the thread changed */
        atomic_store_explicit(&self->is_asked, false, memory_order_relaxed);
        atomic_store_explicit(&self->is_inside, true, memory_order_release);
    }
    bool good = api.call(affinity->isolate, function, self->undefined, NULL, 0);
    if (outermost) atomic_store_explicit(&self->is_inside, false, memory_order_release);
    scope->next = next;
    if (scope->limit != limit) {
        scope->limit = limit;
        api.drop_handles(affinity->isolate, affinity->isolate);
    }
    retake(self);
    self->depth = 1 - self->depth;
    here.current = outer;
    if (outermost && self->until) self->until[0] = 0;
    return good;
}

/* Call the guest with arguments in `slots`. Returns 0, or -1 with an exception. */
static int call(Guest *self, const uint64_t *slots, uint64_t *answer) {
    Trampolines *trampolines = self->trampolines;
    if (!trampolines || !self->function) return PyErr_SetString(PyExc_RuntimeError, "the instance is gone"), -1;
    if (!may_enter(trampolines)) return -1;
    Py_INCREF(trampolines);
    Affinity *affinity = trampolines->affinity;
    Page *page = trampolines->page;
    void *outer = affinity_enter(affinity);
    memcpy(page->arguments, slots, (size_t)self->count * sizeof *slots);
    bool returned = run(trampolines, self->function), good = returned && !page->failed;
    if (good) {
        *answer = page->answer;
    } else {
        PyObject *nested = trampolines->depth ? Py_True : Py_False;
        proxywasm_set_exception(
            PyObject_CallFunctionObjArgs(trampolines->problem, returned ? Py_True : Py_None, nested, NULL));
    }
    affinity_leave(affinity, outer); /* after `problem` has cleaned up */
    Py_DECREF(trampolines);
    return good ? 0 : -1;
}

static int wrong_number(const Guest *self, Py_ssize_t count) {
    PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", self->count, count);
    return -1;
}

static PyObject *guest_call(PyObject *guest, PyObject *const *args, size_t flags, PyObject *keywords) {
    Guest *self = (Guest *)guest;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (count != self->count || (keywords && PyTuple_GET_SIZE(keywords))) return wrong_number(self, count), NULL;
    uint64_t few[FEW], answer, *slots = count <= FEW ? few : PyMem_Malloc((size_t)count * sizeof *slots);
    if (!slots) return PyErr_NoMemory();
    Py_ssize_t ready = 0;
    while (ready < count && !proxywasm_to_word(self->params[ready], args[ready], &slots[ready])) ready++;
    bool good = ready == count && !call(self, slots, &answer);
    if (slots != few) PyMem_Free(slots);
    return good ? proxywasm_from_word(self->result, &answer) : NULL;
}

/* The function behind the attribute `native_call`, see the engine protocol. */
static int native_call(void *guest, uint64_t *words, size_t count) {
    Guest *self = guest;
    uint64_t answer;
    if ((Py_ssize_t)count != self->count) return wrong_number(self, (Py_ssize_t)count);
    if (call(self, words, &answer)) return -1;
    words[0] = self->result == 'i' ? (uint32_t)answer : self->result ? answer : 0;
    return 0;
}

static PyObject *guest_native_call(Guest *self, void *closure) {
    bool fits = proxywasm_are_integers(self->params, (size_t)self->count) && proxywasm_are_integers(&self->result, 1);
    if (!fits) return PyErr_Format(PyExc_AttributeError, "a function of floats");
    return PyCapsule_New(&self->native, PROXYWASM_CALLBACK, NULL);
}

PyObject *guest_new(Trampolines *trampolines, PyObject *type) {
    Guest *guest = PyObject_GC_New(Guest, &GuestType);
    if (!guest) return NULL;
    guest->vectorcall = guest_call;
    guest->native = (Proxywasm_callback){native_call, guest};
    guest->trampolines = (Trampolines *)Py_NewRef(trampolines);
    guest->function = NULL;
    guest->params = NULL;
    PyObject_GC_Track(guest);
    if (parse_type(type, &guest->params, &guest->count, &guest->result)) Py_CLEAR(guest);
    return (PyObject *)guest;
}

/* connect(address of a v8::Function's handle) */
static PyObject *guest_connect(Guest *self, PyObject *address) {
    void *function = PyLong_AsVoidPtr(address);
    if (!function && PyErr_Occurred()) return NULL;
    self->function = function;
    Py_RETURN_NONE;
}

static int guest_traverse(Guest *self, visitproc visit, void *arg) {
    Py_VISIT(self->trampolines);
    return 0;
}

static int guest_clear(Guest *self) {
    Py_CLEAR(self->trampolines);
    return 0;
}

static void guest_dealloc(Guest *self) {
    PyObject_GC_UnTrack(self);
    guest_clear(self);
    PyMem_Free(self->params);
    PyObject_GC_Del(self);
}

static PyMethodDef guest_methods[] = {
    {"connect", (PyCFunction)guest_connect, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef guest_getset[] = {
    {"native_call", (getter)guest_native_call, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject GuestType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_v8._native.Guest",
    .tp_basicsize = sizeof(Guest),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Guest, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = (destructor)guest_dealloc,
    .tp_traverse = (traverseproc)guest_traverse,
    .tp_clear = (inquiry)guest_clear,
    .tp_methods = guest_methods,
    .tp_getset = guest_getset,
};
