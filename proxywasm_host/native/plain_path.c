/* One direction of a stream: the twin of PlainPath in runtime/plain.py, method by method. */
#include "plain.h"

static PyObject *send_prepared_name;
static PyObject *nothing, *nobody; /* an empty list and an empty mapping, which are never changed */

int path_names(void) {
    static const Name NAMES[] = {
        {&send_prepared_name, "send_prepared"},
    };
    PyObject *empty = PyDict_New();
    nothing = PyList_New(0), nobody = empty ? PyDictProxy_New(empty) : NULL;
    Py_XDECREF(empty);
    return nothing && nobody ? INTERN(NAMES) : -1;
}

static int start(PlainPath *self, PyObject *stream, int direction, PyObject *filters) {
    if (self->filters) return PyErr_SetString(PyExc_RuntimeError, "a path is made once"), -1;
    self->count = PyList_GET_SIZE(filters);
    self->given_end = self->count <= FEW_FILTERS ? self->few : PyMem_Calloc((size_t)self->count, 1);
    if (!self->given_end) return PyErr_NoMemory(), -1;
    self->stream = Py_NewRef(stream);
    self->filters = Py_NewRef(filters);
    self->headers = Py_NewRef(nothing);
    self->stopped = Py_NewRef(nobody);
    self->direction = direction;
    self->calling = -1;
    return 0;
}

static int plain_path_init(PlainPath *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "direction", "filters", NULL};
    PyObject *stream, *filters;
    int direction;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OiO!:Path", names, &stream, &direction, &PyList_Type, &filters))
        return -1;
    if (direction == REQUEST || direction == RESPONSE) return start(self, stream, direction, filters);
    PyErr_Format(PyExc_ValueError, "direction %d", direction);
    return -1;
}

PlainPath *path_make(PyObject *stream, int direction, PyObject *filters) {
    PyTypeObject *type = (PyTypeObject *)known.path;
    if (!is_made_here(type, (initproc)plain_path_init))
        return (PlainPath *)PyObject_CallFunction(known.path, "OiO", stream, direction, filters);
    PyObject *self = type->tp_alloc(type, 0);
    if (self && start((PlainPath *)self, stream, direction, filters)) Py_CLEAR(self);
    return (PlainPath *)self;
}

/* -- The end of the message ------------------------------------------------------------------------------------- */

/* Where it is noted that a filter, by its place in the chain, was given it; NULL with an exception if there is none. */
static uint8_t *end_of(PlainPath *self, PyObject *place) {
    Py_ssize_t index = PyLong_AsSsize_t(place);
    if (index == -1 && PyErr_Occurred()) return NULL;
    if (index >= 0 && index < self->count) return &self->given_end[index];
    PyErr_Format(PyExc_IndexError, "filter %zd", index);
    return NULL;
}

static PyObject *path_give_end(PlainPath *self, PyObject *place) {
    uint8_t *given = end_of(self, place);
    if (!given) return NULL;
    *given = 1;
    Py_RETURN_NONE;
}

static PyObject *path_was_given_end(PlainPath *self, PyObject *place) {
    uint8_t *given = end_of(self, place);
    return given ? PyBool_FromLong(*given) : NULL;
}

/* -- Headers ---------------------------------------------------------------------------------------------------- */

static PyObject *headers_of(const PlainPath *self) {
    if (!self->headers) PyErr_SetString(PyExc_RuntimeError, "the path was never made, or is gone");
    return Py_XNewRef(self->headers);
}

static int64_t filter_on_headers(PlainPath *self, PyObject *filter, bool end_stream) {
    PyObject *headers = headers_of(self);
    int64_t action;
    if (!headers) return -1;
    if (is_a(filter, known.http_context, &PlainContextType) && PyList_CheckExact(headers)) {
        action = context_on_headers((PlainContext *)filter, self->direction, headers, end_stream);
    } else {
        action = action_of(PyObject_CallMethod(filter, "on_headers", "iOO", self->direction, headers,
                                               end_stream ? Py_True : Py_False));
    }
    Py_DECREF(headers);
    return action;
}

static int out_headers(PlainPath *self, bool end_stream) {
    if (!self->stream) return 0;
    PyObject *stream = Py_NewRef(self->stream), *headers = headers_of(self);
    int failed = -1;
    if (headers && !fit_for_wire(self->direction, headers))
        Py_SETREF(headers, PyObject_CallMethod(stream, "for_wire", "iO", self->direction, headers));
    if (!headers || headers == Py_None) {
        failed = headers ? 0 : -1;
    } else if (!is_a(stream, known.http_stream, &PlainStreamType) || !((PlainStream *)stream)->outbox) {
        PyErr_Format(PyExc_TypeError, "%R is no HttpStream", stream);
    } else {
        self->complete = end_stream;
        self->headers_sent = true;
        PyObject *effect = headers_effect(self->direction, headers, end_stream, stream);
        if (effect) failed = PyList_Append(((PlainStream *)stream)->outbox->effects, effect);
        Py_XDECREF(effect);
    }
    Py_XDECREF(headers);
    Py_DECREF(stream);
    return failed;
}

