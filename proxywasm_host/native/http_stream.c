/* A stream: the C form of HttpStreamBase in runtime/fast_path.py, method by method. */
#include "fast_path.h"

#include <time.h>

static PyObject *time_name, *full_name, *feed_body_name, *via_upstream;

int stream_names(void) {
    static const Name NAMES[] = {
        {&time_name, "time_ns"},
        {&full_name, "full"},
        {&feed_body_name, "_feed_body"},
        {&via_upstream, "via_upstream"},
    };
    return INTERN(NAMES);
}

/* -- Making a stream -------------------------------------------------------------------------------------------- */

/* Set `*time` to nanoseconds since 1970. Returns 0, or -1 with an exception. */
static int time_now(PyObject *clock, long long *time) {
    struct timespec now;
    if (Py_IS_TYPE(clock, (PyTypeObject *)known.system_clock) && !clock_gettime(CLOCK_REALTIME, &now)) {
        *time = now.tv_sec * 1000000000LL + now.tv_nsec;
        return 0;
    }
    Py_INCREF(clock); /* the call may give the host another clock */
    PyObject *told = PyObject_CallMethodNoArgs(clock, time_name);
    *time = told ? PyLong_AsLongLong(told) : -1;
    Py_XDECREF(told);
    Py_DECREF(clock);
    return PyErr_Occurred() ? -1 : 0;
}

/* Make a context for each plugin, in the same order. */
static PyObject *contexts_for(HttpStreamBase *self, PyObject *plugins) {
    PyObject *contexts = PyList_New(0);
    for (Py_ssize_t i = 0; contexts && i < PySequence_Fast_GET_SIZE(plugins); i++) {
        PyObject *plugin = Py_NewRef(PySequence_Fast_GET_ITEM(plugins, i));
        PyObject *context = context_make((PyObject *)self, plugin);
        Py_DECREF(plugin);
        if (!context || PyList_Append(contexts, context)) Py_CLEAR(contexts);
        Py_XDECREF(context);
    }
    return contexts;
}

/* Lists of contexts are never changed, so a list of one context serves both directions. */
static PyObject *reversed(PyObject *list) {
    if (PyList_GET_SIZE(list) <= 1) return Py_NewRef(list);
    PyObject *copy = PyList_GetSlice(list, 0, PyList_GET_SIZE(list));
    if (copy && PyList_Reverse(copy)) Py_CLEAR(copy);
    return copy;
}

static int check_buffer_limit(PyObject *limit) {
    int overflow = 0;
    if (PyLong_Check(limit) && (PyLong_AsLongLongAndOverflow(limit, &overflow) >= 0 || overflow > 0)) return 0;
    PyErr_Format(PyExc_TypeError, "buffer_limit is a number of bytes, 0 or more, such as 1 << 20, not %R", limit);
    return -1;
}

/* Read the limits of a HeaderLimits, which is immutable, once. Returns 0, or -1 with an exception. */
static int take_header_limits(HttpStreamBase *self, PyObject *limits) {
    static PyObject *last;
    static Py_ssize_t count, size;
    self->max_headers = self->max_header_bytes = PY_SSIZE_T_MAX;
    if (limits == Py_None) return 0;
    if (!known.header_limits || !Py_IS_TYPE(limits, Py_TYPE(known.header_limits)))
        return PyErr_Format(PyExc_TypeError, "header_limits are HeaderLimits or None, not %R", limits), -1;
    if (limits != last) {
        PyObject *numbers[] = {PyObject_GetAttrString(limits, "count"), PyObject_GetAttrString(limits, "size")};
        for (int i = 0; i < 2; i++) {
            Py_ssize_t number = numbers[i] ? PyNumber_AsSsize_t(numbers[i], NULL) : -1;
            if (i) size = number;
            else count = number;
            Py_XDECREF(numbers[i]);
        }
        Py_CLEAR(last);
        if (PyErr_Occurred()) return -1;
        last = Py_NewRef(limits);
    }
    self->max_headers = count;
    self->max_header_bytes = size;
    return 0;
}

