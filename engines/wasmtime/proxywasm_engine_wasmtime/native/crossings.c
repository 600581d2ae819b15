/* The crossings of one instance: guest functions as Python callables, host functions as Wasmtime's callbacks. */
#include "native.h"

enum { MOST_NESTED = 64, FEW = 16 }; /* the first as in errors.py */
enum { LOOKS = 10 };                  /* epochs between two looks at signals, which take the GIL */

Api api;

static const char HOST_RAISED[] = "a host function raised an exception";

/* -- Exceptions and the GIL ----------------------------------------------------------------------------------- */

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
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

static void let_go(Crossings *self) { self->thread = PyEval_SaveThread(); }

static void retake(Crossings *self) {
    PyThreadState *thread = self->thread;
    if (!thread) return;
    PyEval_RestoreThread(thread);
    self->thread = NULL;
}

static PyObject *another_thread(void) {
    PyErr_SetString(PyExc_RuntimeError,
                    "another thread is inside this instance: one instance serves one thread at a time");
    return NULL;
}

/* The epoch has moved on while guest code runs. */
static void *epoch_reached(void *context, void *environment, uint64_t *ticks, uint8_t *kind) {
    Crossings *self = environment;
    ticker_used(self->ticker);
    if (self->allowed && now() >= self->until) {
        self->expired = true;
        return api.error_new("stopped by the host");
    }
    *ticks = 1;
    if (self->thread && ++self->epochs % LOOKS) return NULL;
    retake(self);
    if (PyErr_CheckSignals()) {
        Py_XSETREF(self->error, take_exception());
        return api.error_new("stopped by the host");
    }
    let_go(self);
    return NULL;
}

/* -- Into the guest ------------------------------------------------------------------------------------------- */

static bool is_elsewhere(const Crossings *self) {
    return self->depth > 0 || (self->depth && self->home != PyThread_get_thread_ident());
}

static PyObject *is_enabled, *bring_forward, *check_stack; /* faulthandler's, and those of signals.py and stack.py */
static bool was_enabled;
static _Thread_local bool stack_suffices;

/* Have Wasmtime's handlers in front again if faulthandler was enabled or disabled, see signals.py. */
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

/* Whether this thread's stack is large enough, see stack.py. If not, an exception is set. */
static bool has_stack(void) {
    if (stack_suffices) return true;
    PyObject *done = PyObject_CallNoArgs(check_stack);
    Py_XDECREF(done);
    return stack_suffices = done != NULL;
}

static bool enter(Crossings *self) {
    if (is_elsewhere(self)) return another_thread();
    if (self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "the instance is closed");
        return false;
    }
    if (!self->depth) {
        if (!has_stack() || !follow_faulthandler()) return false;
        self->home = PyThread_get_thread_ident();
        if (self->ticker) ticker_used(self->ticker);
        if (self->allowed) self->until = now() + self->allowed;
    }
    self->depth = 1 - self->depth;
    if (!self->holds) let_go(self);
    return true;
}

/* Back from the guest. 0, or -1 with the exception of what went wrong. */
static int leave(Crossings *self, void *error, void *trap) {
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
    raise(raised);
    return -1;
}

static int to_slot(char kind, PyObject *value, Slot *slot) {
    if (kind == 'i' || kind == 'I') {
        unsigned long long number = PyLong_AsUnsignedLongLongMask(value);
        if (number == (unsigned long long)-1 && PyErr_Occurred()) return -1;
        if (kind == 'I') slot->i64 = number;
        else slot->i32 = (uint32_t)number;
        return 0;
    }
    double number = PyFloat_AsDouble(value);
    if (number == -1 && PyErr_Occurred()) return -1;
    if (kind == 'F') slot->f64 = number;
    else slot->f32 = (float)number;
    return 0;
}

static PyObject *from_slot(char kind, const Slot *slot) {
    switch (kind) {
    case 'i': return PyLong_FromUnsignedLong(slot->i32);
    case 'I': return PyLong_FromUnsignedLongLong(slot->i64);
    case 'f': return PyFloat_FromDouble((double)slot->f32);
    case 'F': return PyFloat_FromDouble(slot->f64);
    default: Py_RETURN_NONE;
    }
}

