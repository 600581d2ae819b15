/* What almost every request does: the twin of runtime/plain.py, method by method. */
#include "native.h"

enum { REQUEST, RESPONSE };
enum { STOP_ALL = 4 }; /* as in plain.py: HeadersAction.STOP_ALL_ITERATION_AND_WATERMARK */
static const Py_ssize_t HEADERS_MAP[] = {0, 2};

typedef struct {
    Context base;
    PyObject *stream, *plugin, *vm;
    bool created, deleted, pending_done;
} PlainContext;

typedef struct {
    PyObject_HEAD
    PyObject *stream, *filters, *headers, *stopped, *buffer, *holder, *trailers, *given_end;
    Py_ssize_t passed, calling;
    unsigned long long received;
    int direction;
    bool started, headers_sent, streaming, ended, complete, aborted;
} PlainPath;

typedef struct {
    PyObject_HEAD
    PyObject *host, *outbox, *properties, *buffer_limit, *started_ns, *contexts, *request, *response;
} PlainStream;

static PyObject *nothing, *nobody; /* an empty list and an empty mapping, which are never changed */
static PyObject *vm_name, *root_name, *closed_name, *stream_gone_name, *send_prepared_name, *host_name, *outbox_name,
    *services_name, *clock_name, *time_name, *on_create, *on_log, *on_done, *on_delete, *on_headers[2],
    *directions[2];

int plain_names(void) {
    static const struct {
        PyObject **at;
        const char *text;
    } NAMES[] = {
        {&vm_name, "vm"},
        {&root_name, "root"},
        {&closed_name, "closed"},
        {&stream_gone_name, "stream_gone"},
        {&services_name, "services"},
        {&clock_name, "clock"},
        {&time_name, "time_ns"},
        {&send_prepared_name, "send_prepared"},
        {&host_name, "host"},
        {&outbox_name, "outbox"},
        {&on_create, "on_context_create"},
        {&on_log, "on_log"},
        {&on_done, "on_done"},
        {&on_delete, "on_delete"},
        {&on_headers[REQUEST], "on_request_headers"},
        {&on_headers[RESPONSE], "on_response_headers"},
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (!(*NAMES[i].at = PyUnicode_InternFromString(NAMES[i].text))) return -1;
    PyObject *empty = PyDict_New();
    for (long i = REQUEST; i <= RESPONSE; i++)
        if (!(directions[i] = PyLong_FromLong(i))) return -1;
    nothing = PyList_New(0), nobody = empty ? PyDictProxy_New(empty) : NULL;
    Py_XDECREF(empty);
    return nothing && nobody ? 0 : -1;
}

/* Call a method for its effect: 0, or -1 with an exception. */
static int told(PyObject *done) {
    Py_XDECREF(done);
    return done ? 0 : -1;
}

/* Whether an attribute is true, or -1 with an exception. */
static int is_set(PyObject *object, PyObject *name) {
    PyObject *value = PyObject_GetAttr(object, name);
    int set = value ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    return set;
}

/* -- A stream context ------------------------------------------------------------------------------------------ */

static int plain_context_init(PlainContext *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "plugin", NULL};
    PyObject *stream, *plugin;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:HttpContext", names, &stream, &plugin)) return -1;
    PyObject *vm = PyObject_GetAttr(plugin, vm_name), *root = vm ? PyObject_GetAttr(plugin, root_name) : NULL;
    PyObject *id = NULL;
    int failed = -1;
    if (root && !PyObject_TypeCheck(vm, &EntryType)) PyErr_SetString(PyExc_TypeError, "the plugin's vm is no Vm");
    else if (root) id = entry_new_context_id((Entry *)vm, NULL);
    if (id && !context_begin(&self->base, id, root)) {
        Py_XSETREF(self->stream, Py_NewRef(stream));
        Py_XSETREF(self->plugin, Py_NewRef(plugin));
        Py_XSETREF(self->vm, Py_NewRef(vm));
        failed = PyDict_SetItem(((Entry *)vm)->contexts, id, (PyObject *)self);
    }
    Py_XDECREF(id);
    Py_XDECREF(root);
    Py_XDECREF(vm);
    return failed;
}

