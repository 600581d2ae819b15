/* A stream context: the twin of PlainContext in runtime/plain.py, method by method. */
#include "plain.h"

static PyObject *vm_name, *root_name, *closed_name, *stream_gone_name, *on_create, *on_log, *on_done, *on_delete,
    *on_headers[2];
const Py_ssize_t HEADERS_MAP[] = {0, 2};

int context_names(void) {
    static const Name NAMES[] = {
        {&vm_name, "vm"},
        {&root_name, "root"},
        {&closed_name, "closed"},
        {&stream_gone_name, "stream_gone"},
        {&on_create, "on_context_create"},
        {&on_log, "on_log"},
        {&on_done, "on_done"},
        {&on_delete, "on_delete"},
        {&on_headers[REQUEST], "on_request_headers"},
        {&on_headers[RESPONSE], "on_response_headers"},
    };
    return INTERN(NAMES);
}

/* Whether an attribute is true, or -1 with an exception. */
static int is_set(PyObject *object, PyObject *name) {
    PyObject *value = PyObject_GetAttr(object, name);
    int set = value ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    return set;
}

static int plain_context_init(PlainContext *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "plugin", NULL};
    PyObject *stream, *plugin;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:HttpContext", names, &stream, &plugin)) return -1;
    PyObject *vm = PyObject_GetAttr(plugin, vm_name), *root = vm ? PyObject_GetAttr(plugin, root_name) : NULL;
    PyObject *id = NULL;
    int failed = -1;
    if (root && !PyObject_TypeCheck(vm, &EntryType)) PyErr_SetString(PyExc_TypeError, "the plugin's vm is no Vm");
    else if (root) id = entry_new_context_id((Entry *)vm, NULL);
    if (id && !context_begin(&self->base, id, root)) {
        Py_XSETREF(self->stream, Py_NewRef(stream));
        Py_XSETREF(self->plugin, Py_NewRef(plugin));
        Py_XSETREF(self->vm, Py_NewRef(vm));
        failed = PyDict_SetItem(((Entry *)vm)->contexts, id, (PyObject *)self);
    }
    Py_XDECREF(id);
    Py_XDECREF(root);
    Py_XDECREF(vm);
    return failed;
}

static Entry *entry_of(PlainContext *self) {
    if (!self->vm || !self->stream) PyErr_SetString(PyExc_RuntimeError, "the context is closed");
    return self->vm && self->stream ? (Entry *)self->vm : NULL;
}

/* Entry.call with the context's id and up to two more numbers: what the guest returned, or None. */
static PyObject *call(PlainContext *self, Entry *vm, PyObject *name, PyObject *second, PyObject *third) {
    PyObject *callback = PyDict_GetItemWithError(vm->callbacks, name);
    if (!callback || vm->failure != Py_None) {
        if (PyErr_Occurred()) return NULL;
        Py_RETURN_NONE;
    }
    PyObject *args[] = {(PyObject *)self, Py_NewRef(callback), self->base.id, second, third};
    PyObject *result = entry_enter(vm, args, third ? 5 : second ? 4 : 3);
    Py_DECREF(callback);
    return result;
}

static int create(PlainContext *self) {
    if (self->created) return 0;
    Entry *vm = entry_of(self);
    if (!vm) return -1;
    self->created = true;
    PyObject *root = self->base.root;
    if (!PyObject_TypeCheck(root, &ContextType)) {
        PyErr_SetString(PyExc_TypeError, "the root of a context is no context");
        return -1;
    }
    if (!told(call(self, vm, on_create, ((Context *)root)->id, NULL))) return 0;
    if (PyErr_ExceptionMatches(PyExc_RuntimeError)) self->created = false; /* the guest is busy, and knows of nothing */
    return -1;
}

static PyObject *plain_create(PlainContext *self, PyObject *none) {
    if (create(self)) return NULL;
    Py_RETURN_NONE;
}

int64_t answer(PyObject *result) {
    int64_t number = result ? PyLong_AsLongLong(result) : -1;
    Py_XDECREF(result);
    return number;
}

static int64_t failed(PlainContext *self, int direction) {
    return answer(PyObject_CallMethod((PyObject *)self, "failed", "ii", direction, STOP_ALL));
}

static int set_map(PlainContext *self, int direction, PyObject *headers) {
    return PyList_SetItem(self->base.maps, HEADERS_MAP[direction], Py_NewRef(headers));
}

int64_t context_on_headers(PlainContext *self, int direction, PyObject *headers, bool end_stream) {
    if (!self->created) {
        if (direction == RESPONSE) return 0;
        if (create(self)) return -1;
    }
    Entry *vm = entry_of(self);
    if (!vm) return -1;
    if (vm->failure != Py_None) return failed(self, direction);
    if (set_map(self, direction, headers)) return -1;
    int64_t action = 0;
    if (PyDict_GetItemWithError(vm->callbacks, on_headers[direction])) {
        PyObject *count = PyLong_FromSsize_t(PyList_GET_SIZE(headers));
        if (!count) return -1;
        PyObject *end = vm->tells_end ? PyLong_FromLong(end_stream) : NULL;
        action = answer(call(self, vm, on_headers[direction], count, end));
        Py_DECREF(count);
        Py_XDECREF(end);
        if (action < 0) return -1;
        if (vm->failure != Py_None) return failed(self, direction);
        if (action) action = answer(PyObject_CallMethod((PyObject *)self, "headers_action", "L", (long long)action));
    }
    if (PyErr_Occurred()) return -1;
    if (!action && set_map(self, direction, Py_None)) return -1;
    return action;
}

