/* A stream context: the C form of HttpContextBase in runtime/fast_path.py, method by method. */
#include "fast_path.h"

static PyObject *stream_gone_name, *headers_action_name;
const size_t HEADERS_MAP[] = {0, 2};
static const Known_callback ON_HEADERS[] = {ON_REQUEST_HEADERS, ON_RESPONSE_HEADERS};

int context_names(void) {
    static const Name NAMES[] = {
        {&stream_gone_name, "_stream_gone"},
        {&headers_action_name, "headers_action"},
    };
    return INTERN(NAMES);
}

static int begin(HttpContextBase *self, PyObject *stream, PyObject *object) {
    PluginBase *plugin = (PluginBase *)object;
    if (self->vm) return PyErr_SetString(PyExc_RuntimeError, "a context is made once"), -1;
    if (!is_a(object, known.plugin, &PluginBaseType))
        return PyErr_Format(PyExc_TypeError, "%R is not a Plugin", object), -1;
    VmBase *vm = plugin_vm(plugin);
    if (!vm) return -1;
    self->root_number = (uint32_t)PyLong_AsUnsignedLongMask(plugin->root->id);
    PyObject *id = PyErr_Occurred() ? NULL : vm_new_context_id(vm, NULL);
    if (!id) return -1;
    self->number = (uint32_t)PyLong_AsUnsignedLongMask(id);
    self->action[REQUEST] = self->action[RESPONSE] = -1;
    context_begin(&self->base, id, (PyObject *)plugin->root);
    Py_XSETREF(self->stream, Py_NewRef(stream));
    Py_XSETREF(self->plugin, Py_NewRef(plugin));
    Py_XSETREF(self->vm, (VmBase *)Py_NewRef(vm));
    int failed = PyDict_SetItem(vm->contexts, id, (PyObject *)self);
    Py_DECREF(id);
    return failed;
}

static int http_context_init(HttpContextBase *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"stream", "plugin", NULL};
    PyObject *stream, *plugin;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:HttpContext", names, &stream, &plugin)) return -1;
    return begin(self, stream, plugin);
}

PyObject *context_make(PyObject *stream, PyObject *plugin) {
    PyTypeObject *type = (PyTypeObject *)known.http_context;
    if (!is_made_here(type, (initproc)http_context_init)) {
        PyObject *args[] = {stream, plugin};
        return PyObject_Vectorcall(known.http_context, args, 2, NULL);
    }
    PyObject *self = type->tp_alloc(type, 0);
    if (self && begin((HttpContextBase *)self, stream, plugin)) Py_CLEAR(self);
    return self;
}

static VmBase *vm_of(HttpContextBase *self) {
    if (!self->vm || !self->stream) PyErr_SetString(PyExc_RuntimeError, "the context is closed");
    return self->vm && self->stream ? self->vm : NULL;
}

/* Call the guest, if it has this callback. The first of `slots` receives the result. Returns 0, or -1 with an
 * exception. */
static int tell(HttpContextBase *self, VmBase *vm, Known_callback which, uint64_t *slots, size_t count) {
    if (!vm_has(vm, which)) return 0;
    slots[0] = self->number;
    return vm_tell(vm, (PyObject *)self, which, slots, count);
}

static int create(HttpContextBase *self) {
    if (self->created) return 0;
    VmBase *vm = vm_of(self);
    if (!vm) return -1;
    self->created = true;
    uint64_t slots[2] = {0, self->root_number};
    if (!tell(self, vm, ON_CONTEXT_CREATE, slots, 2)) return 0;
    if (PyErr_ExceptionMatches(PyExc_RuntimeError)) self->created = false; /* the guest is busy, and was not called */
    return -1;
}

static PyObject *http_context_create(HttpContextBase *self, PyObject *none) {
    if (create(self)) return NULL;
    Py_RETURN_NONE;
}

int64_t action_of(PyObject *result) {
    int64_t number = result ? PyLong_AsLongLong(result) : -1;
    Py_XDECREF(result);
    if (number < 0 && !PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "no action is %lld", (long long)number);
    return number;
}

static int64_t failed(HttpContextBase *self, int direction) {
    return action_of(PyObject_CallMethod((PyObject *)self, "failed", "ii", direction, STOP_ALL));
}