static Entry *entry_of(PlainContext *self) {
    if (!self->vm || !self->stream) PyErr_SetString(PyExc_RuntimeError, "the context is closed");
    return self->vm && self->stream ? (Entry *)self->vm : NULL;
}

/* Entry.call with the context's id and up to two more numbers: what the guest returned, or None. */
static PyObject *call(PlainContext *self, Entry *vm, PyObject *name, PyObject *second, PyObject *third) {
    PyObject *callback = PyDict_GetItemWithError(vm->callbacks, name);
    if (!callback || vm->failure != Py_None) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    PyObject *args[] = {(PyObject *)self, Py_NewRef(callback), self->base.id, second, third};
    PyObject *result = entry_enter(vm, args, third ? 5 : second ? 4 : 3);
    Py_DECREF(callback);
    return result;
}

static int create(PlainContext *self) {
    if (self->created) return 0;
    Entry *vm = entry_of(self);
    if (!vm) return -1;
    self->created = true;
    PyObject *root = self->base.root;
    if (!PyObject_TypeCheck(root, &ContextType)) {
        PyErr_SetString(PyExc_TypeError, "the root of a context is no context");
        return -1;
    }
    if (!told(call(self, vm, on_create, ((Context *)root)->id, NULL))) return 0;
    if (PyErr_ExceptionMatches(PyExc_RuntimeError)) self->created = false; /* the guest is busy, and knows of nothing */
    return -1;
}

static PyObject *plain_create(PlainContext *self, PyObject *none) {
    if (create(self)) return NULL;
    Py_RETURN_NONE;
}

/* What a method that takes and gives numbers answers, or -1 with an exception. */
static int64_t answer(PyObject *result) {
    int64_t number = result ? PyLong_AsLongLong(result) : -1;
    Py_XDECREF(result);
    return number;
}

static int64_t failed(PlainContext *self, int direction) {
    return answer(PyObject_CallMethod((PyObject *)self, "failed", "ii", direction, STOP_ALL));
}

static int set_map(PlainContext *self, int direction, PyObject *headers) {
    return PyList_SetItem(self->base.maps, HEADERS_MAP[direction], Py_NewRef(headers));
}

static int64_t context_on_headers(PlainContext *self, int direction, PyObject *headers, bool end_stream) {
    if (!self->created) {
        if (direction == RESPONSE) return 0;
        if (create(self)) return -1;
    }
    Entry *vm = entry_of(self);
    if (!vm) return -1;
    if (vm->failure != Py_None) return failed(self, direction);
    if (set_map(self, direction, headers)) return -1;
    int64_t action = 0;
    if (PyDict_GetItemWithError(vm->callbacks, on_headers[direction])) {
        PyObject *count = PyLong_FromSsize_t(PyList_GET_SIZE(headers));
        if (!count) return -1;
        PyObject *end = vm->tells_end ? PyLong_FromLong(end_stream) : NULL;
        action = answer(call(self, vm, on_headers[direction], count, end));
        Py_DECREF(count);
        Py_XDECREF(end);
        if (action < 0) return -1;
        if (vm->failure != Py_None) return failed(self, direction);
        if (action) action = answer(PyObject_CallMethod((PyObject *)self, "headers_action", "L", (long long)action));
    }
    if (PyErr_Occurred()) return -1;
    if (!action && set_map(self, direction, Py_None)) return -1;
    return action;
}

static PyObject *plain_on_headers(PlainContext *self, PyObject *args) {
    int direction, end_stream;
    PyObject *headers;
    if (!PyArg_ParseTuple(args, "iO!p:on_headers", &direction, &PyList_Type, &headers, &end_stream)) return NULL;
    if (direction != REQUEST && direction != RESPONSE) return PyErr_Format(PyExc_ValueError, "direction %d", direction);
    int64_t action = context_on_headers(self, direction, headers, end_stream);
    return action < 0 ? NULL : PyLong_FromLongLong(action);
}

static PyObject *maps_for_log(PyObject *stream);

