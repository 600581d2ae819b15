/* The crossings of one instance: guest functions as Python callables, and the callback for what guests import. */
#include "native.h"

enum { HEADROOM = 32 }; /* calls of Python functions within each other */
enum { MOST_NESTED = 64, FEW = 16 }; /* the first as in errors.py */

Api api;
static PyTypeObject CrossingsType, GuestType;
static _Thread_local Crossings *current;

/* -- Exceptions ----------------------------------------------------------------------------------------------- */

/* The exception that is set, as an object, and no longer set. */
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

static void raise(PyObject *error) { /* takes the reference over */
    if (!error) return;
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

/* Keep the exception that is set, for the outermost call to raise. */
static void keep_exception(Crossings *self) {
    PyObject *error = PyErr_Occurred() ? take_exception() : NULL;
    PyObject *told = error ? PyObject_CallOneArg(self->raised, error) : NULL;
    if (!told) PyErr_Clear();
    Py_XDECREF(error);
    Py_XDECREF(told);
}

/* -- The GIL -------------------------------------------------------------------------------------------------- */

static void let_go(Crossings *self) { self->thread = PyEval_SaveThread(); }

static void retake(Crossings *self) {
    PyThreadState *thread = self->thread;
    if (!thread) return;
    PyEval_RestoreThread(thread);
    self->thread = NULL;
}

/* The guest has been at work for a while; or it was, and JavaScript is run for the host, which has let go of the GIL in
 * its own way. */
void crossings_interrupt(void *isolate, void *unused) {
    ticker_answered(isolate);
    Crossings *self = current;
    if (!self || self->isolate != isolate || self->depth <= 0 || self->is_interrupted) return;
    retake(self);
    self->is_interrupted = true;
    bool ends = false;
    if (PyErr_CheckSignals()) {
        keep_exception(self);
        self->page->failed = 1; /* so that it is noticed even if the guest ends by itself just now */
        api.terminate(isolate);
        ends = true;
    } else if (self->until && self->until[0] && now() >= self->until[0]) {
        PyObject *done = PyObject_CallMethod(self->watch, "expire", NULL);
        Py_XDECREF(done);
        if (!done) keep_exception(self);
        ends = true;
    }
    self->is_interrupted = false;
    if (!ends) let_go(self);
}

/* -- Values --------------------------------------------------------------------------------------------------- */

static int to_slot(char kind, PyObject *value, uint64_t *slot) {
    if (kind == 'i' || kind == 'I') {
        unsigned long long number = PyLong_AsUnsignedLongLongMask(value);
        if (number == (unsigned long long)-1 && PyErr_Occurred()) return -1;
        *slot = kind == 'I' ? number : (uint32_t)number;
        return 0;
    }
    double number = PyFloat_AsDouble(value);
    if (number == -1 && PyErr_Occurred()) return -1;
    float single = (float)number;
    *slot = 0;
    if (kind == 'F') memcpy(slot, &number, sizeof number);
    else memcpy(slot, &single, sizeof single);
    return 0;
}

static PyObject *from_slot(char kind, const uint64_t *slot) {
    float single;
    double number;
    switch (kind) {
    case 'i': return PyLong_FromUnsignedLong((uint32_t)*slot);
    case 'I': return PyLong_FromUnsignedLongLong(*slot);
    case 'f': memcpy(&single, slot, sizeof single); return PyFloat_FromDouble((double)single);
    case 'F': memcpy(&number, slot, sizeof number); return PyFloat_FromDouble(number);
    default: Py_RETURN_NONE;
    }
}

/* Whether these are letters of kinds. */
static bool are_kinds(const char *kinds, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++)
        if (!kinds[i] || !strchr("iIfF", kinds[i])) return false;
    return size <= MOST_ARGUMENTS;
}

static int parse_type(PyObject *type, char **params, Py_ssize_t *count, char *result) {
    const char *kinds, *results;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(type, "s#s#", &kinds, count, &results, &size)) return -1;
    if (!are_kinds(kinds, *count) || !are_kinds(results, size) || size > 1)
        return PyErr_SetString(PyExc_ValueError, "a type that cannot cross"), -1;
    *params = PyMem_Malloc((size_t)*count + 1);
    if (!*params) return PyErr_NoMemory(), -1;
    memcpy(*params, kinds, (size_t)*count);
    *result = *results;
    return 0;
}

/* -- Into the guest ------------------------------------------------------------------------------------------- */

static bool is_elsewhere(const Crossings *self) {
    return self->depth > 0 || (self->depth && self->home != PyThread_get_thread_ident());
}

