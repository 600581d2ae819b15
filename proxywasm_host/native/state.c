/* The hot state: of a context (abi/context.py, ContextState) and of a VM that is entered (runtime/entry.py, Entry). */
#include "native.h"

enum { ROOT_MAPS = 8, STREAM_MAPS = 4, BUFFERS = 10 }; /* as in context.py */
#define STOPPED 0xFFFFFFFFu

/* -- A context ------------------------------------------------------------------------------------------------ */

static PyObject *nones(Py_ssize_t count) {
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) PyList_SET_ITEM(list, i, Py_NewRef(Py_None));
    return list;
}

int context_begin(Context *self, PyObject *id, PyObject *root) {
    Py_XSETREF(self->id, Py_NewRef(id));
    Py_XSETREF(self->maps, nones(root ? STREAM_MAPS : ROOT_MAPS));
    Py_XSETREF(self->buffers, nones(BUFFERS));
    Py_XSETREF(self->root, Py_NewRef(root ? root : (PyObject *)self));
    return self->maps && self->buffers ? 0 : -1;
}

static int context_init(Context *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"id", "root", NULL};
    PyObject *id, *root = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O|O:Context", names, &id, &root)) return -1;
    return context_begin(self, id, root == Py_None ? NULL : root);
}

int context_traverse(Context *self, visitproc visit, void *arg) {
    Py_VISIT(self->id);
    Py_VISIT(self->root);
    Py_VISIT(self->maps);
    Py_VISIT(self->buffers);
    return 0;
}

int context_clear(Context *self) {
    Py_CLEAR(self->id);
    Py_CLEAR(self->root);
    Py_CLEAR(self->maps);
    Py_CLEAR(self->buffers);
    return 0;
}

static void context_dealloc(Context *self) {
    PyObject_GC_UnTrack(self);
    context_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef context_members[] = {
    {"id", T_OBJECT_EX, offsetof(Context, id), 0, NULL},
    {"root", T_OBJECT_EX, offsetof(Context, root), 0, NULL},
    {"maps", T_OBJECT_EX, offsetof(Context, maps), 0, NULL},
    {"buffers", T_OBJECT_EX, offsetof(Context, buffers), 0, NULL},
    {"read_only", T_BOOL, offsetof(Context, read_only), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject ContextType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.ContextState",
    .tp_basicsize = sizeof(Context),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)context_init,
    .tp_dealloc = (destructor)context_dealloc,
    .tp_traverse = (traverseproc)context_traverse,
    .tp_clear = (inquiry)context_clear,
    .tp_members = context_members,
};

/* -- A VM that is entered ------------------------------------------------------------------------------------- */

static PyObject *ended_name, *run_deferred_name;

int intern(const Name *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!(*names[i].at = PyUnicode_InternFromString(names[i].text))) return -1;
    return 0;
}

PyObject *get_flag(PyObject *self, void *at) { return PyBool_FromLong(*(bool *)((char *)self + (size_t)at)); }

int set_flag(PyObject *self, PyObject *value, void *at) {
    int flag = value ? PyObject_IsTrue(value) : 0;
    if (flag < 0) return -1;
    *(bool *)((char *)self + (size_t)at) = flag;
    return 0;
}

static int entry_init(Entry *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"idle", "deferred", NULL};
    PyObject *idle, *deferred;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:Entry", names, &idle, &deferred)) return -1;
    Py_XSETREF(self->idle, Py_NewRef(idle));
    Py_XSETREF(self->context, Py_NewRef(idle));
    Py_XSETREF(self->deferred, Py_NewRef(deferred));
    Py_XSETREF(self->failure, Py_NewRef(Py_None));
    Py_XSETREF(self->contexts, PyDict_New());
    Py_XSETREF(self->callbacks, PyDict_New());
    self->tells_end = true;
    self->next_context = 1;
    return self->contexts && self->callbacks ? 0 : -1;
}

/* The exception that is set, as an object, and no longer set. */
static PyObject *take_exception(void) {
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback) PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

static void raise_again(PyObject *error) { /* steals the reference */
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(error)), error, PyException_GetTraceback(error));
#endif
}

/* The guest did not return. 0 if that is dealt with. */
static int entry_ended(Entry *self, PyObject *context, PyObject *callback) {
    PyObject *error = take_exception();
    PyObject *told = PyObject_CallMethodObjArgs((PyObject *)self, ended_name, context, callback, error, NULL);
    if (!told) {
        Py_DECREF(error);
        return -1;
    }
    Py_DECREF(told);
    if (PyErr_GivenExceptionMatches(error, PyExc_Exception)) {
        Py_DECREF(error);
        return 0;
    }
    raise_again(error);
    return -1;
}