static int write_log(PlainContext *self) {
    if (create(self)) return -1;
    Entry *vm = entry_of(self);
    if (!vm) return -1;
    for (Py_ssize_t i = 0; i < 2; i++)
        if (PyList_SetItem(self->base.buffers, i, Py_NewRef(Py_None))) return -1;
    PyObject *maps = maps_for_log(self->stream);
    if (!maps) return -1;
    Py_XSETREF(self->base.maps, maps);
    self->base.read_only = true;
    int state = told(call(self, vm, on_log, NULL, NULL));
    self->base.read_only = false;
    PyObject *none = Py_BuildValue("[OOOO]", Py_None, Py_None, Py_None, Py_None);
    if (!none) return -1;
    Py_XSETREF(self->base.maps, none);
    return state;
}

static PyObject *plain_log(PlainContext *self, PyObject *none) {
    if (write_log(self)) return NULL;
    Py_RETURN_NONE;
}

static int delete(PlainContext *self) {
    Entry *vm = entry_of(self);
    if (!vm || (!vm->log_before_done && write_log(self))) return -1;
    self->deleted = true;
    if (told(call(self, vm, on_delete, NULL, NULL))) return -1;
    int alive = PyDict_Contains(vm->contexts, self->base.id);
    if (alive < 0 || (alive && PyDict_DelItem(vm->contexts, self->base.id))) return -1;
    Py_CLEAR(self->stream);
    int closed = is_set(self->plugin, closed_name);
    return closed > 0 ? told(PyObject_CallMethodNoArgs(self->plugin, stream_gone_name)) : closed;
}

static PyObject *plain_delete(PlainContext *self, PyObject *none) {
    if (delete(self)) return NULL;
    Py_RETURN_NONE;
}

static int finish(PlainContext *self) {
    if (self->deleted) return 0;
    Entry *vm = entry_of(self);
    PyObject *result = vm ? call(self, vm, on_done, NULL, NULL) : NULL;
    if (!result) return -1;
    bool refused = PyLong_Check(result) && !PyObject_IsTrue(result);
    Py_DECREF(result);
    if (!refused || !vm->await_done || vm->failure != Py_None) return delete(self);
    self->pending_done = true;
    return 0;
}

static PyObject *plain_finish(PlainContext *self, PyObject *none) {
    if (finish(self)) return NULL;
    Py_RETURN_NONE;
}

static int log_if_first(PlainContext *self) {
    Entry *vm = entry_of(self);
    return !vm ? -1 : vm->log_before_done ? write_log(self) : 0;
}