static int64_t headers_action(HttpContextBase *self, uint64_t action) {
    PyObject *number = PyLong_FromUnsignedLongLong(action);
    if (!number) return -1;
    int64_t amounts_to = action_of(PyObject_CallMethodOneArg((PyObject *)self, headers_action_name, number));
    Py_DECREF(number);
    return amounts_to;
}

bool context_sees_no_body(const HttpContextBase *self, int direction) {
    Known_callback on_body = direction == REQUEST ? ON_REQUEST_BODY : ON_RESPONSE_BODY;
    return !self->created || (self->vm && self->vm->failure == Py_None && !self->vm->known[on_body].function);
}

int64_t context_on_headers(HttpContextBase *self, int direction, PyObject *headers, bool end_stream) {
    if (!self->created) {
        if (direction == RESPONSE) return 0;
        if (create(self)) return -1;
    }
    VmBase *vm = vm_of(self);
    if (!vm) return -1;
    if (vm->failure != Py_None) return failed(self, direction);
    size_t at = HEADERS_MAP[direction];
    if (place_set(&self->base.maps, at, headers)) return -1;
    int64_t action = 0;
    if (vm_has(vm, ON_HEADERS[direction])) {
        uint64_t slots[] = {0, (uint64_t)PyList_GET_SIZE(headers), end_stream};
        if (tell(self, vm, ON_HEADERS[direction], slots, vm->tells_end ? 3 : 2)) return -1;
        if (vm->failure != Py_None) return failed(self, direction);
        self->action[direction] = (long long)slots[0];
        action = slots[0] ? headers_action(self, slots[0]) : 0;
    }
    if (!action && place_set(&self->base.maps, at, Py_None)) return -1;
    return action;
}

static PyObject *http_context_on_headers(HttpContextBase *self, PyObject *args) {
    int direction, end_stream;
    PyObject *headers;
    if (!PyArg_ParseTuple(args, "iO!p:on_headers", &direction, &PyList_Type, &headers, &end_stream)) return NULL;
    if (direction != REQUEST && direction != RESPONSE) return PyErr_Format(PyExc_ValueError, "direction %d", direction);
    int64_t action = context_on_headers(self, direction, headers, end_stream);
    return action < 0 ? NULL : PyLong_FromLongLong(action);
}

static int write_log(HttpContextBase *self) {
    if (create(self)) return -1;
    VmBase *vm = vm_of(self);
    if (!vm) return -1;
    for (size_t i = 0; i < 2; i++)
        if (place_set(&self->base.buffers, i, Py_None)) return -1;
    places_replace(&self->base.maps, NULL);
    for (size_t i = 0; i < STREAM_MAPS; i++) {
        PyObject *map = map_for_log(self->stream, i);
        if (!map || place_set(&self->base.maps, i, map)) return -1;
    }
    self->base.read_only = true;
    uint64_t slot;
    int state = tell(self, vm, ON_LOG, &slot, 1);
    self->base.read_only = false;
    places_replace(&self->base.maps, NULL);
    return state;
}

static PyObject *http_context_log(HttpContextBase *self, PyObject *none) {
    if (write_log(self)) return NULL;
    Py_RETURN_NONE;
}

static int delete(HttpContextBase *self) {
    VmBase *vm = vm_of(self);
    if (!vm || (!vm->log_before_done && write_log(self))) return -1;
    self->deleted = true;
    uint64_t slot;
    if (tell(self, vm, ON_DELETE, &slot, 1)) return -1;
    int alive = PyDict_Contains(vm->contexts, self->base.id);
    if (alive < 0 || (alive && PyDict_DelItem(vm->contexts, self->base.id))) return -1;
    Py_CLEAR(self->stream);
    return ((PluginBase *)self->plugin)->closed ? told(PyObject_CallMethodNoArgs(self->plugin, stream_gone_name)) : 0;
}

static PyObject *http_context_delete(HttpContextBase *self, PyObject *none) {
    if (delete(self)) return NULL;
    Py_RETURN_NONE;
}

static int finish(HttpContextBase *self) {
    if (self->deleted) return 0;
    VmBase *vm = vm_of(self);
    if (!vm) return -1;
    uint64_t done = 1;
    bool asked = vm_has(vm, ON_DONE);
    if (tell(self, vm, ON_DONE, &done, 1)) return -1;
    if (!asked || done || !vm->await_done || vm->failure != Py_None) return delete(self);
    return told(PyObject_CallMethod((PyObject *)self, "hold", NULL));
}