static int begin(HttpStreamBase *self, HostBase *host, PyObject *plugins, PyObject *properties, PyObject *limit,
                 PyObject *header_limits) {
    if (self->host) return PyErr_SetString(PyExc_RuntimeError, "a stream is made once"), -1;
    if (!known.http_context || !known.filter_chain)
        return PyErr_SetString(PyExc_RuntimeError, "proxywasm_host.runtime.http was not imported"), -1;
    if (!PyList_Check(plugins) && !PyTuple_Check(plugins))
        return PyErr_Format(PyExc_TypeError, "plugins are a list, not %R", plugins), -1;
    if (check_buffer_limit(limit) || take_header_limits(self, header_limits)) return -1;
    Py_XSETREF(self->header_limits, Py_NewRef(header_limits));
    Py_XSETREF(self->host, Py_NewRef(host));
    Py_XSETREF(self->outbox, (Outbox *)Py_XNewRef(host->outbox));
    Py_XSETREF(self->properties, Py_NewRef(properties));
    Py_XSETREF(self->buffer_limit, Py_NewRef(limit));
    if (!host->clock || !host->outbox) {
        PyErr_SetString(PyExc_RuntimeError, "the host was never made, or is gone");
        return -1;
    }
    if (time_now(host->clock, &self->started_ns)) return -1;
    Py_XSETREF(self->contexts, contexts_for(self, plugins));
    if (!self->contexts) return -1;
    Py_XSETREF(self->request, chain_make((PyObject *)self, REQUEST, self->contexts));
    PyObject *backwards = self->request ? reversed(self->contexts) : NULL;
    if (!backwards) return -1;
    Py_XSETREF(self->response, chain_make((PyObject *)self, RESPONSE, backwards));
    Py_DECREF(backwards);
    return self->response ? 0 : -1;
}

static int stream_init(HttpStreamBase *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"host", "plugins", "properties", "buffer_limit", "header_limits", NULL};
    PyObject *host, *plugins, *properties, *limit, *header_limits;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!OOOO:HttpStream", names, &HostBaseType, &host, &plugins,
                                     &properties, &limit, &header_limits))
        return -1;
    return begin(self, (HostBase *)host, plugins, properties, limit, header_limits);
}

PyObject *stream_make(HostBase *host, PyObject *wanted, PyObject *plugins, PyObject *properties, PyObject *buffer_limit,
                      PyObject *header_limits) {
    if (!wanted) wanted = known.http_stream;
    if (wanted && !PyType_Check(wanted)) return PyErr_Format(PyExc_TypeError, "%R is no class of streams", wanted);
    PyTypeObject *type = wanted ? (PyTypeObject *)wanted : &HttpStreamBaseType;
    if (!is_made_here(type, (initproc)stream_init)) {
        PyObject *args[] = {(PyObject *)host, plugins, properties, buffer_limit, header_limits};
        return PyObject_Vectorcall((PyObject *)type, args, 5, NULL);
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self && begin((HttpStreamBase *)self, host, plugins, properties, buffer_limit, header_limits)) Py_CLEAR(self);
    return self;
}

/* -- Events ----------------------------------------------------------------------------------------------------- */

static PyObject *drained(HttpStreamBase *self) {
    if (self->outbox) return outbox_drain(self->outbox, NULL);
    return PyErr_Format(PyExc_RuntimeError, "the stream was never made, or is gone");
}

/* Feed headers to a chain. `given` has headers, end_stream and owned. */
static PyObject *fed(HttpStreamBase *self, FilterChainBase *chain, PyObject **given) {
    Py_INCREF(chain);
    int ends = PyObject_IsTrue(given[1]), owned = PyObject_IsTrue(given[2]);
    int failed = ends < 0 || owned < 0 || chain_feed_headers(chain, given[0], ends, owned);
    Py_DECREF(chain);
    return failed ? NULL : drained(self);
}