/* Arguments in and result out of `slots`. 0, or -1 with an exception. */
static int run(Guest *self, Slot *slots) {
    Crossings *crossings = self->crossings;
    if (!crossings) return PyErr_SetString(PyExc_RuntimeError, "the instance is gone"), -1;
    Py_INCREF(crossings); /* before the GIL may be let go of */
    int failed = -1;
    if (enter(crossings)) {
        void *trap = NULL;
        size_t held = (size_t)(self->count ? self->count : self->result != 0);
        void *error = api.func_call_unchecked(crossings->context, &self->function, slots, held, &trap);
        failed = leave(crossings, error, trap);
    }
    Py_DECREF(crossings);
    return failed;
}

static void wrong_number(const Guest *self, Py_ssize_t count) {
    PyErr_Format(PyExc_TypeError, "%zd arguments are wanted, %zd were given", self->count, count);
}

static PyObject *guest_call(PyObject *guest, PyObject *const *args, size_t flags, PyObject *keywords) {
    Guest *self = (Guest *)guest;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (count != self->count || (keywords && PyTuple_GET_SIZE(keywords))) return wrong_number(self, count), NULL;
    Slot few[FEW], *slots = count <= FEW ? few : PyMem_Malloc((size_t)count * sizeof(Slot));
    if (!slots) return PyErr_NoMemory();
    int failed = 0;
    for (Py_ssize_t i = 0; i < count && !failed; i++) failed = to_slot(self->params[i], args[i], &slots[i]);
    PyObject *result = failed || run(self, slots) ? NULL : from_slot(self->result, slots);
    if (slots != few) PyMem_Free(slots);
    return result;
}

/* The way into a guest function that leaves Python out, see the engine protocol. */
static int native_call(void *guest, uint64_t *words, size_t count) {
    Guest *self = guest;
    Slot slots[FEW];
    if ((Py_ssize_t)count != self->count) return wrong_number(self, (Py_ssize_t)count), -1;
    for (size_t i = 0; i < count; i++) slots[i].i64 = words[i];
    if (run(self, slots)) return -1;
    words[0] = self->result == 'i' ? slots[0].i32 : self->result ? slots[0].i64 : 0;
    return 0;
}

static PyObject *guest_native_call(PyObject *guest, void *closure) {
    const Guest *self = (Guest *)guest;
    bool fits = self->count <= FEW && self->result != 'f' && self->result != 'F';
    for (Py_ssize_t i = 0; fits && i < self->count; i++) fits = self->params[i] == 'i' || self->params[i] == 'I';
    if (!fits) return PyErr_Format(PyExc_AttributeError, "a function of floats, or of many values");
    return Py_BuildValue("(NN)", PyLong_FromVoidPtr((void *)native_call), PyLong_FromVoidPtr(guest));
}

/* instantiate(module, imports, count, instance): addresses, and how many imports */
static PyObject *crossings_instantiate(Crossings *self, PyObject *args) {
    unsigned long long module, imports, instance;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "KKnK", &module, &imports, &count, &instance) || !enter(self)) return NULL;
    void *trap = NULL;
    void *error = api.instance_new(self->context, (void *)(uintptr_t)module, (void *)(uintptr_t)imports,
                                   (size_t)count, (void *)(uintptr_t)instance, &trap);
    if (leave(self, error, trap)) return NULL;
    Py_CLEAR(self->starting);
    Py_RETURN_NONE;
}

/* -- Out of it ------------------------------------------------------------------------------------------------ */

/* Call the host function; the result is in the first slot. 0, or -1 with an exception. */
static int call_host(const Host *host, Slot *slots) {
    if (host->entry) {
        int64_t result = host->entry(host->self, (const uint64_t *)slots, sizeof(Slot) / sizeof(uint64_t));
        if (result < 0) return -1;
        if (host->result) slots->i32 = (uint32_t)result;
        return 0;
    }
    PyObject *few[FEW], **args = host->count <= FEW ? few : PyMem_Malloc(host->count * sizeof *args);
    if (!args) return PyErr_NoMemory(), -1;
    size_t made = 0;
    int failed = 0;
    for (; made < host->count; made++)
        if (!(args[made] = from_slot(host->params[made], &slots[made]))) break;
    PyObject *call = Py_NewRef(host->call);
    PyObject *result = made == host->count ? PyObject_Vectorcall(call, args, made, NULL) : NULL;
    Py_DECREF(call);
    while (made) Py_DECREF(args[--made]);
    if (args != few) PyMem_Free(args);
    if (!result) return -1;
    if (host->result) failed = to_slot(host->result, result, slots);
    Py_DECREF(result);
    return failed;
}

