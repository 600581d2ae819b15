/* The methods of a plugin and a host that almost every request uses: the C forms of PluginBase and HostBase in
 * runtime/fast_path.py. */
#include "fast_path.h"

static PyObject *clock_name, *ready_name, *router_name, *nothing, *default_limit;

int host_names(void) {
    static const Name NAMES[] = {
        {&clock_name, "clock"},
        {&ready_name, "_ready"},
        {&router_name, "_router"},
    };
    PyObject *empty = PyDict_New();
    nothing = empty ? PyDictProxy_New(empty) : NULL;
    default_limit = PyLong_FromLong(BUFFER_LIMIT);
    Py_XDECREF(empty);
    return nothing && default_limit ? INTERN(NAMES) : -1;
}

/* -- A plugin --------------------------------------------------------------------------------------------------- */

VmBase *plugin_vm(const PluginBase *self) {
    if (!self->vm || !self->root) PyErr_SetString(PyExc_RuntimeError, "the plugin was never started, or is gone");
    return self->vm && self->root ? self->vm : NULL;
}

/* Set `vm` or `root`. Their types are checked here, and not again when they are used. */
static int put(PyObject **place, PyObject *value, PyTypeObject *type, const char *wanted) {
    if (!value || !PyObject_TypeCheck(value, type))
        return PyErr_Format(PyExc_TypeError, "a plugin has a %s", wanted), -1;
    Py_XSETREF(*place, Py_NewRef(value));
    return 0;
}

static int set_vm(PluginBase *self, PyObject *vm, void *closure) {
    return put((PyObject **)&self->vm, vm, &VmBaseType, "Vm");
}

static int set_root(PluginBase *self, PyObject *root, void *closure) {
    return put((PyObject **)&self->root, root, &ContextType, "root context");
}

static PyObject *get_put(PyObject *self, void *at) {
    PyObject *value = *(PyObject **)((char *)self + (size_t)at);
    if (!value) PyErr_SetString(PyExc_AttributeError, "the plugin was never started, or is gone");
    return Py_XNewRef(value);
}

static int plugin_traverse(PluginBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->host);
    Py_VISIT(self->vm);
    Py_VISIT(self->root);
    Py_VISIT(self->dict);
    return 0;
}

static int plugin_clear(PluginBase *self) {
    Py_CLEAR(self->host);
    Py_CLEAR(self->vm);
    Py_CLEAR(self->root);
    Py_CLEAR(self->dict);
    return 0;
}

