/* The C form of abi/held_body.py.
 *
 * The bytes are in a bytes object with spare capacity at its end, to which only the HeldBody refers. It is cut to its
 * size when it is shared, and copied before the next change. */
#include "native.h"

PyObject *held_share(HeldBody *self) {
    if (!self->bytes) return PyBytes_FromStringAndSize(NULL, 0);
    if (!self->is_shared && _PyBytes_Resize(&self->bytes, (Py_ssize_t)self->size)) {
        self->size = 0;
        return NULL;
    }
    self->is_shared = true;
    return Py_NewRef(self->bytes);
}

/* Reserve `size` bytes in a bytes object that is not shared, with the first `keep` bytes of the current one. */
static int reserve(HeldBody *self, size_t keep, size_t size) {
    if (size > PY_SSIZE_T_MAX / 2) return PyErr_NoMemory(), -1;
    bool is_own = self->bytes && !self->is_shared && Py_REFCNT(self->bytes) == 1;
    if (is_own && size <= (size_t)PyBytes_GET_SIZE(self->bytes)) return 0;
    size_t room = size + (size > self->size ? size / 4 : 0);
    if (!keep && !is_own) {
        Py_CLEAR(self->bytes);
        self->size = 0;
    }
    if (is_own) {
        if (!_PyBytes_Resize(&self->bytes, (Py_ssize_t)room)) return 0;
        self->size = 0;
        return -1;
    }
    PyObject *own = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (!own) return -1;
    if (keep) memcpy(PyBytes_AS_STRING(own), PyBytes_AS_STRING(self->bytes), keep);
    Py_XSETREF(self->bytes, own);
    self->is_shared = false;
    return 0;
}

int held_splice(HeldBody *self, size_t start, size_t length, const void *data, size_t more) {
    if (start > self->size) start = self->size;
    if (length > self->size - start) length = self->size - start;
    size_t tail = self->size - start - length, size = start + more + tail;
    if (more > PY_SSIZE_T_MAX / 2) return PyErr_NoMemory(), -1;
    if (!length && !more) return 0;
    /* If everything is replaced, no bytes need copying. */
    if (reserve(self, start || tail ? self->size : 0, size > self->size ? size : self->size)) return -1;
    char *at = PyBytes_AS_STRING(self->bytes);
    memmove(at + start + more, at + start + length, tail);
    memcpy(at + start, data, more);
    self->size = size;
    return 0;
}

static int held_init(HeldBody *self, PyObject *args, PyObject *keywords) {
    PyObject *data = NULL;
    if (keywords && PyDict_GET_SIZE(keywords)) return PyErr_SetString(PyExc_TypeError, "no keywords are taken"), -1;
    if (!PyArg_ParseTuple(args, "|S:HeldBody", &data)) return -1;
    PyObject *kept = data ? PyObject_Bytes(data) : PyBytes_FromStringAndSize(NULL, 0);
    if (!kept) return -1;
    self->size = (size_t)PyBytes_GET_SIZE(kept);
    self->is_shared = true;
    Py_XSETREF(self->bytes, kept);
    return 0;
}

static Py_ssize_t held_length(HeldBody *self) { return (Py_ssize_t)self->size; }

static PyObject *held_bytes(HeldBody *self, PyObject *none) { return held_share(self); }

static PyObject *held_append(HeldBody *self, PyObject *data) {
    if (!PyBytes_Check(data)) return PyErr_Format(PyExc_TypeError, "bytes are wanted, not %R", data);
    if (!self->size && PyBytes_CheckExact(data)) { /* share the object: it is copied only before a change */
        Py_XSETREF(self->bytes, Py_NewRef(data));
        self->size = (size_t)PyBytes_GET_SIZE(data);
        self->is_shared = true;
        Py_RETURN_NONE;
    }
    if (held_splice(self, self->size, 0, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data))) return NULL;
    Py_RETURN_NONE;
}

static PyObject *held_splice_method(HeldBody *self, PyObject *args) {
    Py_ssize_t start, length;
    PyObject *data;
    if (!PyArg_ParseTuple(args, "nnS:splice", &start, &length, &data)) return NULL;
    if (start < 0 || length < 0) return PyErr_SetString(PyExc_ValueError, "a size is 0 or more"), NULL;
    if (held_splice(self, (size_t)start, (size_t)length, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *held_part(HeldBody *self, PyObject *args) {
    Py_ssize_t start, length;
    if (!PyArg_ParseTuple(args, "nn:part", &start, &length)) return NULL;
    if (start < 0 || length < 0) return PyErr_SetString(PyExc_ValueError, "a size is 0 or more"), NULL;
    size_t from = (size_t)start < self->size ? (size_t)start : self->size;
    size_t count = (size_t)length < self->size - from ? (size_t)length : self->size - from;
    return PyBytes_FromStringAndSize(self->bytes ? PyBytes_AS_STRING(self->bytes) + from : NULL, (Py_ssize_t)count);
}

static void held_dealloc(HeldBody *self) {
    Py_XDECREF(self->bytes);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef held_methods[] = {
    {"__bytes__", (PyCFunction)held_bytes, METH_NOARGS,
     "__bytes__($self, /)\n--\n\n"
     "The current bytes."},
    {"append", (PyCFunction)held_append, METH_O,
     "append($self, data, /)\n--\n\n"
     "Add bytes at the end."},
    {"splice", (PyCFunction)held_splice_method, METH_VARARGS,
     "splice($self, start, length, data, /)\n--\n\n"
     "Replace `length` bytes from `start` on, or fewer at the end, with `data`."},
    {"part", (PyCFunction)held_part, METH_VARARGS,
     "part($self, start, length, /)\n--\n\n"
     "`length` bytes from `start` on, or fewer at the end."},
    {NULL, NULL, 0, NULL},
};

static PySequenceMethods held_sequence = {.sq_length = (lenfunc)held_length};

PyTypeObject HeldBodyType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.HeldBody",
    .tp_doc = "``bytes(held)`` are the current bytes; later changes do not affect them.",
    .tp_basicsize = sizeof(HeldBody),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)held_init,
    .tp_dealloc = (destructor)held_dealloc,
    .tp_as_sequence = &held_sequence,
    .tp_methods = held_methods,
};