PyObject *entry_enter(Entry *self, PyObject *const *args, Py_ssize_t count) {
    if (count < 2) {
        PyErr_SetString(PyExc_TypeError, "enter() takes a context, a callback and its arguments");
        return NULL;
    }
    if (!self->idle || self->context != self->idle) {
        PyErr_SetString(PyExc_RuntimeError,
                        "an event was fed to a guest while it runs: wait until the event at hand has returned");
        return NULL;
    }
    Py_SETREF(self->context, Py_NewRef(args[0]));
    PyObject *result = PyObject_Vectorcall(args[1], args + 2, (size_t)count - 2, NULL);
    int failed = result ? 0 : entry_ended(self, args[0], args[1]);
    Py_SETREF(self->context, Py_NewRef(self->idle));
    if (failed) return NULL;
    Py_ssize_t waiting = PyObject_Size(self->deferred);
    if (waiting > 0) {
        if (self->stop_iteration) {
            self->stop_iteration = 0;
            Py_XSETREF(result, PyLong_FromUnsignedLong(STOPPED));
        }
        PyObject *done = PyObject_CallMethodNoArgs((PyObject *)self, run_deferred_name);
        waiting = done ? 0 : -1;
        Py_XDECREF(done);
    }
    if (waiting < 0) {
        Py_XDECREF(result);
        return NULL;
    }
    if (!result) return PyLong_FromLong(0);
    if (result == Py_None) Py_SETREF(result, PyLong_FromLong(0));
    return result;
}

static PyObject *entry_call(Entry *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *enter[8];
    if (count < 2 || count > 8) {
        PyErr_SetString(PyExc_TypeError, "call() takes a context, a name and the callback's arguments");
        return NULL;
    }
    PyObject *callback = PyDict_GetItemWithError(self->callbacks, args[1]);
    if (!callback || self->failure != Py_None) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    memcpy(enter, args, (size_t)count * sizeof *enter);
    enter[1] = Py_NewRef(callback);
    PyObject *result = entry_enter(self, enter, count);
    Py_DECREF(callback);
    return result;
}

PyObject *entry_new_context_id(Entry *self, PyObject *none) {
    for (;;) {
        PyObject *id = PyLong_FromUnsignedLong(self->next_context);
        if (!id) return NULL;
        if (!++self->next_context) self->next_context = 1;
        int taken = PyDict_Contains(self->contexts, id);
        if (!taken) return id;
        Py_DECREF(id);
        if (taken < 0) return NULL;
    }
}

static int entry_traverse(Entry *self, visitproc visit, void *arg) {
    Py_VISIT(self->context);
    Py_VISIT(self->idle);
    Py_VISIT(self->deferred);
    Py_VISIT(self->failure);
    Py_VISIT(self->contexts);
    Py_VISIT(self->callbacks);
    return 0;
}

static int entry_clear(Entry *self) {
    Py_CLEAR(self->context);
    Py_CLEAR(self->idle);
    Py_CLEAR(self->deferred);
    Py_CLEAR(self->failure);
    Py_CLEAR(self->contexts);
    Py_CLEAR(self->callbacks);
    return 0;
}

static void entry_dealloc(Entry *self) {
    PyObject_GC_UnTrack(self);
    entry_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef entry_methods[] = {
    {"enter", (PyCFunction)(void (*)(void))entry_enter, METH_FASTCALL, NULL},
    {"call", (PyCFunction)(void (*)(void))entry_call, METH_FASTCALL, NULL},
    {"new_context_id", (PyCFunction)(void (*)(void))entry_new_context_id, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef entry_members[] = {
    {"context", T_OBJECT_EX, offsetof(Entry, context), 0, NULL},
    {"idle", T_OBJECT_EX, offsetof(Entry, idle), 0, NULL},
    {"deferred", T_OBJECT_EX, offsetof(Entry, deferred), 0, NULL},
    {"failure", T_OBJECT_EX, offsetof(Entry, failure), 0, NULL},
    {"contexts", T_OBJECT_EX, offsetof(Entry, contexts), 0, NULL},
    {"callbacks", T_OBJECT_EX, offsetof(Entry, callbacks), 0, NULL},
    {"next_context", T_UINT, offsetof(Entry, next_context), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef entry_flags[] = {
    FLAG(Entry, stop_iteration),
    FLAG(Entry, tells_end),
    FLAG(Entry, log_before_done),
    FLAG(Entry, await_done),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject EntryType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.Entry",
    .tp_basicsize = sizeof(Entry),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)entry_init,
    .tp_dealloc = (destructor)entry_dealloc,
    .tp_traverse = (traverseproc)entry_traverse,
    .tp_clear = (inquiry)entry_clear,
    .tp_methods = entry_methods,
    .tp_members = entry_members,
    .tp_getset = entry_flags,
};

int state_names(void) {
    ended_name = PyUnicode_InternFromString("ended");
    run_deferred_name = PyUnicode_InternFromString("run_deferred");
    return ended_name && run_deferred_name ? 0 : -1;
}