PyObject *end_contexts(PyObject *module, PyObject *contexts) {
    if (!PyList_CheckExact(contexts)) return PyErr_Format(PyExc_TypeError, "contexts are a list, not %R", contexts);
    static int (*const STEPS[])(PlainContext *) = {log_if_first, finish};
    for (size_t step = 0; step < 2; step++) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(contexts); i++) {
            PyObject *context = Py_NewRef(PyList_GET_ITEM(contexts, i));
            int failed = -1;
            if (PyObject_TypeCheck(context, &PlainContextType)) failed = STEPS[step]((PlainContext *)context);
            else PyErr_Format(PyExc_TypeError, "%R is no HttpContext", context);
            Py_DECREF(context);
            if (failed) return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *to_override(PyObject *self, PyObject *args) {
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

static int plain_context_traverse(PlainContext *self, visitproc visit, void *arg) {
    Py_VISIT(self->stream);
    Py_VISIT(self->plugin);
    Py_VISIT(self->vm);
    return context_traverse(&self->base, visit, arg);
}

static int plain_context_clear(PlainContext *self) {
    Py_CLEAR(self->stream);
    Py_CLEAR(self->plugin);
    Py_CLEAR(self->vm);
    return context_clear(&self->base);
}

static void plain_context_dealloc(PlainContext *self) {
    PyObject_GC_UnTrack(self);
    plain_context_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef plain_context_methods[] = {
    {"create", (PyCFunction)plain_create, METH_NOARGS, NULL},
    {"on_headers", (PyCFunction)plain_on_headers, METH_VARARGS, NULL},
    {"log", (PyCFunction)plain_log, METH_NOARGS, NULL},
    {"finish", (PyCFunction)plain_finish, METH_NOARGS, NULL},
    {"delete", (PyCFunction)plain_delete, METH_NOARGS, NULL},
    {"headers_action", to_override, METH_VARARGS, NULL},
    {"failed", to_override, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef plain_context_members[] = {
    {"stream", T_OBJECT_EX, offsetof(PlainContext, stream), 0, NULL},
    {"plugin", T_OBJECT_EX, offsetof(PlainContext, plugin), READONLY, NULL},
    {"vm", T_OBJECT_EX, offsetof(PlainContext, vm), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef plain_context_flags[] = {
    FLAG(PlainContext, created),
    FLAG(PlainContext, deleted),
    FLAG(PlainContext, pending_done),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject PlainContextType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.PlainContext",
    .tp_basicsize = sizeof(PlainContext),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)plain_context_init,
    .tp_dealloc = (destructor)plain_context_dealloc,
    .tp_traverse = (traverseproc)plain_context_traverse,
    .tp_clear = (inquiry)plain_context_clear,
    .tp_methods = plain_context_methods,
    .tp_members = plain_context_members,
    .tp_getset = plain_context_flags,
};

/* -- Headers on their way in and out --------------------------------------------------------------------------- */

enum { FEW = 24 }; /* headers among which a name is sought one by one */

static bool same(PyObject *a, PyObject *b) {
    return a == b || (PyBytes_GET_SIZE(a) == PyBytes_GET_SIZE(b) &&
                      !memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)PyBytes_GET_SIZE(a)));
}

/* Whether all names of a list of plain pairs differ, or -1 with an exception. */
static int all_differ(PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count <= FEW) {
        for (Py_ssize_t i = 1; i < count; i++)
            for (Py_ssize_t j = 0; j < i; j++)
                if (same(PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 0), PyTuple_GET_ITEM(PyList_GET_ITEM(list, j), 0)))
                    return 0;
        return 1;
    }
    PyObject *names = PySet_New(NULL);
    if (!names) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PySet_Add(names, PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 0))) {
            Py_DECREF(names);
            return -1;
        }
    }
    int differ = PySet_GET_SIZE(names) == count;
    Py_DECREF(names);
    return differ;
}

/* A list of our own of headers that are plain pairs of bytes and, if `unique`, of different names. NULL without an
 * exception: they have to be looked at more closely. */
static PyObject *plain_headers(PyObject *headers, bool unique) {
    if (!PyList_CheckExact(headers)) return NULL;
    PyObject *list = PyList_GetSlice(headers, 0, PyList_GET_SIZE(headers)), *name, *value;
    if (!list) return NULL;
    int plain = 1;
    for (Py_ssize_t i = 0; plain && i < PyList_GET_SIZE(list); i++) plain = pair_of(list, i, &name, &value);
    if (plain && unique) plain = all_differ(list);
    if (plain <= 0) Py_CLEAR(list);
    return list;
}

static const struct {
    const char *name;
    int needed;
} KNOWN[2][6] = {
    {{":method", 1}, {":path", 2}, {":scheme", 0}, {":authority", 0}, {":protocol", 0}, {NULL, 0}},
    {{":status", 1}, {NULL, 0}},
}; /* as in http.py */
static const int NEEDED[] = {3, 1};

/* Whether headers may go out as they are: what HttpStream.for_wire gives back as it was. */
static bool fit(int direction, PyObject *headers) {
    PyObject *name, *value;
    int found = 0;
    if (!PyList_CheckExact(headers)) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        if (!pair_of(headers, i, &name, &value)) return false;
        const char *text = PyBytes_AS_STRING(name);
        if (text[0] != ':') {
            if (found == NEEDED[direction]) return true;
            continue;
        }
        int j = 0;
        while (KNOWN[direction][j].name && strcmp(KNOWN[direction][j].name, text)) j++;
        if (!KNOWN[direction][j].name || strlen(text) != (size_t)PyBytes_GET_SIZE(name)) return false;
        if (direction == RESPONSE) {
            const char *digit = PyBytes_AS_STRING(value), *end = digit + PyBytes_GET_SIZE(value);
            if (digit == end) return false;
            for (; digit < end; digit++)
                if (*digit < '0' || *digit > '9') return false;
        }
        found |= KNOWN[direction][j].needed;
    }
    return found == NEEDED[direction];
}