static PyObject *stream_request_headers(HttpStreamBase *self, PyObject *const *args, Py_ssize_t count,
                                        PyObject *keywords) {
    static const Signature SIGNATURE = {"request_headers", 2, 1, {"headers", "end_stream", "owned"}};
    PyObject *given[] = {NULL, Py_False, Py_False};
    if (!take(&SIGNATURE, args, count, keywords, given)) return NULL;
    if (self->closed) return PyErr_Format(PyExc_RuntimeError, "the stream is closed");
    return self->request ? fed(self, self->request, given) : drained(self);
}

static PyObject *stream_response_headers(HttpStreamBase *self, PyObject *const *args, Py_ssize_t count,
                                         PyObject *keywords) {
    static const Signature SIGNATURE = {"response_headers", 2, 1, {"headers", "end_stream", "owned"}};
    PyObject *given[] = {NULL, Py_False, Py_False};
    if (!take(&SIGNATURE, args, count, keywords, given)) return NULL;
    if (!self->response || self->response->aborted || (self->local && self->local != Py_None)) return drained(self);
    if (!self->request || !self->request->started)
        return PyErr_Format(PyExc_RuntimeError, "the request's headers must be given first");
    if (!self->response->started) Py_XSETREF(self->details, Py_NewRef(via_upstream));
    return fed(self, self->response, given);
}

/* Feed a part of the body to a chain. Python handles unusual cases, and raises errors. */
static PyObject *fed_body(HttpStreamBase *self, FilterChainBase *chain, PyObject *data, PyObject *end_stream) {
    if (!chain) return drained(self);
    if (!PyBytes_CheckExact(data) || chain->aborted || !chain->started || chain->ended)
        return PyObject_CallMethodObjArgs((PyObject *)self, feed_body_name, chain, data, end_stream, NULL);
    int ends = PyObject_IsTrue(end_stream);
    if (ends < 0) return NULL;
    Py_INCREF(chain);
    int failed = chain_feed_data(chain, data, ends);
    Py_DECREF(chain);
    return failed ? NULL : drained(self);
}

static PyObject *stream_request_body(HttpStreamBase *self, PyObject *const *args, Py_ssize_t count,
                                     PyObject *keywords) {
    static const Signature SIGNATURE = {"request_body", 2, 1, {"data", "end_stream"}};
    PyObject *given[] = {NULL, Py_False};
    return take(&SIGNATURE, args, count, keywords, given) ? fed_body(self, self->request, given[0], given[1]) : NULL;
}

static PyObject *stream_response_body(HttpStreamBase *self, PyObject *const *args, Py_ssize_t count,
                                      PyObject *keywords) {
    static const Signature SIGNATURE = {"response_body", 2, 1, {"data", "end_stream"}};
    PyObject *given[] = {NULL, Py_False};
    if (!take(&SIGNATURE, args, count, keywords, given)) return NULL;
    if (self->local && self->local != Py_None) return drained(self);
    return fed_body(self, self->response, given[0], given[1]);
}

static PyObject *stream_close(HttpStreamBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    static const Signature SIGNATURE = {"close", 1, 0, {"details"}};
    PyObject *details = NULL;
    if (!take(&SIGNATURE, args, count, keywords, &details)) return NULL;
    if (self->closed || !self->contexts || !self->request || !self->response) return drained(self);
    self->closed = true;
    int say = details ? PyObject_IsTrue(details) : 0;
    if (say < 0) return NULL;
    if (say) Py_XSETREF(self->details, Py_NewRef(details));
    self->request->aborted = self->response->aborted = true;
    if (end_contexts(self->contexts)) return NULL;
    /* A finished stream must not be a reference cycle, so that it is freed at once, without the garbage collector. */
    Py_CLEAR(self->request->stream);
    Py_CLEAR(self->response->stream);
    return drained(self);
}