static int send_prepared(const PlainPath *self) {
    if (!self->stream) return 0;
    PyObject *stream = Py_NewRef(self->stream);
    int failed = told(PyObject_CallMethodNoArgs(stream, send_prepared_name));
    Py_DECREF(stream);
    return failed;
}

static int pass_headers(PlainPath *self, Py_ssize_t start, bool end_stream) {
    Py_ssize_t index = start;
    for (; self->filters && index < PyList_GET_SIZE(self->filters); index++) {
        if (end_stream && index < self->count) self->given_end[index] = 1;
        PyObject *filter = Py_NewRef(PyList_GET_ITEM(self->filters, index));
        self->calling = index;
        int64_t action = filter_on_headers(self, filter, end_stream);
        Py_DECREF(filter);
        if (action < 0) return -1;
        self->calling = -1;
        if (self->aborted) return send_prepared(self);
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

/* Note how many they are. 1: they are within the stream's limits, 0: they were refused, -1 with an exception. */
static int within_limits(PlainPath *self, PyObject *headers, Py_ssize_t count, Py_ssize_t size) {
    self->header_count = PyList_GET_SIZE(headers);
    self->header_size = size;
    const PlainStream *stream = (PlainStream *)self->stream;
    if (!is_a(self->stream, known.http_stream, &PlainStreamType)) return 1;
    if (count <= stream->most_headers && size <= stream->most_header_bytes) return 1;
    PyObject *kept = Py_NewRef(self->stream);
    int failed = told(
        PyObject_CallMethod(kept, "over_header_limits", "Onn", self, (Py_ssize_t)HEADERS_MAP[self->direction], count));
    Py_DECREF(kept);
    return failed;
}

int path_feed_headers(PlainPath *self, PyObject *given, bool end_stream) {
    if (self->started) {
        PyErr_Format(PyExc_RuntimeError, "the %s's headers were given before",
                     self->direction == REQUEST ? "request" : "response");
        return -1;
    }
    if (!self->stream) return PyErr_SetString(PyExc_RuntimeError, "the stream is closed"), -1;
    if (self->aborted) return 0;
    /* Names may occur twice where nothing is joined, but to ask costs more than to look. */
    Py_ssize_t count, size;
    PyObject *headers = plain_headers(given, &count, &size);
    int taken = headers ? within_limits(self, headers, count, size) : -1;
    if (!headers && !PyErr_Occurred()) {
        headers = PyObject_CallMethod(self->stream, "checked", "On", given, (Py_ssize_t)HEADERS_MAP[self->direction]);
        taken = !headers ? -1 : headers != Py_None;
    }
    int failed = taken > 0 ? begin(self, headers, end_stream) : taken;
    Py_XDECREF(headers);
    return failed;
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
    Py_VISIT(self->dict);
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
    Py_CLEAR(self->dict);
    return 0;
}

static void path_dealloc(PlainPath *self) {
    PyObject_GC_UnTrack(self);
    path_clear(self);
    if (self->given_end != self->few) PyMem_Free(self->given_end);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef path_methods[] = {
    {"on_headers", (PyCFunction)(void (*)(void))path_on_headers, METH_FASTCALL, NULL},
    {"pass_headers", (PyCFunction)path_pass_headers, METH_VARARGS, NULL},
    {"give_end", (PyCFunction)path_give_end, METH_O, NULL},
    {"was_given_end", (PyCFunction)path_was_given_end, METH_O, NULL},
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
    {"passed", T_PYSSIZET, offsetof(PlainPath, passed), 0, NULL},
    {"calling", T_PYSSIZET, offsetof(PlainPath, calling), 0, NULL},
    {"header_count", T_PYSSIZET, offsetof(PlainPath, header_count), 0, NULL},
    {"header_size", T_PYSSIZET, offsetof(PlainPath, header_size), 0, NULL},
    {"received", T_ULONGLONG, offsetof(PlainPath, received), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef path_getset[] = {
    DICT,
    FLAG(PlainPath, started),
    FLAG(PlainPath, headers_sent),
    FLAG(PlainPath, streaming),
    FLAG(PlainPath, ended),
    FLAG(PlainPath, complete),
    FLAG(PlainPath, aborted),
    {NULL, NULL, NULL, NULL, NULL},
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
    .tp_getset = path_getset,
    .tp_dictoffset = offsetof(PlainPath, dict),
};