/* -- One direction --------------------------------------------------------------------------------------------- */

static int plain_path_init(PlainPath *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "direction", "filters", NULL};
    PyObject *stream, *filters;
    int direction;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OiO!:Path", names, &stream, &direction, &PyList_Type, &filters))
        return -1;
    if (direction != REQUEST && direction != RESPONSE) {
        PyErr_Format(PyExc_ValueError, "direction %d", direction);
        return -1;
    }
    Py_XSETREF(self->stream, Py_NewRef(stream));
    Py_XSETREF(self->filters, Py_NewRef(filters));
    Py_XSETREF(self->headers, Py_NewRef(nothing));
    Py_XSETREF(self->stopped, Py_NewRef(nobody));
    Py_XSETREF(self->given_end, PyByteArray_FromStringAndSize(NULL, PyList_GET_SIZE(filters)));
    if (!self->given_end) return -1;
    memset(PyByteArray_AS_STRING(self->given_end), 0, (size_t)PyList_GET_SIZE(filters));
    self->direction = direction;
    self->calling = -1;
    return 0;
}

static int64_t filter_on_headers(PlainPath *self, PyObject *filter, bool end_stream) {
    PyObject *headers = Py_NewRef(self->headers);
    int64_t action;
    if (PyObject_TypeCheck(filter, &PlainContextType) && PyList_CheckExact(headers)) {
        action = context_on_headers((PlainContext *)filter, self->direction, headers, end_stream);
    } else {
        action = answer(PyObject_CallMethod(filter, "on_headers", "iOO", self->direction, headers,
                                            end_stream ? Py_True : Py_False));
    }
    Py_DECREF(headers);
    return action;
}

/* The outbox of a stream's host, borrowed. */
static Outbox *outbox_of(PyObject *stream) {
    Outbox *outbox = PyObject_TypeCheck(stream, &PlainStreamType) ? (Outbox *)((PlainStream *)stream)->outbox : NULL;
    if (!outbox) PyErr_Format(PyExc_TypeError, "%R is no HttpStream", stream);
    return outbox;
}

static int out_headers(PlainPath *self, bool end_stream) {
    if (!self->stream) return 0;
    PyObject *stream = Py_NewRef(self->stream), *headers = Py_NewRef(self->headers), *effect = NULL;
    int failed = -1;
    if (!fit(self->direction, headers))
        Py_SETREF(headers, PyObject_CallMethod(stream, "for_wire", "iO", self->direction, headers));
    if (headers == Py_None) {
        failed = 0;
    } else if (headers) {
        PyObject *args[] = {headers, end_stream ? Py_True : Py_False, stream};
        self->complete = end_stream;
        self->headers_sent = true;
        effect = PyObject_Vectorcall(known.headers_out[self->direction], args, 3, NULL);
        Outbox *outbox = effect ? outbox_of(stream) : NULL;
        if (outbox) failed = PyList_Append(outbox->effects, effect);
    }
    Py_XDECREF(effect);
    Py_XDECREF(headers);
    Py_DECREF(stream);
    return failed;
}

static int pass_headers(PlainPath *self, Py_ssize_t start, bool end_stream) {
    for (Py_ssize_t index = start; index < PyList_GET_SIZE(self->filters); index++) {
        if (end_stream && index < PyByteArray_GET_SIZE(self->given_end))
            PyByteArray_AS_STRING(self->given_end)[index] = 1;
        PyObject *filter = Py_NewRef(PyList_GET_ITEM(self->filters, index));
        self->calling = index;
        int64_t action = filter_on_headers(self, filter, end_stream);
        Py_DECREF(filter);
        if (action < 0) return -1;
        self->calling = -1;
        if (self->aborted) {
            if (!self->stream) return 0;
            return told(PyObject_CallMethodNoArgs(self->stream, send_prepared_name));
        }
        if (action) return told(PyObject_CallMethod((PyObject *)self, "stop", "nL", index, (long long)action));
        if (self->passed > index) return 0; /* it has injected data: they have gone on already */
        self->passed = index + 1;
    }
    return out_headers(self, end_stream);
}