PyObject *map_for_log(PyObject *stream, size_t map) {
    HttpStreamBase *self = (HttpStreamBase *)stream;
    if (!stream || !is_a(stream, known.http_stream, &HttpStreamBaseType) || !self->request || !self->response)
        return PyErr_Format(PyExc_TypeError, "a context has a stream, not %R", stream ? stream : Py_None);
    PyObject *found[STREAM_MAPS] = {self->request->headers, NULL, self->response->headers, self->response->trailers};
    bool any = found[map] && PyList_Check(found[map]) && (map == 3 || PyList_GET_SIZE(found[map]));
    return any ? found[map] : Py_None;
}

/* -- The type --------------------------------------------------------------------------------------------------- */

static int set_chain(HttpStreamBase *self, PyObject *chain, void *at) {
    if (!chain || !PyObject_TypeCheck(chain, &FilterChainBaseType)) {
        PyErr_SetString(PyExc_TypeError, "a stream's chain cannot be deleted or be anything else");
        return -1;
    }
    PyObject **place = (PyObject **)((char *)self + (size_t)at);
    Py_XSETREF(*place, Py_NewRef(chain));
    return 0;
}

static PyObject *get_chain(HttpStreamBase *self, void *at) {
    PyObject *chain = *(PyObject **)((char *)self + (size_t)at);
    if (!chain) PyErr_SetString(PyExc_AttributeError, "the stream has no chains yet");
    return Py_XNewRef(chain);
}

static PyObject *get_changes_bodies(HttpStreamBase *self, void *closure) {
    for (Py_ssize_t i = 0; self->contexts && i < PyList_GET_SIZE(self->contexts); i++) {
        PyObject *context = PyList_GET_ITEM(self->contexts, i);
        const VmBase *vm =
            is_a(context, known.http_context, &HttpContextBaseType) ? ((HttpContextBase *)context)->vm : NULL;
        if (vm && vm->changes_bodies) Py_RETURN_TRUE;
    }
    Py_RETURN_FALSE;
}

/* Whether a chain holds more of a body than the limit. The chain is queried only if it holds any. */
static PyObject *get_full(HttpStreamBase *self, void *at) {
    FilterChainBase *chain = *(FilterChainBase **)((char *)self + (size_t)at);
    if (!chain || !chain->buffer || chain->buffer == Py_None) Py_RETURN_FALSE;
    Py_INCREF(chain);
    PyObject *full = PyObject_GetAttr((PyObject *)chain, full_name);
    Py_DECREF(chain);
    return full;
}

static int stream_traverse(HttpStreamBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->host);
    Py_VISIT(self->outbox);
    Py_VISIT(self->properties);
    Py_VISIT(self->buffer_limit);
    Py_VISIT(self->header_limits);
    Py_VISIT(self->contexts);
    Py_VISIT(self->request);
    Py_VISIT(self->response);
    Py_VISIT(self->local);
    Py_VISIT(self->details);
    Py_VISIT(self->dict);
    return 0;
}

static int stream_clear(HttpStreamBase *self) {
    Py_CLEAR(self->host);
    Py_CLEAR(self->outbox);
    Py_CLEAR(self->properties);
    Py_CLEAR(self->buffer_limit);
    Py_CLEAR(self->header_limits);
    Py_CLEAR(self->contexts);
    Py_CLEAR(self->request);
    Py_CLEAR(self->response);
    Py_CLEAR(self->local);
    Py_CLEAR(self->details);
    Py_CLEAR(self->dict);
    return 0;
}

static void stream_dealloc(HttpStreamBase *self) {
    PyObject_GC_UnTrack(self);
    stream_clear(self);
    Py_TYPE(self)->tp_free(self);
}