static PyObject *another_thread(void) {
    PyErr_SetString(PyExc_RuntimeError,
                    "another thread is inside this instance: one instance serves one thread at a time");
    return NULL;
}

/* Whether a call may begin now; else an exception is set. */
/* Whether Python functions can be called as deep as a host function, and what tells of its exception, need at least. */
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

static bool may_enter(Crossings *self) {
    if (!has_headroom()) {
        PyErr_SetString(PyExc_RecursionError, "too little is left of Python's stack to enter a guest");
        return false;
    }
    if (is_elsewhere(self)) return another_thread();
    if (self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the instance is closed");
        return false;
    }
    if (self->depth <= -MOST_NESTED) {
        PyErr_Format(PyExc_RecursionError, "host and guest call each other more than %d deep", MOST_NESTED);
        return false;
    }
    if (self->depth) {
        if (self->until && self->until[1]) {
            raise(PyObject_CallMethod(self->watch, "trap", NULL));
            return false;
        }
        return true;
    }
    if (self->home != PyThread_get_thread_ident()) {
        PyObject *done = PyObject_CallNoArgs(self->adopt);
        Py_XDECREF(done);
        if (!done) return false;
        self->home = PyThread_get_thread_ident();
    }
    if (self->until) self->until[0] = now() + self->seconds, self->until[1] = 0;
    ticker_needed();
    return true;
}

/* Call `function`, whose arguments are in the page. */
static bool run(Crossings *self, void *function) {
    Scope *scope = self->scope;
    bool outermost = !self->depth;
    uint64_t next = 0, limit = 0;
    Crossings *outer = current;
    current = self;
    self->depth = 1 - self->depth;
    if (outermost) {
        if (*self->visitors) let_go(self);
        api.lock(self->locker, self->isolate);
        api.enter(self->isolate);
        scope->level = 1;
        atomic_fetch_add_explicit(&self->calls, 1, memory_order_relaxed);
        atomic_store(&self->is_asked, false); /* with its lock V8 forgets that it was asked */
        atomic_store(&self->is_inside, true);
    } else {
        next = scope->next, limit = scope->limit;
    }
    bool good = api.call(function, self->isolate, self->context, self->undefined, 0, NULL);
    scope->next = next;
    if (outermost) scope->level = 0;
    if (outermost || scope->limit != limit) {
        scope->limit = limit;
        api.drop_handles(self->isolate, self->isolate);
    }
    if (outermost) {
        atomic_store(&self->is_inside, false);
        api.leave(self->isolate);
        api.unlock(self->locker);
    }
    retake(self);
    self->depth = 1 - self->depth;
    current = outer;
    if (outermost && self->until) self->until[0] = 0;
    return good;
}

static PyObject *guest_call(PyObject *guest, PyObject *const *args, size_t flags, PyObject *keywords) {
    Guest *self = (Guest *)guest;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (count != self->count || (keywords && PyTuple_GET_SIZE(keywords))) {
        PyErr_Format(PyExc_TypeError, "%zd arguments are wanted, %zd were given", self->count, count);
        return NULL;
    }
    uint64_t few[FEW], *slots = count <= FEW ? few : PyMem_Malloc((size_t)count * sizeof *slots);
    if (!slots) return PyErr_NoMemory();
    PyObject *result = NULL;
    for (Py_ssize_t i = 0; i < count; i++)
        if (to_slot(self->params[i], args[i], &slots[i])) goto done;
    Crossings *crossings = self->crossings;
    if (!crossings || !self->function) {
        PyErr_SetString(PyExc_RuntimeError, "the instance is gone");
        goto done;
    }
    if (!may_enter(crossings)) goto done;
    Py_INCREF(crossings);
    Page *page = crossings->page;
    memcpy(page->arguments, slots, (size_t)count * sizeof *slots);
    bool good = run(crossings, self->function);
    if (good && !page->failed) {
        result = from_slot(self->result, &page->answer);
    } else {
        PyObject *nested = crossings->depth ? Py_True : Py_False;
        raise(PyObject_CallFunctionObjArgs(crossings->problem, good ? Py_True : Py_None, nested, NULL));
    }
    Py_DECREF(crossings);
done:
    if (slots != few) PyMem_Free(slots);
    return result;
}

/* -- Out of it ------------------------------------------------------------------------------------------------ */

