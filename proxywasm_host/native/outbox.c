/* The C form of runtime/outbox.py. */
#include "native.h"

/* The lists exist as long as the outbox: to break a cycle, the garbage collector clears their contents. */
static PyObject *outbox_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, ":Outbox", names)) return NULL;
    PyObject *effects = PyList_New(0), *notified = PyList_New(0);
    Outbox *self = effects && notified ? (Outbox *)type->tp_alloc(type, 0) : NULL;
    if (self) self->effects = Py_NewRef(effects), self->notified = Py_NewRef(notified);
    Py_XDECREF(effects);
    Py_XDECREF(notified);
    return (PyObject *)self;
}

static PyObject *outbox_put(Outbox *self, PyObject *effect) {
    if (PyList_Append(self->effects, effect)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *outbox_notify(Outbox *self, PyObject *effect) {
    if (PyList_Append(self->notified, effect)) return NULL;
    Py_RETURN_NONE;
}

PyObject *outbox_drain(Outbox *self, PyObject *none) {
    PyObject *empty = PyList_New(0); /* first: it may run the garbage collector, and code that drains the outbox too */
    if (!empty) return NULL;
    PyObject *effects = self->effects, *notified = self->notified;
    Py_ssize_t end = PyList_GET_SIZE(effects), more = PyList_GET_SIZE(notified);
    if (more && (PyList_SetSlice(effects, end, end, notified) || PyList_SetSlice(notified, 0, more, NULL))) {
        Py_DECREF(empty);
        return NULL;
    }
    self->effects = empty;
    self->drained++;
    return effects;
}

static int outbox_traverse(Outbox *self, visitproc visit, void *arg) {
    Py_VISIT(self->effects);
    Py_VISIT(self->notified);
    return 0;
}

static void outbox_dealloc(Outbox *self) {
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->effects);
    Py_XDECREF(self->notified);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef outbox_methods[] = {
    {"put", (PyCFunction)outbox_put, METH_O,
     "put($self, effect, /)\n--\n\n"
     "Add an effect."},
    {"notify", (PyCFunction)outbox_notify, METH_O,
     "notify($self, effect, /)\n--\n\n"
     "Add an effect from any thread."},
    {"drain", (PyCFunction)outbox_drain, METH_NOARGS,
     "drain($self, /)\n--\n\n"
     "Remove and return all effects."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef outbox_members[] = {
    {"drained", T_ULONGLONG, offsetof(Outbox, drained), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject OutboxType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.Outbox",
    .tp_doc = "Effects in their order; those from other threads come last.",
    .tp_basicsize = sizeof(Outbox),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = outbox_new,
    .tp_dealloc = (destructor)outbox_dealloc,
    .tp_traverse = (traverseproc)outbox_traverse,
    .tp_methods = outbox_methods,
    .tp_members = outbox_members,
};
