/* One direction of a stream: the C form of FilterChainBase in runtime/fast_path.py, method by method. */
#include "fast_path.h"

static PyObject *send_prepared_name, *pass_data_name, *zero;
static PyObject *nothing, *nobody; /* an empty list and an empty mapping, never changed */

int chain_names(void) {
    static const Name NAMES[] = {
        {&send_prepared_name, "_send_prepared"},
        {&pass_data_name, "pass_data"},
    };
    PyObject *empty = PyDict_New();
    nothing = PyList_New(0), zero = PyLong_FromLong(0), nobody = empty ? PyDictProxy_New(empty) : NULL;
    Py_XDECREF(empty);
    return nothing && zero && nobody ? INTERN(NAMES) : -1;
}

static int start(FilterChainBase *self, PyObject *stream, int direction, PyObject *filters) {
    if (self->filters) return PyErr_SetString(PyExc_RuntimeError, "a path is made once"), -1;
    self->count = PyList_GET_SIZE(filters);
    self->given_end = self->count <= FEW_FILTERS ? self->few : PyMem_Calloc((size_t)self->count, 1);
    if (!self->given_end) return PyErr_NoMemory(), -1;
    self->stream = Py_NewRef(stream);
    self->filters = Py_NewRef(filters);
    self->headers = Py_NewRef(nothing);
    self->stopped = Py_NewRef(nobody);
    self->resume_asked = Py_NewRef(zero);
    self->direction = direction;
    self->calling = -1;
    return 0;
}

static int filter_chain_init(FilterChainBase *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "direction", "filters", NULL};
    PyObject *stream, *filters;
    int direction;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OiO!:FilterChain", names, &stream, &direction, &PyList_Type,
                                     &filters))
        return -1;
    if (direction == REQUEST || direction == RESPONSE) return start(self, stream, direction, filters);
    PyErr_Format(PyExc_ValueError, "direction %d", direction);
    return -1;
}

FilterChainBase *chain_make(PyObject *stream, int direction, PyObject *filters) {
    PyTypeObject *type = (PyTypeObject *)known.filter_chain;
    if (!is_made_here(type, (initproc)filter_chain_init))
        return (FilterChainBase *)PyObject_CallFunction(known.filter_chain, "OiO", stream, direction, filters);
    PyObject *self = type->tp_alloc(type, 0);
    if (self && start((FilterChainBase *)self, stream, direction, filters)) Py_CLEAR(self);
    return (FilterChainBase *)self;
}

/* -- The end of the message ------------------------------------------------------------------------------------- */

/* The byte that records that a filter, by its index, has got the end of the message; NULL with an exception if the
 * filter does not exist. */
static uint8_t *end_of(FilterChainBase *self, PyObject *place) {
    Py_ssize_t index = PyLong_AsSsize_t(place);
    if (index == -1 && PyErr_Occurred()) return NULL;
    if (index >= 0 && index < self->count) return &self->given_end[index];
    PyErr_Format(PyExc_IndexError, "filter %zd", index);
    return NULL;
}

static PyObject *chain_give_end(FilterChainBase *self, PyObject *place) {
    uint8_t *given = end_of(self, place);
    if (!given) return NULL;
    *given = 1;
    Py_RETURN_NONE;
}

static PyObject *chain_was_given_end(FilterChainBase *self, PyObject *place) {
    uint8_t *given = end_of(self, place);
    return given ? PyBool_FromLong(*given) : NULL;
}

/* -- Headers ---------------------------------------------------------------------------------------------------- */

static PyObject *headers_of(const FilterChainBase *self) {
    if (!self->headers) PyErr_SetString(PyExc_RuntimeError, "the path was never made, or is gone");
    return Py_XNewRef(self->headers);
}

static int64_t filter_on_headers(FilterChainBase *self, PyObject *filter, bool end_stream) {
    PyObject *headers = headers_of(self);
    int64_t action;
    if (!headers) return -1;
    if (is_a(filter, known.http_context, &HttpContextBaseType) && PyList_CheckExact(headers)) {
        action = context_on_headers((HttpContextBase *)filter, self->direction, headers, end_stream);
    } else {
        action = action_of(PyObject_CallMethod(filter, "on_headers", "iOO", self->direction, headers,
                                               end_stream ? Py_True : Py_False));
    }
    Py_DECREF(headers);
    return action;
}