#define EVENT(name) #name, (PyCFunction)(void (*)(void))stream_##name, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef stream_methods[] = {
    {EVENT(request_headers),
     "request_headers($self, headers, end_stream=False, *, owned=False)\n--\n\n"
     "Feed the client's headers: ``:method``, ``:path``, ``:authority``, ``:scheme`` first, names in lower case.\n\n"
     "`end_stream`: nothing follows. `owned`: the stream uses the list without a copy, and filters change it.\n\n"
     "Raises: RuntimeError, if the stream has headers already or is closed; TypeError or ValueError, for wrong ones."},
    {EVENT(response_headers),
     "response_headers($self, headers, end_stream=False, *, owned=False)\n--\n\n"
     "Feed upstream's headers, ``:status`` first. Ignored after a local response. Raises as `request_headers`."},
    {EVENT(request_body),
     "request_body($self, data, end_stream=False)\n--\n\n"
     "Feed a part of the client's body. Raises: RuntimeError, before the headers or after the end; TypeError."},
    {EVENT(response_body), "response_body($self, data, end_stream=False)\n--\n\n"
                           "Feed a part of upstream's body. Ignored after a local response. Raises as `request_body`."},
    {"_feed_body", to_override, METH_VARARGS,
     "_feed_body($self, chain, data, end_stream, /)\n--\n\n"
     "Feed a part of the body of one direction. `data` may be anything. Raises as `request_body`."},
    {EVENT(close), "close($self, details='')\n--\n\n"
                   "End the stream, after both sides have finished: on_log, on_done, on_delete. Closing again does "
                   "nothing.\n\n"
                   "`details` are the reason for an early end; Envoy's for a client that disconnected are\n"
                   "``downstream_remote_disconnect``."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef stream_members[] = {
    {"host", T_OBJECT_EX, offsetof(HttpStreamBase, host), READONLY, "The host that made it."},
    {"properties", T_OBJECT_EX, offsetof(HttpStreamBase, properties), 0, "The embedder's properties, by dotted name."},
    {"buffer_limit", T_OBJECT_EX, offsetof(HttpStreamBase, buffer_limit), 0,
     "Most bytes of a body that filters may hold, in each direction."},
    {"header_limits", T_OBJECT_EX, offsetof(HttpStreamBase, header_limits), READONLY,
     "Limits on the number and the bytes of received headers; ``None`` for no limit."},
    {"_started_ns", T_LONGLONG, offsetof(HttpStreamBase, started_ns), 0, NULL},
    {"local", T_OBJECT, offsetof(HttpStreamBase, local), 0, "The local response, if there was one."},
    {"details", T_OBJECT, offsetof(HttpStreamBase, details), 0,
     "Envoy's response code details: the origin of the response or of the stream's end, and the reason."},
    {"_contexts", T_OBJECT_EX, offsetof(HttpStreamBase, contexts), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef stream_getset[] = {
    DICT,
    PUBLIC_FLAG(HttpStreamBase, closed, "Whether `close` was called."),
    {"changes_bodies", (getter)get_changes_bodies, NULL,
     "Whether a filter can change a body, and so make ``content-length`` wrong.", NULL},
    {"request_full", (getter)get_full, NULL,
     "Whether filters hold more of the request's body than the limit; if so, do not read from the client.",
     (void *)offsetof(HttpStreamBase, request)},
    {"response_full", (getter)get_full, NULL,
     "Whether filters hold more of the response's body than the limit; if so, do not read from upstream.",
     (void *)offsetof(HttpStreamBase, response)},
    {"_request", (getter)get_chain, (setter)set_chain, NULL, (void *)offsetof(HttpStreamBase, request)},
    {"_response", (getter)get_chain, (setter)set_chain, NULL, (void *)offsetof(HttpStreamBase, response)},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject HttpStreamBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.HttpStreamBase",
    .tp_doc = "One request and its response. `HttpStream` adds the other methods.",
    .tp_basicsize = sizeof(HttpStreamBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)stream_init,
    .tp_dealloc = (destructor)stream_dealloc,
    .tp_traverse = (traverseproc)stream_traverse,
    .tp_clear = (inquiry)stream_clear,
    .tp_methods = stream_methods,
    .tp_members = stream_members,
    .tp_getset = stream_getset,
    .tp_dictoffset = offsetof(HttpStreamBase, dict),
};