/* Call the host function and put what it answers into the page. 0, or -1 with an exception. */
static int call_host(const Host *host, Page *page) {
    uint64_t few[FEW], answer = 0;
    if (host->entry) { /* calls within this one have the page for their own arguments */
        memcpy(few, page->arguments, host->count * sizeof *few);
        int64_t result = host->entry(host->self, few, 1);
        if (result < 0) return -1;
        page->answer = (uint32_t)result;
        return 0;
    }
    PyObject *objects[FEW], **args = host->count <= FEW ? objects : PyMem_Malloc(host->count * sizeof *args);
    if (!args) return PyErr_NoMemory(), -1;
    size_t made = 0;
    for (; made < host->count; made++)
        if (!(args[made] = from_slot(host->params[made], &page->arguments[made]))) break;
    PyObject *call = Py_NewRef(host->call);
    PyObject *result = made == host->count ? PyObject_Vectorcall(call, args, made, NULL) : NULL;
    Py_DECREF(call);
    char kind = host->result;
    while (made) Py_DECREF(args[--made]);
    if (args != objects) PyMem_Free(args);
    if (!result) return -1;
    int failed = kind ? to_slot(kind, result, &answer) : 0;
    Py_DECREF(result);
    if (failed) return -1;
    if (kind == 'I' || kind == 'F') page->arguments[0] = answer, answer = 0;
    page->answer = answer;
    return 0;
}

/* v8::FunctionCallback */
static void host_called(const void *info) {
    Crossings *self = current;
    Page *page = self->page;
    retake(self);
    self->depth = -self->depth;
    uint32_t index = page->index;
    if (PyErr_CheckSignals() || index >= self->hosts || call_host(&self->host[index], page)) {
        keep_exception(self);
        page->answer = UNANSWERED;
    }
    self->depth = -self->depth;
}

/* -- The types ------------------------------------------------------------------------------------------------ */

/* Crossings(owner, raised, problem, adopt, (isolate, locker, context, undefined, scope, page, visitors),
 *           None or (watch, address of its numbers, seconds)) */
static int crossings_init(Crossings *self, PyObject *args, PyObject *keywords) {
    PyObject *owner, *raised, *problem, *adopt, *watched;
    unsigned long long isolate, locker, context, undefined, scope, page, visitors;
    if (self->owner) return PyErr_SetString(PyExc_RuntimeError, "crossings are made once"), -1;
    if (!PyArg_ParseTuple(args, "OOOO(KKKKKKK)O:Crossings", &owner, &raised, &problem, &adopt, &isolate, &locker,
                          &context, &undefined, &scope, &page, &visitors, &watched))
        return -1;
    if (watched != Py_None) {
        PyObject *watch;
        unsigned long long until;
        if (!PyArg_ParseTuple(watched, "OKd", &watch, &until, &self->seconds)) return -1;
        self->watch = Py_NewRef(watch);
        self->until = (double *)(uintptr_t)until;
    }
    self->isolate = (void *)(uintptr_t)isolate, self->locker = (void *)(uintptr_t)locker;
    self->context = (void *)(uintptr_t)context, self->undefined = (void *)(uintptr_t)undefined;
    self->scope = (Scope *)(uintptr_t)scope, self->page = (Page *)(uintptr_t)page;
    self->owner = Py_NewRef(owner), self->raised = Py_NewRef(raised);
    self->problem = Py_NewRef(problem), self->adopt = Py_NewRef(adopt);
    self->visitors = (int *)(uintptr_t)visitors;
    ticker_add(self);
    return 0;
}

/* guest((params, result)): a callable, to be connected */
static PyObject *crossings_guest(Crossings *self, PyObject *type) {
    Guest *guest = PyObject_GC_New(Guest, &GuestType);
    if (!guest) return NULL;
    guest->vectorcall = guest_call;
    guest->crossings = (Crossings *)Py_NewRef(self);
    guest->function = NULL;
    guest->params = NULL;
    PyObject_GC_Track(guest);
    if (parse_type(type, &guest->params, &guest->count, &guest->result)) Py_CLEAR(guest);
    return (PyObject *)guest;
}

/* `native_entry` of a host function, where it has one that its type allows. */
static int find_entry(Host *host) {
    PyObject *entry = PyObject_GetAttrString(host->call, "native_entry");
    if (!entry) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
        PyErr_Clear();
        return 0;
    }
    unsigned long long function, itself;
    bool good = PyTuple_Check(entry) && PyArg_ParseTuple(entry, "KK", &function, &itself);
    Py_DECREF(entry);
    if (!good) return -1;
    for (size_t i = 0; i < host->count; i++)
        if (host->params[i] == 'f' || host->params[i] == 'F') return 0;
    if (host->count > FEW || (host->result && host->result != 'i')) return 0;
    host->entry = (Entry)(uintptr_t)function, host->self = (void *)(uintptr_t)itself;
    return 0;
}

