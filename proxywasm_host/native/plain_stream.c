/* A stream: the twin of PlainStream in runtime/plain.py, method by method. */
#include "plain.h"

static PyObject *services_name, *clock_name, *time_name, *outbox_name, *directions[2];

int stream_names(void) {
    static const Name NAMES[] = {
        {&services_name, "services"},
        {&clock_name, "clock"},
        {&time_name, "time_ns"},
        {&outbox_name, "outbox"},
    };
    for (long i = REQUEST; i <= RESPONSE; i++)
        if (!(directions[i] = PyLong_FromLong(i))) return -1;
    return INTERN(NAMES);
}

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

PyObject *maps_for_log(PyObject *stream) {
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
