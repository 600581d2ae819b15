/* The trampolines of one instance: its guest functions, its imports, and the check which thread may enter it. */
#include "native.h"

/* Trampolines(owner, affinity, raised, problem, (undefined, page), None or (watch, address of its numbers, seconds)) */
static int trampolines_init(Trampolines *self, PyObject *args, PyObject *keywords) {
    PyObject *owner, *affinity, *raised, *problem, *watched;
    unsigned long long undefined, page;
    if (self->owner) return PyErr_SetString(PyExc_RuntimeError, "trampolines are made once"), -1;
    if (!PyArg_ParseTuple(args, "OO!OO(KK)O:Trampolines", &owner, &AffinityType, &affinity, &raised, &problem,
                          &undefined, &page, &watched))
        return -1;
    if (watched != Py_None) {
        PyObject *watch;
        unsigned long long until;
        if (!PyArg_ParseTuple(watched, "OKd", &watch, &until, &self->seconds)) return -1;
        self->watch = Py_NewRef(watch);
        self->until = (double *)(uintptr_t)until;
    }
    self->undefined = (void *)(uintptr_t)undefined, self->page = (Page *)(uintptr_t)page;
    self->affinity = (Affinity *)Py_NewRef(affinity);
    self->owner = Py_NewRef(owner), self->raised = Py_NewRef(raised), self->problem = Py_NewRef(problem);
    ticker_add(self);
    return 0;
}

static PyObject *never_made(void) {
    PyErr_SetString(PyExc_RuntimeError, "these trampolines were never made");
    return NULL;
}

/* guest((params, result)): a callable; the caller connects it to a function of the guest */
static PyObject *trampolines_guest(Trampolines *self, PyObject *type) {
    return self->affinity ? guest_new(self, type) : never_made();
}

/* imports([(call, (params, result)), …]): the functions that the guest imports, in order. Called once. */
static PyObject *trampolines_import(Trampolines *self, PyObject *functions) {
    if (!PyList_Check(functions) || self->host) return PyErr_SetString(PyExc_TypeError, "expected one list"), NULL;
    Py_ssize_t count = PyList_GET_SIZE(functions);
    self->host = PyMem_Calloc((size_t)count + 1, sizeof(Host));
    if (!self->host) return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *call, *type;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(functions, i), "OO!", &call, &PyTuple_Type, &type)) return NULL;
        self->hosts++;
        if (host_init(&self->host[i], call, type)) return NULL;
    }
    Py_RETURN_NONE;
}

/* shut(): make all guest functions refuse calls. Returns whether no call is active. */
static PyObject *trampolines_shut(Trampolines *self, PyObject *unused) {
    if (!self->affinity) return never_made();
    if (trampolines_are_elsewhere(self)) return another_thread();
    self->closed = true;
    bool is_empty = !self->depth && !self->affinity->inside;
    if (is_empty) ticker_remove(self);
    return PyBool_FromLong(is_empty);
}

static int trampolines_traverse(Trampolines *self, visitproc visit, void *arg) {
    Py_VISIT(self->owner);
    Py_VISIT(self->raised);
    Py_VISIT(self->problem);
    Py_VISIT(self->watch);
    for (size_t i = 0; i < self->hosts; i++) Py_VISIT(self->host[i].call);
    return 0;
}

static int trampolines_clear(Trampolines *self) {
    self->closed = true;
    ticker_remove(self);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->raised);
    Py_CLEAR(self->problem);
    Py_CLEAR(self->watch);
    for (size_t i = 0; i < self->hosts; i++) host_clear(&self->host[i]);
    return 0;
}

static void trampolines_dealloc(Trampolines *self) {
    PyObject_GC_UnTrack(self);
    trampolines_clear(self);
    for (size_t i = 0; i < self->hosts; i++) PyMem_Free(self->host[i].params);
    PyMem_Free(self->host);
    Py_XDECREF(self->affinity);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef trampolines_methods[] = {
    {"guest", (PyCFunction)trampolines_guest, METH_O, NULL},
    {"imports", (PyCFunction)trampolines_import, METH_O, NULL},
    {"shut", (PyCFunction)trampolines_shut, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject TrampolinesType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_v8._native.Trampolines",
    .tp_basicsize = sizeof(Trampolines),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)trampolines_init,
    .tp_dealloc = (destructor)trampolines_dealloc,
    .tp_traverse = (traverseproc)trampolines_traverse,
    .tp_clear = (inquiry)trampolines_clear,
    .tp_methods = trampolines_methods,
};