static int out_headers(FilterChainBase *self, bool end_stream) {
    if (!self->stream) return 0;
    PyObject *stream = Py_NewRef(self->stream), *headers = headers_of(self);
    int failed = -1;
    if (headers && !fit_for_wire(self->direction, headers))
        Py_SETREF(headers, PyObject_CallMethod(stream, "_for_wire", "iO", self->direction, headers));
    if (!headers || headers == Py_None) {
        failed = headers ? 0 : -1;
    } else if (!is_a(stream, known.http_stream, &HttpStreamBaseType) || !((HttpStreamBase *)stream)->outbox) {
        PyErr_Format(PyExc_TypeError, "%R is not an HttpStream", stream);
    } else {
        self->complete = end_stream;
        self->headers_sent = true;
        PyObject *effect = headers_effect(self->direction, headers, end_stream, stream);
        if (effect) failed = PyList_Append(((HttpStreamBase *)stream)->outbox->effects, effect);
        Py_XDECREF(effect);
    }
    Py_XDECREF(headers);
    Py_DECREF(stream);
    return failed;
}

static int send_prepared(const FilterChainBase *self) {
    if (!self->stream) return 0;
    PyObject *stream = Py_NewRef(self->stream);
    int failed = told(PyObject_CallMethodNoArgs(stream, send_prepared_name));
    Py_DECREF(stream);
    return failed;
}

static int pass_headers(FilterChainBase *self, Py_ssize_t start, bool end_stream) {
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
        if (self->passed > index) return 0; /* it has injected data, so the headers have been passed on already */
        self->passed = index + 1;
    }
    return out_headers(self, end_stream);
}

static PyObject *chain_pass_headers(FilterChainBase *self, PyObject *args) {
    Py_ssize_t start;
    int end_stream;
    if (!PyArg_ParseTuple(args, "np:pass_headers", &start, &end_stream)) return NULL;
    if (start < 0) return PyErr_Format(PyExc_ValueError, "filter %zd", start);
    if (pass_headers(self, start, end_stream)) return NULL;
    Py_RETURN_NONE;
}

static int begin(FilterChainBase *self, PyObject *headers, bool end_stream) {
    Py_XSETREF(self->headers, Py_NewRef(headers));
    self->started = true;
    self->ended = end_stream;
    return pass_headers(self, 0, end_stream);
}

/* Record the count and size of headers. Returns 1 if they are within the stream's limits, 0 if they were refused, or -1
 * with an exception. */
static int within_limits(FilterChainBase *self, PyObject *headers, Py_ssize_t count, Py_ssize_t size) {
    self->header_count = PyList_GET_SIZE(headers);
    self->header_size = size;
    const HttpStreamBase *stream = (HttpStreamBase *)self->stream;
    if (!is_a(self->stream, known.http_stream, &HttpStreamBaseType)) return 1;
    if (count <= stream->max_headers && size <= stream->max_header_bytes) return 1;
    PyObject *kept = Py_NewRef(self->stream);
    int failed = told(
        PyObject_CallMethod(kept, "_over_header_limits", "Onn", self, (Py_ssize_t)HEADERS_MAP[self->direction], count));
    Py_DECREF(kept);
    return failed;
}

int chain_feed_headers(FilterChainBase *self, PyObject *given, bool end_stream, bool owned) {
    if (self->started) {
        PyErr_Format(PyExc_RuntimeError, "the %s's headers were given before",
                     self->direction == REQUEST ? "request" : "response");
        return -1;
    }
    if (!self->stream) return PyErr_SetString(PyExc_RuntimeError, "the stream is closed"), -1;
    if (self->aborted) return 0;
    /* Some streams allow repeated names, but to query that takes longer than to check the names. */
    Py_ssize_t count, size;
    PyObject *headers = checked_headers(given, owned, &count, &size);
    int taken = headers ? within_limits(self, headers, count, size) : -1;
    if (!headers && !PyErr_Occurred()) {
        headers = PyObject_CallMethod(self->stream, "_checked", "OnO", given, (Py_ssize_t)HEADERS_MAP[self->direction],
                                      owned ? Py_True : Py_False);
        taken = !headers ? -1 : headers != Py_None;
    }
    int failed = taken > 0 ? begin(self, headers, end_stream) : taken;
    Py_XDECREF(headers);
    return failed;
}