/* import([(call, (params, result)), …]): what the guest imports, once and in order */
static PyObject *crossings_import(Crossings *self, PyObject *functions) {
    if (!PyList_Check(functions) || self->host) return PyErr_SetString(PyExc_TypeError, "one list is wanted"), NULL;
    Py_ssize_t count = PyList_GET_SIZE(functions);
    self->host = PyMem_Calloc((size_t)count + 1, sizeof(Host));
    if (!self->host) return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *call, *type;
        Py_ssize_t params;
        Host *host = &self->host[i];
        if (!PyArg_ParseTuple(PyList_GET_ITEM(functions, i), "OO!", &call, &PyTuple_Type, &type) ||
            parse_type(type, &host->params, &params, &host->result))
            return NULL;
        host->call = Py_NewRef(call);
        host->count = (size_t)params;
        self->hosts++;
        if (find_entry(host)) return NULL;
    }
    Py_RETURN_NONE;
}

/* Every guest function refuses from now on. Returns whether nobody is inside. */
static PyObject *crossings_shut(Crossings *self, PyObject *unused) {
    if (is_elsewhere(self)) return another_thread();
    self->closed = true;
    if (!self->depth) ticker_remove(self);
    return PyBool_FromLong(!self->depth);
}

static int crossings_traverse(Crossings *self, visitproc visit, void *arg) {
    Py_VISIT(self->owner);
    Py_VISIT(self->raised);
    Py_VISIT(self->problem);
    Py_VISIT(self->adopt);
    Py_VISIT(self->watch);
    for (size_t i = 0; i < self->hosts; i++) Py_VISIT(self->host[i].call);
    return 0;
}

static int crossings_clear(Crossings *self) {
    self->closed = true;
    ticker_remove(self);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->raised);
    Py_CLEAR(self->problem);
    Py_CLEAR(self->adopt);
    Py_CLEAR(self->watch);
    for (size_t i = 0; i < self->hosts; i++) {
        self->host[i].entry = NULL;
        Py_CLEAR(self->host[i].call);
    }
    return 0;
}

static void crossings_dealloc(Crossings *self) {
    PyObject_GC_UnTrack(self);
    crossings_clear(self);
    for (size_t i = 0; i < self->hosts; i++) PyMem_Free(self->host[i].params);
    PyMem_Free(self->host);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef crossings_methods[] = {
    {"guest", (PyCFunction)crossings_guest, METH_O, NULL},
    {"imports", (PyCFunction)crossings_import, METH_O, NULL},
    {"shut", (PyCFunction)crossings_shut, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject CrossingsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_v8._native.Crossings",
    .tp_basicsize = sizeof(Crossings),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)crossings_init,
    .tp_dealloc = (destructor)crossings_dealloc,
    .tp_traverse = (traverseproc)crossings_traverse,
    .tp_clear = (inquiry)crossings_clear,
    .tp_methods = crossings_methods,
};

/* connect(address of a v8::Function's handle) */
static PyObject *guest_connect(Guest *self, PyObject *address) {
    void *function = PyLong_AsVoidPtr(address);
    if (!function && PyErr_Occurred()) return NULL;
    self->function = function;
    Py_RETURN_NONE;
}

static int guest_traverse(Guest *self, visitproc visit, void *arg) {
    Py_VISIT(self->crossings);
    return 0;
}

static int guest_clear(Guest *self) {
    Py_CLEAR(self->crossings);
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

static PyTypeObject GuestType = {
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
};

/* -- The module ----------------------------------------------------------------------------------------------- */

/* use(…): the addresses of the functions in `Api`, in its order */
static PyObject *use(PyObject *module, PyObject *args) {
    unsigned long long found[8];
    if (!PyArg_ParseTuple(args, "KKKKKKKK", &found[0], &found[1], &found[2], &found[3], &found[4], &found[5], &found[6], &found[7])) return NULL;
    void *addresses[8];
    for (int i = 0; i < 8; i++) addresses[i] = (void *)(uintptr_t)found[i];
    memcpy(&api, addresses, sizeof api);
    Py_RETURN_NONE;
}

static PyObject *is_ticking(PyObject *module, PyObject *unused) { return PyBool_FromLong(ticker_runs()); }

static PyMethodDef methods[] = {
    {"use", use, METH_VARARGS, NULL},
    {"is_ticking", is_ticking, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "proxywasm_engine_v8._native",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void) {
    if (ticker_ready()) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    PyObject *host = PyLong_FromVoidPtr((void *)host_called);
    if (PyType_Ready(&GuestType) || PyModule_AddType(module, &CrossingsType) || !host ||
        PyModule_AddObjectRef(module, "HOST_CALLED", host) || PyModule_AddIntConstant(module, "REVISION", REVISION))
        Py_CLEAR(module);
    Py_XDECREF(host);
    return module;
}