static PyObject *path_pass_headers(PlainPath *self, PyObject *args) {
    Py_ssize_t start;
    int end_stream;
    if (!PyArg_ParseTuple(args, "np:pass_headers", &start, &end_stream)) return NULL;
    if (start < 0) return PyErr_Format(PyExc_ValueError, "filter %zd", start);
    if (pass_headers(self, start, end_stream)) return NULL;
    Py_RETURN_NONE;
}

static int begin(PlainPath *self, PyObject *headers, bool end_stream) {
    Py_XSETREF(self->headers, Py_NewRef(headers));
    self->started = true;
    self->ended = end_stream;
    return pass_headers(self, 0, end_stream);
}

static PyObject *drained(PyObject *stream) {
    Outbox *outbox = outbox_of(stream);
    return outbox ? outbox_drain(outbox, NULL) : NULL;
}

static PyObject *path_feed_headers(PlainPath *self, PyObject *const *args, Py_ssize_t count) {
    int end_stream = count == 2 ? PyObject_IsTrue(args[1]) : -1;
    if (end_stream < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "feed_headers() takes headers and whether they are all");
        return NULL;
    }
    if (self->started)
        return PyErr_Format(PyExc_RuntimeError, "the %s's headers were given before",
                            self->direction == REQUEST ? "request" : "response");
    if (!self->stream) return PyErr_Format(PyExc_RuntimeError, "the stream is closed");
    PyObject *stream = Py_NewRef(self->stream), *effects = NULL;
    int failed = 0;
    if (!self->aborted) {
        /* Names may occur twice where nothing is joined, but to ask costs more than to look. */
        PyObject *headers = plain_headers(args[0], true);
        if (!headers && !PyErr_Occurred())
            headers = PyObject_CallMethod(stream, "checked", "On", args[0], HEADERS_MAP[self->direction]);
        failed = headers ? begin(self, headers, end_stream) : -1;
        Py_XDECREF(headers);
    }
    if (!failed) effects = drained(stream);
    Py_DECREF(stream);
    return effects;
}

static PyObject *path_on_headers(PlainPath *self, PyObject *const *args, Py_ssize_t count) {
    int end_stream = count == 2 ? PyObject_IsTrue(args[1]) : -1;
    if (end_stream < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "on_headers() takes headers and whether they are all");
        return NULL;
    }
    if (begin(self, args[0], end_stream)) return NULL;
    Py_RETURN_NONE;
}

static int path_traverse(PlainPath *self, visitproc visit, void *arg) {
    Py_VISIT(self->stream);
    Py_VISIT(self->filters);
    Py_VISIT(self->headers);
    Py_VISIT(self->stopped);
    Py_VISIT(self->buffer);
    Py_VISIT(self->holder);
    Py_VISIT(self->trailers);
    Py_VISIT(self->given_end);
    return 0;
}

static int path_clear(PlainPath *self) {
    Py_CLEAR(self->stream);
    Py_CLEAR(self->filters);
    Py_CLEAR(self->headers);
    Py_CLEAR(self->stopped);
    Py_CLEAR(self->buffer);
    Py_CLEAR(self->holder);
    Py_CLEAR(self->trailers);
    Py_CLEAR(self->given_end);
    return 0;
}