static PyObject *chain_on_headers(FilterChainBase *self, PyObject *const *args, Py_ssize_t count) {
    int end_stream = count == 2 ? PyObject_IsTrue(args[1]) : -1;
    if (end_stream < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "on_headers() takes headers and whether they are all");
        return NULL;
    }
    if (begin(self, args[0], end_stream)) return NULL;
    Py_RETURN_NONE;
}

/* -- The body --------------------------------------------------------------------------------------------------- */

static int out_data(FilterChainBase *self, PyObject *data, bool end_stream) {
    int any = end_stream ? 1 : PyObject_IsTrue(data);
    if (any < 0) return -1;
    if (!any || self->complete || !self->stream) return 0;
    if (!is_a(self->stream, known.http_stream, &HttpStreamBaseType) || !((HttpStreamBase *)self->stream)->outbox)
        return PyErr_Format(PyExc_TypeError, "%R is not an HttpStream", self->stream), -1;
    PyObject *effect = body_effect(self->direction, data, end_stream, self->stream);
    if (!effect) return -1;
    int failed = self->stream ? PyList_Append(((HttpStreamBase *)self->stream)->outbox->effects, effect) : 0;
    Py_DECREF(effect);
    self->complete = end_stream;
    return failed;
}

static PyObject *chain_out_data(FilterChainBase *self, PyObject *const *args, Py_ssize_t count) {
    int end_stream = count == 2 ? PyObject_IsTrue(args[1]) : -1;
    if (end_stream < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "out_data() takes data and whether they are the last");
        return NULL;
    }
    if (out_data(self, args[0], end_stream)) return NULL;
    Py_RETURN_NONE;
}

/* Whether no filter handles bodies, so that they are sent unchanged. */
static bool is_open(const FilterChainBase *self) {
    if (self->stopped != nobody || self->buffer || self->trailers || !self->filters) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(self->filters); i++) {
        PyObject *filter = PyList_GET_ITEM(self->filters, i);
        if (i >= self->count || self->given_end[i] || !is_a(filter, known.http_context, &HttpContextBaseType) ||
            !context_sees_no_body((HttpContextBase *)filter, self->direction))
            return false;
    }
    return true;
}

int chain_feed_data(FilterChainBase *self, PyObject *data, bool end_stream) {
    self->received += (unsigned long long)PyBytes_GET_SIZE(data);
    self->ended = end_stream;
    Py_XSETREF(self->resume_asked, Py_NewRef(zero));
    if (!is_open(self))
        return told(PyObject_CallMethodObjArgs((PyObject *)self, pass_data_name, zero, data,
                                               end_stream ? Py_True : Py_False, NULL));
    if (end_stream) memset(self->given_end, 1, (size_t)PyList_GET_SIZE(self->filters));
    return out_data(self, data, end_stream);
}

static PyObject *chain_on_data(FilterChainBase *self, PyObject *const *args, Py_ssize_t count) {
    int end_stream = count == 2 && PyBytes_Check(args[0]) ? PyObject_IsTrue(args[1]) : -1;
    if (end_stream < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_TypeError, "on_data() takes bytes and whether they are the last");
        return NULL;
    }
    if (chain_feed_data(self, args[0], end_stream)) return NULL;
    Py_RETURN_NONE;
}

static int chain_traverse(FilterChainBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->stream);
    Py_VISIT(self->filters);
    Py_VISIT(self->headers);
    Py_VISIT(self->stopped);
    Py_VISIT(self->buffer);
    Py_VISIT(self->holder);
    Py_VISIT(self->trailers);
    Py_VISIT(self->resume_asked);
    Py_VISIT(self->dict);
    return 0;
}

static int chain_clear(FilterChainBase *self) {
    Py_CLEAR(self->stream);
    Py_CLEAR(self->filters);
    Py_CLEAR(self->headers);
    Py_CLEAR(self->stopped);
    Py_CLEAR(self->buffer);
    Py_CLEAR(self->holder);
    Py_CLEAR(self->trailers);
    Py_CLEAR(self->resume_asked);
    Py_CLEAR(self->dict);
    return 0;
}

