/* The last hostcalls of a VM, for failure reports: marshal.Calls without an object for each call. */
#include "native.h"

static bool is_empty(const Call *call) { return !call->row; }

static void let_go(Call call) {
    Py_XDECREF(call.row);
    Py_XDECREF(call.args);
    Py_XDECREF(call.result);
    Py_XDECREF(call.first);
    Py_XDECREF(call.second);
}

static void empty(Call *call) {
    Call before = *call;
    call->row = call->args = call->result = call->first = call->second = NULL;
    call->make = NULL;
    let_go(before); /* which may record a call here */
}

Call *calls_next(Calls *calls, PyObject *row) {
    Call *call = &calls->ring[calls->next];
    while (!is_empty(call)) {
        empty(call);
        call = &calls->ring[calls->next];
    }
    if (++calls->next == calls->size) calls->next = 0;
    call->row = Py_NewRef(row);
    return call;
}

/* (row, args, result) */
static PyObject *fields(Call *call) {
    PyObject *args = NULL, *result = NULL;
    if (call->make && call->make(call, &args, &result)) return NULL;
    if (call->args) Py_XSETREF(args, Py_NewRef(call->args));
    if (call->result) Py_XSETREF(result, Py_NewRef(call->result));
    return Py_BuildValue("(ONN)", call->row, args ? args : Py_NewRef(Py_None), result ? result : Py_NewRef(Py_None));
}

static PyObject *calls_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    Py_ssize_t size;
    static char *names[] = {"size", NULL};
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "n:Calls", names, &size)) return NULL;
    if (size < 1) return PyErr_Format(PyExc_ValueError, "a size is at least 1");
    Call *ring = PyMem_Calloc((size_t)size, sizeof(Call));
    if (!ring) return PyErr_NoMemory();
    Calls *self = (Calls *)type->tp_alloc(type, 0);
    if (self) self->ring = ring, self->size = size;
    else PyMem_Free(ring);
    return (PyObject *)self;
}

static PyObject *calls_append(Calls *self, PyObject *call) {
    if (!PyTuple_Check(call) || PyTuple_GET_SIZE(call) != 3) {
        PyErr_SetString(PyExc_TypeError, "a call is a tuple of row, args and result");
        return NULL;
    }
    Call *entry = calls_next(self, PyTuple_GET_ITEM(call, 0));
    entry->args = Py_NewRef(PyTuple_GET_ITEM(call, 1));
    entry->result = Py_NewRef(PyTuple_GET_ITEM(call, 2));
    Py_RETURN_NONE;
}

static PyObject *calls_iter(Calls *self) {
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list && i < self->size; i++) {
        Call call = self->ring[(self->next + i) % self->size];
        if (is_empty(&call)) continue;
        Py_INCREF(call.row); /* all of it is ours, for others may be remembered while somebody looks */
        Py_XINCREF(call.args);
        Py_XINCREF(call.result);
        Py_XINCREF(call.first);
        Py_XINCREF(call.second);
        PyObject *entry = fields(&call);
        let_go(call);
        if (!entry || PyList_Append(list, entry)) Py_CLEAR(list);
        Py_XDECREF(entry);
    }
    if (!list) return NULL;
    PyObject *iterator = PyObject_GetIter(list);
    Py_DECREF(list);
    return iterator;
}

static Py_ssize_t calls_length(Calls *self) {
    Py_ssize_t length = 0;
    for (Py_ssize_t i = 0; i < self->size; i++) length += !is_empty(&self->ring[i]);
    return length;
}

static int calls_traverse(Calls *self, visitproc visit, void *arg) {
    for (Py_ssize_t i = 0; i < self->size; i++) {
        Call *call = &self->ring[i];
        Py_VISIT(call->row);
        Py_VISIT(call->args);
        Py_VISIT(call->result);
        Py_VISIT(call->first);
        Py_VISIT(call->second);
    }
    return 0;
}

static int calls_clear(Calls *self) {
    for (Py_ssize_t i = 0; i < self->size; i++) empty(&self->ring[i]);
    return 0;
}

static void calls_dealloc(Calls *self) {
    PyObject_GC_UnTrack(self);
    calls_clear(self);
    PyMem_Free(self->ring);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef calls_methods[] = {
    {"append", (PyCFunction)calls_append, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods calls_sequence = {.sq_length = (lenfunc)calls_length};

PyTypeObject CallsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.Calls",
    .tp_basicsize = sizeof(Calls),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = calls_new,
    .tp_dealloc = (destructor)calls_dealloc,
    .tp_traverse = (traverseproc)calls_traverse,
    .tp_clear = (inquiry)calls_clear,
    .tp_methods = calls_methods,
    .tp_as_sequence = &calls_sequence,
    .tp_iter = (getiterfunc)calls_iter,
};
