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
    let_go(before); /* may record a call here */
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

/* -- Merging of output -------------------------------------------------------------------------------------------- */

static PyObject *fd_write;

int calls_names(void) {
    static const Name NAMES[] = {{&fd_write, "fd_write"}};
    return INTERN(NAMES);
}

/* Whether the row of the table is fd_write. */
static bool is_output_row(PyObject *row) {
    return PyTuple_Check(row) && PyTuple_GET_SIZE(row) && PyTuple_GET_ITEM(row, 0) == fd_write;
}

/* Whether `args` are a file descriptor and a text, and `result` is the number of bytes written. */
static bool is_output(PyObject *args, PyObject *result) {
    return args && PyTuple_CheckExact(args) && PyTuple_GET_SIZE(args) == 2 && result && PyLong_CheckExact(result) &&
           PyLong_CheckExact(PyTuple_GET_ITEM(args, 0)) && PyBytes_CheckExact(PyTuple_GET_ITEM(args, 1));
}

/* Join the arguments of two writes to one file descriptor. NULL with an exception. */
static PyObject *joined_args(PyObject *before, PyObject *after) {
    PyObject *text = PyTuple_GET_ITEM(before, 1), *more = PyTuple_GET_ITEM(after, 1);
    Py_ssize_t size = PyBytes_GET_SIZE(text), added = TEXT - size;
    if (added <= 0) return Py_NewRef(before);
    if (added > PyBytes_GET_SIZE(more)) added = PyBytes_GET_SIZE(more);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size + added);
    if (!bytes) return NULL;
    memcpy(PyBytes_AS_STRING(bytes), PyBytes_AS_STRING(text), (size_t)size);
    memcpy(PyBytes_AS_STRING(bytes) + size, PyBytes_AS_STRING(more), (size_t)added);
    return Py_BuildValue("(ON)", PyTuple_GET_ITEM(before, 0), bytes);
}

/* Merge a write into `call`. Returns 1, 0 if this is impossible, or -1 with an exception. */
static int join(Call *call, PyObject *args, PyObject *result) {
    PyObject *before = call->args, *written = call->result;
    int same = PyObject_RichCompareBool(PyTuple_GET_ITEM(before, 0), PyTuple_GET_ITEM(args, 0), Py_EQ);
    if (same <= 0) return same;
    Py_INCREF(before); /* making a tuple may run code that records a call here */
    Py_INCREF(written);
    PyObject *all = joined_args(before, args), *sum = all ? PyNumber_Add(written, result) : NULL;
    bool is_there = call->args == before && call->result == written;
    if (sum && is_there) {
        Py_SETREF(call->args, Py_NewRef(all));
        Py_SETREF(call->result, Py_NewRef(sum));
    }
    Py_DECREF(before);
    Py_DECREF(written);
    Py_XDECREF(all);
    Py_XDECREF(sum);
    return sum ? is_there : -1;
}

int calls_join(Calls *calls, PyObject *row, PyObject *args, PyObject *result) {
    if (!is_output_row(row) || !is_output(args, result)) return 0;
    for (int back = 1; back <= FDS && back <= calls->size; back++) {
        Call *before = &calls->ring[(calls->next - back + calls->size) % calls->size];
        if (is_empty(before) || !is_output_row(before->row) || !is_output(before->args, before->result)) return 0;
        int joined = join(before, args, result);
        if (joined) return joined;
    }
    return 0;
}

/* The tuple (row, args, result) of a call. */
static PyObject *fields(Call *call) {
    PyObject *args = NULL, *result = NULL;
    if (call->make && call->make(call, &args, &result)) return NULL;
    if (call->args) Py_XSETREF(args, Py_NewRef(call->args));
    if (call->result) Py_XSETREF(result, Py_NewRef(call->result));
    return Py_BuildValue("(ONN)", call->row, args ? args : Py_NewRef(Py_None), result ? result : Py_NewRef(Py_None));
}

PyObject *calls_take_newest(Calls *calls) {
    calls->next = (calls->next ? calls->next : calls->size) - 1;
    Call *newest = &calls->ring[calls->next], call = *newest;
    *newest = (Call){0};
    PyObject *entry = fields(&call);
    let_go(call);
    return entry;
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
    int joined = calls_join(self, PyTuple_GET_ITEM(call, 0), PyTuple_GET_ITEM(call, 1), PyTuple_GET_ITEM(call, 2));
    if (joined < 0) return NULL;
    if (joined) Py_RETURN_NONE;
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
        Py_INCREF(call.row); /* hold everything, because other calls may be recorded during the iteration */
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
    {"append", (PyCFunction)calls_append, METH_O,
     "append($self, call, /)\n--\n\n"
     "Record a call."},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods calls_sequence = {.sq_length = (lenfunc)calls_length};

PyTypeObject CallsType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.Calls",
    .tp_doc = "The last `size` calls, as the fields of a `Call`; `append` can be the `record` of a `Guest`.\n\n"
              "Successive writes to a file descriptor are one entry, with the beginning of the text and the number of "
              "bytes, so\n"
              "that the pieces of a message do not displace all other calls.",
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