static void chain_dealloc(FilterChainBase *self) {
    PyObject_GC_UnTrack(self);
    chain_clear(self);
    if (self->given_end != self->few) PyMem_Free(self->given_end);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef chain_methods[] = {
    {"on_headers", (PyCFunction)(void (*)(void))chain_on_headers, METH_FASTCALL,
     "on_headers($self, headers, end_stream, /)\n--\n\n"
     "Handle the received headers."},
    {"pass_headers", (PyCFunction)chain_pass_headers, METH_VARARGS,
     "pass_headers($self, start, end_stream, /)\n--\n\n"
     "Pass the headers through the filters from `start` on, and send them unless a filter stops them."},
    {"give_end", (PyCFunction)chain_give_end, METH_O,
     "give_end($self, index, /)\n--\n\n"
     "Record that the filter at this place in the chain gets the end of the message."},
    {"was_given_end", (PyCFunction)chain_was_given_end, METH_O,
     "was_given_end($self, index, /)\n--\n\n"
     "Whether the filter at this place in the chain has got the end of the message."},
    {"stop", to_override, METH_VARARGS,
     "stop($self, index, action, /)\n--\n\n"
     "Hold the headers at a filter."},
    {"on_data", (PyCFunction)(void (*)(void))chain_on_data, METH_FASTCALL,
     "on_data($self, data, end_stream, /)\n--\n\n"
     "Handle a received part of the body."},
    {"pass_data", to_override, METH_VARARGS,
     "pass_data($self, start, data, end_stream, /)\n--\n\n"
     "Pass a part of the body through the filters from `start` on, and send it unless a filter stops it."},
    {"out_data", (PyCFunction)(void (*)(void))chain_out_data, METH_FASTCALL,
     "out_data($self, data, end_stream, /)\n--\n\n"
     "Send a part of the body, which has passed all filters."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef chain_members[] = {
    {"stream", T_OBJECT_EX, offsetof(FilterChainBase, stream), 0, NULL},
    {"direction", T_INT, offsetof(FilterChainBase, direction), READONLY, NULL},
    {"filters", T_OBJECT_EX, offsetof(FilterChainBase, filters), READONLY, NULL},
    {"headers", T_OBJECT_EX, offsetof(FilterChainBase, headers), 0, NULL},
    {"stopped", T_OBJECT_EX, offsetof(FilterChainBase, stopped), 0, NULL},
    {"buffer", T_OBJECT, offsetof(FilterChainBase, buffer), 0, NULL},
    {"holder", T_OBJECT, offsetof(FilterChainBase, holder), 0, NULL},
    {"resume_asked", T_OBJECT_EX, offsetof(FilterChainBase, resume_asked), 0, NULL},
    {"trailers", T_OBJECT, offsetof(FilterChainBase, trailers), 0, NULL},
    {"passed", T_PYSSIZET, offsetof(FilterChainBase, passed), 0, NULL},
    {"calling", T_PYSSIZET, offsetof(FilterChainBase, calling), 0, NULL},
    {"header_count", T_PYSSIZET, offsetof(FilterChainBase, header_count), 0, NULL},
    {"header_size", T_PYSSIZET, offsetof(FilterChainBase, header_size), 0, NULL},
    {"received", T_ULONGLONG, offsetof(FilterChainBase, received), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef chain_getset[] = {
    DICT,
    FLAG(FilterChainBase, started),
    FLAG(FilterChainBase, headers_sent),
    FLAG(FilterChainBase, streaming),
    FLAG(FilterChainBase, ended),
    FLAG(FilterChainBase, complete),
    FLAG(FilterChainBase, aborted),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject FilterChainBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.FilterChainBase",
    .tp_doc = "One direction of a stream through its filters. `FilterChain` adds `stop` and `pass_data`.",
    .tp_basicsize = sizeof(FilterChainBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)filter_chain_init,
    .tp_dealloc = (destructor)chain_dealloc,
    .tp_traverse = (traverseproc)chain_traverse,
    .tp_clear = (inquiry)chain_clear,
    .tp_methods = chain_methods,
    .tp_members = chain_members,
    .tp_getset = chain_getset,
    .tp_dictoffset = offsetof(FilterChainBase, dict),
};