static PyObject *plain_on_headers(PlainContext *self, PyObject *args) {
    int direction, end_stream;
    PyObject *headers;
    if (!PyArg_ParseTuple(args, "iO!p:on_headers", &direction, &PyList_Type, &headers, &end_stream)) return NULL;
    if (direction != REQUEST && direction != RESPONSE) return PyErr_Format(PyExc_ValueError, "direction %d", direction);
    int64_t action = context_on_headers(self, direction, headers, end_stream);
    return action < 0 ? NULL : PyLong_FromLongLong(action);
}

static int write_log(PlainContext *self) {
    if (create(self)) return -1;
    Entry *vm = entry_of(self);
    if (!vm) return -1;
    for (Py_ssize_t i = 0; i < 2; i++)
        if (PyList_SetItem(self->base.buffers, i, Py_NewRef(Py_None))) return -1;
    PyObject *maps = maps_for_log(self->stream);
    if (!maps) return -1;
    Py_XSETREF(self->base.maps, maps);
    self->base.read_only = true;
    int state = told(call(self, vm, on_log, NULL, NULL));
    self->base.read_only = false;
    PyObject *none = Py_BuildValue("[OOOO]", Py_None, Py_None, Py_None, Py_None);
    if (!none) return -1;
    Py_XSETREF(self->base.maps, none);
    return state;
}

static PyObject *plain_log(PlainContext *self, PyObject *none) {
    if (write_log(self)) return NULL;
    Py_RETURN_NONE;
}

static int delete(PlainContext *self) {
    Entry *vm = entry_of(self);
    if (!vm || (!vm->log_before_done && write_log(self))) return -1;
    self->deleted = true;
    if (told(call(self, vm, on_delete, NULL, NULL))) return -1;
    int alive = PyDict_Contains(vm->contexts, self->base.id);
    if (alive < 0 || (alive && PyDict_DelItem(vm->contexts, self->base.id))) return -1;
    Py_CLEAR(self->stream);
    int closed = is_set(self->plugin, closed_name);
    return closed > 0 ? told(PyObject_CallMethodNoArgs(self->plugin, stream_gone_name)) : closed;
}

static PyObject *plain_delete(PlainContext *self, PyObject *none) {
    if (delete(self)) return NULL;
    Py_RETURN_NONE;
}

static int finish(PlainContext *self) {
    if (self->deleted) return 0;
    Entry *vm = entry_of(self);
    PyObject *result = vm ? call(self, vm, on_done, NULL, NULL) : NULL;
    if (!result) return -1;
    bool refused = PyLong_Check(result) && !PyObject_IsTrue(result);
    Py_DECREF(result);
    if (!refused || !vm->await_done || vm->failure != Py_None) return delete(self);
    self->pending_done = true;
    return 0;
}

static PyObject *plain_finish(PlainContext *self, PyObject *none) {
    if (finish(self)) return NULL;
    Py_RETURN_NONE;
}

static int log_if_first(PlainContext *self) {
    Entry *vm = entry_of(self);
    return !vm ? -1 : vm->log_before_done ? write_log(self) : 0;
}

PyObject *end_contexts(PyObject *module, PyObject *contexts) {
    if (!PyList_CheckExact(contexts)) return PyErr_Format(PyExc_TypeError, "contexts are a list, not %R", contexts);
    static int (*const STEPS[])(PlainContext *) = {log_if_first, finish};
    for (size_t step = 0; step < 2; step++) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(contexts); i++) {
            PyObject *context = Py_NewRef(PyList_GET_ITEM(contexts, i));
            int failed = -1;
            if (PyObject_TypeCheck(context, &PlainContextType)) failed = STEPS[step]((PlainContext *)context);
            else PyErr_Format(PyExc_TypeError, "%R is no HttpContext", context);
            Py_DECREF(context);
            if (failed) return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyObject *to_override(PyObject *self, PyObject *args) {
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

static int plain_context_traverse(PlainContext *self, visitproc visit, void *arg) {
    Py_VISIT(self->stream);
    Py_VISIT(self->plugin);
    Py_VISIT(self->vm);
    return context_traverse(&self->base, visit, arg);
}

static int plain_context_clear(PlainContext *self) {
    Py_CLEAR(self->stream);
    Py_CLEAR(self->plugin);
    Py_CLEAR(self->vm);
    return context_clear(&self->base);
}

static void plain_context_dealloc(PlainContext *self) {
    PyObject_GC_UnTrack(self);
    plain_context_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef plain_context_methods[] = {
    {"create", (PyCFunction)plain_create, METH_NOARGS, NULL},
    {"on_headers", (PyCFunction)plain_on_headers, METH_VARARGS, NULL},
    {"log", (PyCFunction)plain_log, METH_NOARGS, NULL},
    {"finish", (PyCFunction)plain_finish, METH_NOARGS, NULL},
    {"delete", (PyCFunction)plain_delete, METH_NOARGS, NULL},
    {"headers_action", to_override, METH_VARARGS, NULL},
    {"failed", to_override, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef plain_context_members[] = {
    {"stream", T_OBJECT_EX, offsetof(PlainContext, stream), 0, NULL},
    {"plugin", T_OBJECT_EX, offsetof(PlainContext, plugin), READONLY, NULL},
    {"vm", T_OBJECT_EX, offsetof(PlainContext, vm), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef plain_context_flags[] = {
    FLAG(PlainContext, created),
    FLAG(PlainContext, deleted),
    FLAG(PlainContext, pending_done),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject PlainContextType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.PlainContext",
    .tp_basicsize = sizeof(PlainContext),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)plain_context_init,
    .tp_dealloc = (destructor)plain_context_dealloc,
    .tp_traverse = (traverseproc)plain_context_traverse,
    .tp_clear = (inquiry)plain_context_clear,
    .tp_methods = plain_context_methods,
    .tp_members = plain_context_members,
    .tp_getset = plain_context_flags,
};
