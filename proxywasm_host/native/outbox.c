/* The twin of runtime/outbox.py. */
#include "native.h"

static int outbox_init(Outbox *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, ":Outbox", names)) return -1;
    Py_XSETREF(self->effects, PyList_New(0));
    Py_XSETREF(self->notices, PyList_New(0));
    return self->effects && self->notices ? 0 : -1;
}

static PyObject *outbox_put(Outbox *self, PyObject *effect) {
    if (PyList_Append(self->effects, effect)) return NULL;
    Py_RETURN_NONE;
}

static PyObject *outbox_notify(Outbox *self, PyObject *effect) {
    if (PyList_Append(self->notices, effect)) return NULL;
    Py_RETURN_NONE;
}

PyObject *outbox_drain(Outbox *self, PyObject *none) {
    PyObject *effects = self->effects, *notices = self->notices, *empty;
    Py_ssize_t end = PyList_GET_SIZE(effects);
    if (PyList_GET_SIZE(notices)) {
        if (!(empty = PyList_New(0))) return NULL;
        self->notices = empty;
        int failed = PyList_SetSlice(effects, end, end, notices);
        Py_DECREF(notices);
        if (failed) return NULL;
    }
    if (!(empty = PyList_New(0))) return NULL;
    self->effects = empty;
    return effects;
}

static int outbox_traverse(Outbox *self, visitproc visit, void *arg) {
    Py_VISIT(self->effects);
    Py_VISIT(self->notices);
    return 0;
}

static int outbox_clear(Outbox *self) {
    Py_CLEAR(self->effects);
    Py_CLEAR(self->notices);
    return 0;
}

static void outbox_dealloc(Outbox *self) {
    PyObject_GC_UnTrack(self);
    outbox_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef outbox_methods[] = {
    {"put", (PyCFunction)outbox_put, METH_O, NULL},
    {"notify", (PyCFunction)outbox_notify, METH_O, NULL},
    {"drain", (PyCFunction)outbox_drain, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject OutboxType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.Outbox",
    .tp_basicsize = sizeof(Outbox),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)outbox_init,
    .tp_dealloc = (destructor)outbox_dealloc,
    .tp_traverse = (traverseproc)outbox_traverse,
    .tp_clear = (inquiry)outbox_clear,
    .tp_methods = outbox_methods,
};