static void plugin_dealloc(PluginBase *self) {
    PyObject_GC_UnTrack(self);
    plugin_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef plugin_members[] = {
    {"host", T_OBJECT_EX, offsetof(PluginBase, host), 0, "The host that loaded it."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef plugin_getset[] = {
    DICT,
    {"_vm", get_put, (setter)set_vm, NULL, (void *)offsetof(PluginBase, vm)},
    {"_root", get_put, (setter)set_root, NULL, (void *)offsetof(PluginBase, root)},
    PUBLIC_FLAG(PluginBase, closed, "Whether `close` was called."),
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject PluginBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.PluginBase",
    .tp_doc = "The part of a plugin that streams use.",
    .tp_basicsize = sizeof(PluginBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)plugin_dealloc,
    .tp_traverse = (traverseproc)plugin_traverse,
    .tp_clear = (inquiry)plugin_clear,
    .tp_members = plugin_members,
    .tp_getset = plugin_getset,
    .tp_dictoffset = offsetof(PluginBase, dict),
};

/* -- A host ----------------------------------------------------------------------------------------------------- */

static int set_services(HostBase *self, PyObject *services, void *closure) {
    PyObject *clock = services ? PyObject_GetAttr(services, clock_name) : NULL;
    if (!clock) return PyErr_Occurred() ? -1 : (PyErr_SetString(PyExc_AttributeError, "a host has services"), -1);
    Py_XSETREF(self->clock, clock);
    Py_XSETREF(self->services, Py_NewRef(services));
    return 0;
}

static PyObject *get_services(HostBase *self, void *closure) {
    if (!self->services) PyErr_SetString(PyExc_AttributeError, "services");
    return Py_XNewRef(self->services);
}

static int host_init(HostBase *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"services", NULL};
    PyObject *services;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O:Host", names, &services)) return -1;
    Py_XSETREF(self->outbox, (Outbox *)PyObject_CallNoArgs((PyObject *)&OutboxType));
    return self->outbox ? set_services(self, services, NULL) : -1;
}

static bool is_fit(HostBase *self, PyObject *object) {
    PluginBase *plugin = (PluginBase *)object;
    if (!is_a(object, known.plugin, &PluginBaseType) || plugin->closed) return false;
    if (plugin->host != (PyObject *)self) return false;
    return plugin->vm && plugin->root && plugin->vm->failure == Py_None;
}

/* A list of the plugins for a new stream. */
static PyObject *ready(HostBase *self, PyObject *plugins) {
    bool fit = PyList_CheckExact(plugins) || PyTuple_CheckExact(plugins);
    for (Py_ssize_t i = 0; fit && i < PySequence_Fast_GET_SIZE(plugins); i++)
        fit = is_fit(self, PySequence_Fast_GET_ITEM(plugins, i));
    return fit ? Py_NewRef(plugins) : PyObject_CallMethodOneArg((PyObject *)self, ready_name, plugins);
}

/* Whether the value of a property is certainly one that filters can read. */
static bool is_plain(PyObject *value) {
    if (value == Py_None || PyBool_Check(value) || PyBytes_CheckExact(value) || PyFloat_CheckExact(value)) return true;
    if (PyUnicode_CheckExact(value)) return PyUnicode_IS_ASCII(value);
    int overflow = PyLong_CheckExact(value) ? 0 : 1;
    if (!overflow) PyLong_AsLongLongAndOverflow(value, &overflow);
    return !overflow;
}

/* values.check_properties. Returns 0, or -1 with an exception. For objects other than dicts, the check depends only on
 * the type, so the last good type is stored. */
static int check_properties(PyObject *properties) {
    static PyObject *good_type;
    if ((PyObject *)Py_TYPE(properties) == good_type || !known.check_properties) return 0;
    bool plain = PyDict_CheckExact(properties);
    PyObject *name, *value;
    Py_ssize_t position = 0;
    while (plain && PyDict_Next(properties, &position, &name, &value))
        plain = PyUnicode_CheckExact(name) && is_plain(value);
    if (plain) return 0;
    if (told(PyObject_CallOneArg(known.check_properties, properties))) return -1;
    if (!PyDict_Check(properties)) Py_XSETREF(good_type, Py_NewRef(Py_TYPE(properties)));
    return 0;
}

static PyObject *gone(void) { return PyErr_Format(PyExc_RuntimeError, "the host was never made, or is gone"); }

static PyObject *host_http_stream(HostBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    static const Signature SIGNATURE = {
        "http_stream", 1, 1, {"plugins", "properties", "buffer_limit", "header_limits", "router"}};
    PyObject *given[] = {NULL, nothing, default_limit, known.header_limits, Py_True};
    if (!take(&SIGNATURE, args, count, keywords, given)) return NULL;
    if (!self->outbox || !self->clock) return gone();
    if (given[1] == Py_None) given[1] = nothing;
    if (given[1] != nothing && check_properties(given[1])) return NULL;
    PyObject *plugins = ready(self, given[0]);
    if (!plugins) return NULL;
    PyObject *stream = stream_make(self, self->stream_type, plugins, given[1], given[2], given[3]);
    Py_DECREF(plugins);
    if (stream && given[4] != Py_True) {
        int routes = PyObject_IsTrue(given[4]);
        if (routes < 0 || (!routes && PyObject_SetAttr(stream, router_name, Py_False))) Py_CLEAR(stream);
    }
    return stream;
}

static PyObject *host_drain(HostBase *self, PyObject *none) {
    return self->outbox ? outbox_drain(self->outbox, NULL) : gone();
}

static PyObject *host_emit(HostBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    static const Signature SIGNATURE = {"_emit", 1, 1, {"effect"}};
    PyObject *effect = NULL;
    if (!take(&SIGNATURE, args, count, keywords, &effect)) return NULL;
    if (!self->outbox) return gone();
    if (PyList_Append(self->outbox->effects, effect)) return NULL;
    Py_RETURN_NONE;
}

static int host_traverse(HostBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->services);
    Py_VISIT(self->clock);
    Py_VISIT(self->stream_type);
    Py_VISIT(self->outbox);
    Py_VISIT(self->dict);
    return 0;
}

static int host_clear(HostBase *self) {
    Py_CLEAR(self->services);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->stream_type);
    Py_CLEAR(self->outbox);
    Py_CLEAR(self->dict);
    return 0;
}

static void host_dealloc(HostBase *self) {
    PyObject_GC_UnTrack(self);
    host_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef host_methods[] = {
    {"http_stream", (PyCFunction)(void (*)(void))host_http_stream, METH_FASTCALL | METH_KEYWORDS,
     "http_stream($self, plugins, *, properties=None, buffer_limit=1048576, header_limits=..., router=True)\n--\n\n"
     "Make an HTTP stream through these plugins, in the order of the request.\n\n"
     "`properties` are those of this stream, by dotted name (``\"source.address\"``). `buffer_limit` is the number of\n"
     "bytes of a body that filters may hold. Beyond `header_limits`, a request is answered with 431, a response is\n"
     "replaced by a 502; ``None`` means no limit. `router`: if filters leave headers without ``:path``, ``:method``\n"
     "or ``:status``, answer as Envoy's router does (404, 503, 502); without it, the headers are sent as they are.\n\n"
     "Raises: TypeError or ValueError, for plugins of another host, and for properties that no filter could read."},
    {"_emit", (PyCFunction)(void (*)(void))host_emit, METH_FASTCALL | METH_KEYWORDS,
     "_emit($self, effect)\n--\n\n"
     "Add an effect; the current event, or the next one, returns it."},
    {"drain", (PyCFunction)host_drain, METH_NOARGS,
     "drain($self, /)\n--\n\n"
     "Remove and return all effects, in order."},
    {"_ready", to_override, METH_VARARGS,
     "_ready($self, plugins, /)\n--\n\n"
     "The plugins that a new stream passes. Raises: RuntimeError, if one was closed."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef host_members[] = {
    {"_outbox", T_OBJECT_EX, offsetof(HostBase, outbox), READONLY, NULL},
    {"_stream_type", T_OBJECT_EX, offsetof(HostBase, stream_type), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef host_getset[] = {
    DICT,
    {"services", (getter)get_services, (setter)set_services, "The services that hostcalls use.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject HostBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.HostBase",
    .tp_doc = "The part of a host that streams use.",
    .tp_basicsize = sizeof(HostBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)host_init,
    .tp_dealloc = (destructor)host_dealloc,
    .tp_traverse = (traverseproc)host_traverse,
    .tp_clear = (inquiry)host_clear,
    .tp_methods = host_methods,
    .tp_members = host_members,
    .tp_getset = host_getset,
    .tp_dictoffset = offsetof(HostBase, dict),
};