static int arrive(Crossings *self, void *caller) {
    if (self->depth < -MOST_NESTED) {
        PyErr_Format(PyExc_RecursionError, "host and guest call each other more than %d deep", MOST_NESTED);
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

static void *host_called(void *environment, void *caller, Slot *slots, size_t count) {
    Host *host = environment;
    Crossings *self = host->crossings;
    void *trap = NULL;
    retake(self);
    self->depth = -self->depth;
    if (arrive(self, caller) || call_host(host, slots)) {
        Py_XSETREF(self->error, take_exception());
        trap = api.trap_new(HOST_RAISED, sizeof HOST_RAISED - 1);
    }
    self->depth = -self->depth;
    if (!self->holds) let_go(self);
    return trap;
}

/* -- The types ------------------------------------------------------------------------------------------------ */

static int crossings_init(Crossings *self, PyObject *args, PyObject *keywords) {
    unsigned long long context;
    double seconds;
    PyObject *failed, *starting, *store, *ticker;
    if (self->context) return PyErr_SetString(PyExc_RuntimeError, "crossings are made once"), -1;
    if (!PyArg_ParseTuple(args, "KOOOOd:Crossings", &context, &store, &failed, &starting, &ticker, &seconds)) return -1;
    if (ticker != Py_None && !PyObject_TypeCheck(ticker, &TickerType))
        return PyErr_SetString(PyExc_TypeError, "a Ticker or None is wanted"), -1;
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

/* 1 for a string of the letters of kinds */
static bool are_kinds(const char *kinds, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++)
        if (!kinds[i] || !strchr("iIfF", kinds[i])) return false;
    return true;
}

/* guest(params, result) -> (callable, address of its function) */
static PyObject *crossings_guest(Crossings *self, PyObject *args) {
    const char *params, *result;
    Py_ssize_t count, results;
    if (!PyArg_ParseTuple(args, "s#s#", &params, &count, &result, &results)) return NULL;
    if (!are_kinds(params, count) || !are_kinds(result, results) || results > 1)
        return PyErr_SetString(PyExc_ValueError, "an unknown kind"), NULL;
    Guest *guest = PyObject_GC_New(Guest, &GuestType);
    if (!guest) return NULL;
    guest->vectorcall = guest_call;
    guest->crossings = (Crossings *)Py_NewRef(self);
    guest->function = (Function){{0, 0}};
    guest->result = *result;
    guest->count = count;
    guest->params = PyMem_Malloc((size_t)count + 1);
    PyObject_GC_Track(guest);
    if (!guest->params) {
        Py_DECREF(guest);
        return PyErr_NoMemory();
    }
    memcpy(guest->params, params, (size_t)count);
    return Py_BuildValue("(NK)", guest, (unsigned long long)(uintptr_t)&guest->function);
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
    if (host->result && host->result != 'i') return 0;
    host->entry = (Entry)(uintptr_t)function, host->self = (void *)(uintptr_t)itself;
    return 0;
}

/* host(call, params, result) -> address of the environment of its callback */
static PyObject *crossings_host(Crossings *self, PyObject *args) {
    const char *params, *result;
    Py_ssize_t count, results;
    PyObject *call;
    if (!PyArg_ParseTuple(args, "Os#s#", &call, &params, &count, &result, &results)) return NULL;
    if (!are_kinds(params, count) || !are_kinds(result, results) || results > 1)
        return PyErr_SetString(PyExc_ValueError, "an unknown kind"), NULL;
    Host *host = PyMem_Calloc(1, sizeof(Host) + (size_t)count);
    if (!host) return PyErr_NoMemory();
    host->next = self->hosts, self->hosts = host;
    host->crossings = self;
    host->call = Py_NewRef(call);
    host->result = *result;
    host->count = (size_t)count;
    memcpy(host->params, params, (size_t)count);
    if (find_entry(host)) return NULL;
    return PyLong_FromVoidPtr(host);
}

/* Every guest function refuses from now on. Returns whether nobody is inside. */
static PyObject *crossings_shut(Crossings *self, PyObject *unused) {
    if (is_elsewhere(self)) return another_thread();
    self->closed = true;
    return PyBool_FromLong(!self->depth);
}

static int crossings_traverse(Crossings *self, visitproc visit, void *arg) {
    Py_VISIT(self->error);
    Py_VISIT(self->starting);
    Py_VISIT(self->failed);
    Py_VISIT(self->store);
    for (Host *host = self->hosts; host; host = host->next) Py_VISIT(host->call);
    return 0;
}

static int crossings_clear(Crossings *self) {
    self->closed = true;
    Py_CLEAR(self->error);
    Py_CLEAR(self->starting);
    Py_CLEAR(self->failed);
    Py_CLEAR(self->store);
    for (Host *host = self->hosts; host; host = host->next) {
        host->entry = NULL;
        Py_CLEAR(host->call);
    }
    return 0;
}

static void crossings_dealloc(Crossings *self) {
    PyObject_GC_UnTrack(self);
    crossings_clear(self);
    Py_CLEAR(self->ticker);
    for (Host *host = self->hosts, *next; host; host = next) {
        next = host->next;
        PyMem_Free(host);
    }
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef crossings_methods[] = {
    {"guest", (PyCFunction)crossings_guest, METH_VARARGS, NULL},
    {"host", (PyCFunction)crossings_host, METH_VARARGS, NULL},
    {"instantiate", (PyCFunction)crossings_instantiate, METH_VARARGS, NULL},
    {"shut", (PyCFunction)crossings_shut, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject CrossingsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_wasmtime._native.Crossings",
    .tp_basicsize = sizeof(Crossings),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)crossings_init,
    .tp_dealloc = (destructor)crossings_dealloc,
    .tp_traverse = (traverseproc)crossings_traverse,
    .tp_clear = (inquiry)crossings_clear,
    .tp_methods = crossings_methods,
};

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

static PyGetSetDef guest_getset[] = {
    {"native_call", guest_native_call, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject GuestType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_wasmtime._native.Guest",
    .tp_basicsize = sizeof(Guest),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Guest, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = (destructor)guest_dealloc,
    .tp_traverse = (traverseproc)guest_traverse,
    .tp_clear = (inquiry)guest_clear,
    .tp_getset = guest_getset,
};

/* -- The module ----------------------------------------------------------------------------------------------- */

/* use(…): the addresses of the functions in `Api`, in its order */
static PyObject *use(PyObject *module, PyObject *args) {
    unsigned long long found[7];
    if (!PyArg_ParseTuple(args, "KKKKKKK", &found[0], &found[1], &found[2], &found[3], &found[4], &found[5], &found[6]))
        return NULL;
    void *addresses[7];
    for (int i = 0; i < 7; i++) addresses[i] = (void *)(uintptr_t)found[i];
    memcpy(&api, addresses, sizeof api);
    Py_RETURN_NONE;
}

/* prepare(is_enabled, bring_forward, check_stack): what is called before a guest is entered */
static PyObject *prepare(PyObject *module, PyObject *args) {
    PyObject *functions[3];
    if (!PyArg_ParseTuple(args, "O!OO", &PyCFunction_Type, &functions[0], &functions[1], &functions[2])) return NULL;
    Py_XSETREF(is_enabled, Py_NewRef(functions[0]));
    Py_XSETREF(bring_forward, Py_NewRef(functions[1]));
    Py_XSETREF(check_stack, Py_NewRef(functions[2]));
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"use", use, METH_VARARGS, NULL},
    {"prepare", prepare, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "proxywasm_engine_wasmtime._native",
    .m_size = -1,
    .m_methods = methods,
};

static int fill(PyObject *module) {
    if (PyType_Ready(&GuestType) || PyModule_AddType(module, &TickerType) || PyModule_AddType(module, &CrossingsType))
        return -1;
    PyObject *host = PyLong_FromVoidPtr((void *)host_called), *epoch = PyLong_FromVoidPtr((void *)epoch_reached);
    int failed = !host || !epoch || PyModule_AddObjectRef(module, "HOST_CALLED", host) ||
                 PyModule_AddObjectRef(module, "EPOCH_REACHED", epoch);
    Py_XDECREF(host);
    Py_XDECREF(epoch);
    return failed || PyModule_AddIntConstant(module, "REVISION", REVISION) ? -1 : 0;
}

PyMODINIT_FUNC PyInit__native(void) {
    if (ticker_ready()) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (module && fill(module)) Py_CLEAR(module);
    return module;
}