static PyObject *http_context_finish(HttpContextBase *self, PyObject *none) {
    if (finish(self)) return NULL;
    Py_RETURN_NONE;
}

static int log_if_first(HttpContextBase *self) {
    VmBase *vm = vm_of(self);
    return !vm ? -1 : vm->log_before_done ? write_log(self) : 0;
}

int end_contexts(PyObject *contexts) {
    static int (*const STEPS[])(HttpContextBase *) = {log_if_first, finish};
    for (size_t step = 0; step < 2; step++) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(contexts); i++) {
            PyObject *context = Py_NewRef(PyList_GET_ITEM(contexts, i));
            int failed = -1;
            if (is_a(context, known.http_context, &HttpContextBaseType))
                failed = STEPS[step]((HttpContextBase *)context);
            else PyErr_Format(PyExc_TypeError, "%R is not an HttpContext", context);
            Py_DECREF(context);
            if (failed) return -1;
        }
    }
    return 0;
}

static int http_context_traverse(HttpContextBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->stream);
    Py_VISIT(self->plugin);
    Py_VISIT(self->vm);
    Py_VISIT(self->dict);
    return context_traverse(&self->base, visit, arg);
}

static int http_context_clear(HttpContextBase *self) {
    Py_CLEAR(self->stream);
    Py_CLEAR(self->plugin);
    Py_CLEAR(self->vm);
    Py_CLEAR(self->dict);
    return context_clear(&self->base);
}

static void http_context_dealloc(HttpContextBase *self) {
    PyObject_GC_UnTrack(self);
    http_context_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef http_context_methods[] = {
    {"create", (PyCFunction)http_context_create, METH_NOARGS,
     "create($self, /)\n--\n\n"
     "Call on_context_create, once."},
    {"on_headers", (PyCFunction)http_context_on_headers, METH_VARARGS,
     "on_headers($self, direction, headers, end_stream, /)\n--\n\n"
     "Call the guest with headers. Returns its action, a `HeadersAction`; 0 is CONTINUE."},
    {"log", (PyCFunction)http_context_log, METH_NOARGS,
     "log($self, /)\n--\n\n"
     "Call on_log, in which everything can be read, but nothing changed."},
    {"finish", (PyCFunction)http_context_finish, METH_NOARGS,
     "finish($self, /)\n--\n\n"
     "Call on_done and on_delete, with on_log between them unless the profile has `log_before_done`."},
    {"delete", (PyCFunction)http_context_delete, METH_NOARGS,
     "delete($self, /)\n--\n\n"
     "Call on_delete, after on_log unless the profile has `log_before_done`. The context ends."},
    {"headers_action", to_override, METH_VARARGS,
     "headers_action($self, action, /)\n--\n\n"
     "Convert an action other than CONTINUE to the one that the profile has for it."},
    {"failed", to_override, METH_VARARGS,
     "failed($self, direction, stop, /)\n--\n\n"
     "The action for a stream whose VM has failed."},
    {"hold", to_override, METH_VARARGS,
     "hold($self, /)\n--\n\n"
     "Wait for ``proxy_done``, because on_done returned false."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef http_context_members[] = {
    {"stream", T_OBJECT_EX, offsetof(HttpContextBase, stream), 0, NULL},
    {"plugin", T_OBJECT_EX, offsetof(HttpContextBase, plugin), READONLY, NULL},
    {"vm", T_OBJECT_EX, offsetof(HttpContextBase, vm), READONLY, NULL},
    {"request_action", T_LONGLONG, offsetof(HttpContextBase, action[REQUEST]), 0, NULL},
    {"response_action", T_LONGLONG, offsetof(HttpContextBase, action[RESPONSE]), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef http_context_getset[] = {
    DICT,
    FLAG(HttpContextBase, created),
    FLAG(HttpContextBase, deleted),
    FLAG(HttpContextBase, pending_done),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject HttpContextBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.HttpContextBase",
    .tp_doc = "A stream context. `HttpContext` adds `headers_action`, `failed` and `hold`.",
    .tp_basicsize = sizeof(HttpContextBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)http_context_init,
    .tp_dealloc = (destructor)http_context_dealloc,
    .tp_traverse = (traverseproc)http_context_traverse,
    .tp_clear = (inquiry)http_context_clear,
    .tp_methods = http_context_methods,
    .tp_members = http_context_members,
    .tp_getset = http_context_getset,
    .tp_dictoffset = offsetof(HttpContextBase, dict),
};