static void path_dealloc(PlainPath *self) {
    PyObject_GC_UnTrack(self);
    path_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef path_methods[] = {
    {"feed_headers", (PyCFunction)(void (*)(void))path_feed_headers, METH_FASTCALL, NULL},
    {"on_headers", (PyCFunction)(void (*)(void))path_on_headers, METH_FASTCALL, NULL},
    {"pass_headers", (PyCFunction)path_pass_headers, METH_VARARGS, NULL},
    {"stop", to_override, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef path_members[] = {
    {"stream", T_OBJECT_EX, offsetof(PlainPath, stream), 0, NULL},
    {"direction", T_INT, offsetof(PlainPath, direction), READONLY, NULL},
    {"filters", T_OBJECT_EX, offsetof(PlainPath, filters), READONLY, NULL},
    {"headers", T_OBJECT_EX, offsetof(PlainPath, headers), 0, NULL},
    {"stopped", T_OBJECT_EX, offsetof(PlainPath, stopped), 0, NULL},
    {"buffer", T_OBJECT, offsetof(PlainPath, buffer), 0, NULL},
    {"holder", T_OBJECT, offsetof(PlainPath, holder), 0, NULL},
    {"trailers", T_OBJECT, offsetof(PlainPath, trailers), 0, NULL},
    {"given_end", T_OBJECT_EX, offsetof(PlainPath, given_end), READONLY, NULL},
    {"passed", T_PYSSIZET, offsetof(PlainPath, passed), 0, NULL},
    {"calling", T_PYSSIZET, offsetof(PlainPath, calling), 0, NULL},
    {"received", T_ULONGLONG, offsetof(PlainPath, received), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef path_flags[] = {
    FLAG(PlainPath, started),  FLAG(PlainPath, headers_sent), FLAG(PlainPath, streaming), FLAG(PlainPath, ended),
    FLAG(PlainPath, complete), FLAG(PlainPath, aborted),      {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject PlainPathType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.PlainPath",
    .tp_basicsize = sizeof(PlainPath),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)plain_path_init,
    .tp_dealloc = (destructor)path_dealloc,
    .tp_traverse = (traverseproc)path_traverse,
    .tp_clear = (inquiry)path_clear,
    .tp_methods = path_methods,
    .tp_members = path_members,
    .tp_getset = path_flags,
};

/* -- A stream -------------------------------------------------------------------------------------------------- */

static PyObject *now(PyObject *host) {
    PyObject *services = PyObject_GetAttr(host, services_name);
    PyObject *clock = services ? PyObject_GetAttr(services, clock_name) : NULL;
    PyObject *time = clock ? PyObject_CallMethodNoArgs(clock, time_name) : NULL;
    Py_XDECREF(clock);
    Py_XDECREF(services);
    return time;
}

/* A context for each plugin, in their order. */
static PyObject *contexts_for(PlainStream *self, PyObject *plugins) {
    PyObject *contexts = PyList_New(0);
    for (Py_ssize_t i = 0; contexts && i < PyList_GET_SIZE(plugins); i++) {
        PyObject *args[] = {(PyObject *)self, PyList_GET_ITEM(plugins, i)};
        PyObject *context = PyObject_Vectorcall(known.http_context, args, 2, NULL);
        if (!context || PyList_Append(contexts, context)) Py_CLEAR(contexts);
        Py_XDECREF(context);
    }
    return contexts;
}

static PyObject *reversed(PyObject *list) {
    PyObject *copy = PyList_GetSlice(list, 0, PyList_GET_SIZE(list));
    if (copy && PyList_Reverse(copy)) Py_CLEAR(copy);
    return copy;
}

/* A Path; takes `filters` over. */
static PyObject *path_of(PlainStream *self, PyObject *direction, PyObject *filters) {
    if (!filters) return NULL;
    PyObject *args[] = {(PyObject *)self, direction, filters}, *path = PyObject_Vectorcall(known.path, args, 3, NULL);
    Py_DECREF(filters);
    return path;
}

static int stream_init(PlainStream *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"host", "plugins", "properties", "buffer_limit", NULL};
    PyObject *host, *plugins, *properties, *limit;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO!OO:HttpStream", names, &host, &PyList_Type, &plugins,
                                     &properties, &limit))
        return -1;
    if (!known.http_context || !known.path) {
        PyErr_SetString(PyExc_RuntimeError, "proxywasm_host.runtime.http was not imported");
        return -1;
    }
    PyObject *outbox = PyObject_GetAttr(host, outbox_name);
    if (outbox && !Py_IS_TYPE(outbox, &OutboxType)) {
        PyErr_SetString(PyExc_TypeError, "the host's outbox is none");
        Py_CLEAR(outbox);
    }
    if (!outbox) return -1;
    Py_XSETREF(self->host, Py_NewRef(host));
    Py_XSETREF(self->outbox, outbox);
    Py_XSETREF(self->properties, Py_NewRef(properties));
    Py_XSETREF(self->buffer_limit, Py_NewRef(limit));
    Py_XSETREF(self->started_ns, now(host));
    if (!self->started_ns) return -1;
    Py_XSETREF(self->contexts, contexts_for(self, plugins));
    if (!self->contexts) return -1;
    Py_XSETREF(self->request, path_of(self, directions[REQUEST], Py_NewRef(self->contexts)));
    if (!self->request) return -1;
    Py_XSETREF(self->response, path_of(self, directions[RESPONSE], reversed(self->contexts)));
    return self->response ? 0 : -1;
}

static PyObject *or_none(PyObject *headers) {
    bool any = headers && PyList_Check(headers) && PyList_GET_SIZE(headers);
    return any ? headers : Py_None;
}

static PyObject *maps_for_log(PyObject *stream) {
    PlainStream *self = (PlainStream *)stream;
    if (!PyObject_TypeCheck(stream, &PlainStreamType) || !self->request || !self->response)
        return PyErr_Format(PyExc_TypeError, "%R is no HttpStream", stream);
    PlainPath *request = (PlainPath *)self->request, *response = (PlainPath *)self->response;
    return Py_BuildValue("[OOOO]", or_none(request->headers), Py_None, or_none(response->headers),
                         response->trailers ? response->trailers : Py_None);
}

static PyObject *stream_maps_for_log(PlainStream *self, PyObject *none) { return maps_for_log((PyObject *)self); }

static int set_path(PlainStream *self, PyObject *path, void *at) {
    if (!path || !PyObject_TypeCheck(path, &PlainPathType)) {
        PyErr_SetString(PyExc_TypeError, "the path of a stream is none");
        return -1;
    }
    PyObject **place = (PyObject **)((char *)self + (size_t)at);
    Py_XSETREF(*place, Py_NewRef(path));
    return 0;
}

static PyObject *get_path(PlainStream *self, void *at) {
    PyObject *path = *(PyObject **)((char *)self + (size_t)at);
    if (!path) PyErr_SetString(PyExc_AttributeError, "the stream has no paths yet");
    return Py_XNewRef(path);
}

static int stream_traverse(PlainStream *self, visitproc visit, void *arg) {
    Py_VISIT(self->host);
    Py_VISIT(self->outbox);
    Py_VISIT(self->properties);
    Py_VISIT(self->buffer_limit);
    Py_VISIT(self->started_ns);
    Py_VISIT(self->contexts);
    Py_VISIT(self->request);
    Py_VISIT(self->response);
    return 0;
}

static int stream_clear(PlainStream *self) {
    Py_CLEAR(self->host);
    Py_CLEAR(self->outbox);
    Py_CLEAR(self->properties);
    Py_CLEAR(self->buffer_limit);
    Py_CLEAR(self->started_ns);
    Py_CLEAR(self->contexts);
    Py_CLEAR(self->request);
    Py_CLEAR(self->response);
    return 0;
}

static void stream_dealloc(PlainStream *self) {
    PyObject_GC_UnTrack(self);
    stream_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef stream_methods[] = {
    {"maps_for_log", (PyCFunction)stream_maps_for_log, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef stream_members[] = {
    {"host", T_OBJECT_EX, offsetof(PlainStream, host), READONLY, NULL},
    {"properties", T_OBJECT_EX, offsetof(PlainStream, properties), 0, NULL},
    {"buffer_limit", T_OBJECT_EX, offsetof(PlainStream, buffer_limit), 0, NULL},
    {"started_ns", T_OBJECT_EX, offsetof(PlainStream, started_ns), 0, NULL},
    {"_contexts", T_OBJECT_EX, offsetof(PlainStream, contexts), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef stream_paths[] = {
    {"_request", (getter)get_path, (setter)set_path, NULL, (void *)offsetof(PlainStream, request)},
    {"_response", (getter)get_path, (setter)set_path, NULL, (void *)offsetof(PlainStream, response)},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject PlainStreamType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.PlainStream",
    .tp_basicsize = sizeof(PlainStream),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)stream_init,
    .tp_dealloc = (destructor)stream_dealloc,
    .tp_traverse = (traverseproc)stream_traverse,
    .tp_clear = (inquiry)stream_clear,
    .tp_methods = stream_methods,
    .tp_members = stream_members,
    .tp_getset = stream_paths,
};
