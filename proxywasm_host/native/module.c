/* The extension module: its types, and the objects that Python passes to it. */
#include "fast_path.h"

Known known;

int intern(const Name *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!(*names[i].at = PyUnicode_InternFromString(names[i].text))) return -1;
    return 0;
}

PyObject *to_override(PyObject *self, PyObject *args) {
    PyErr_SetNone(PyExc_NotImplementedError);
    return NULL;
}

PyObject *get_flag(PyObject *self, void *at) { return PyBool_FromLong(*(bool *)((char *)self + (size_t)at)); }

int set_flag(PyObject *self, PyObject *value, void *at) {
    int flag = value ? PyObject_IsTrue(value) : 0;
    if (flag < 0) return -1;
    *(bool *)((char *)self + (size_t)at) = flag;
    return 0;
}

static bool is_named(PyObject *name, const char *text) {
    const char *given = PyUnicode_IS_ASCII(name) ? PyUnicode_DATA(name) : "";
    if (*given != *text) return false; /* true of most names */
    size_t size = strlen(text);
    return (size_t)PyUnicode_GET_LENGTH(name) == size && !memcmp(given, text, size);
}

static bool take_by_place(const Signature *function, PyObject *const *args, Py_ssize_t count, PyObject **values) {
    if (count > function->by_position)
        return PyErr_Format(PyExc_TypeError, "%s() takes %d positional arguments, %zd were given", function->name,
                            function->by_position, count);
    for (Py_ssize_t i = 0; i < count; i++) values[i] = args[i];
    return true;
}

/* Take a keyword argument. `given` has a bit for each argument already taken. */
static bool take_by_name(const Signature *function, PyObject *name, PyObject *value, PyObject **values,
                         unsigned *given) {
    const char *const *names = function->names;
    int which = 0;
    while (which < MAX_NAMES && names[which] && !is_named(name, names[which])) which++;
    if (which == MAX_NAMES || !names[which] || *given >> which & 1)
        return PyErr_Format(PyExc_TypeError, "%s() has no argument '%U', or it was given before", function->name, name);
    values[which] = value, *given |= 1u << which;
    return true;
}

static bool took_all(const Signature *function, unsigned given) {
    for (int i = 0; i < function->required; i++)
        if (!(given >> i & 1))
            return PyErr_Format(PyExc_TypeError, "%s() was not given '%s'", function->name, function->names[i]);
    return true;
}

bool take(const Signature *function, PyObject *const *args, Py_ssize_t count, PyObject *keywords, PyObject **values) {
    if (!take_by_place(function, args, count, values)) return false;
    unsigned given = (1u << count) - 1;
    for (Py_ssize_t i = 0; keywords && i < PyTuple_GET_SIZE(keywords); i++)
        if (!take_by_name(function, PyTuple_GET_ITEM(keywords, i), args[count + i], values, &given)) return false;
    return took_all(function, given);
}

bool take_for_init(const Signature *function, PyObject *args, PyObject *keywords, PyObject **values) {
    if (keywords && !PyArg_ValidateKeywordArguments(keywords)) return false;
    if (!take_by_place(function, &PyTuple_GET_ITEM(args, 0), PyTuple_GET_SIZE(args), values)) return false;
    unsigned given = (1u << PyTuple_GET_SIZE(args)) - 1;
    PyObject *name, *value;
    for (Py_ssize_t at = 0; keywords && PyDict_Next(keywords, &at, &name, &value);)
        if (!take_by_name(function, name, value, values, &given)) return false;
    return took_all(function, given);
}

static const struct {
    const char *name;
    PyObject **at;
} HANDED_OVER[] = {
    {"refusal", &known.refusal},
    {"restricted_call", &known.restricted_call},
    {"read_pairs", &known.read_pairs},
    {"encode", &known.encode},
    {"no_memory", &known.no_memory},
    {"not_done", &known.not_done},
    {"handlers", &known.handlers},
    {"inline_headers", &known.inline_headers},
    {"not_found", &known.not_found},
    {"system_clock", &known.system_clock},
    {"http_context", &known.http_context},
    {"filter_chain", &known.filter_chain},
    {"http_stream", &known.http_stream},
    {"plugin", &known.plugin},
    {"request_headers", &known.headers_out[0]},
    {"response_headers", &known.headers_out[1]},
    {"request_body", &known.body_out[0]},
    {"response_body", &known.body_out[1]},
    {"check_properties", &known.check_properties},
    {"header_limits", &known.header_limits},
    {"states", &known.states},
    {"request_head", &known.request_head},
    {"response_head", &known.response_head},
    {"exchange_log", &known.exchange_log},
};

/* use(name=object, …): store the objects in `known` */
static PyObject *use(PyObject *module, PyObject *args, PyObject *keywords) {
    PyObject *name, *object;
    Py_ssize_t position = 0;
    while (keywords && PyDict_Next(keywords, &position, &name, &object)) {
        size_t i = 0, count = sizeof HANDED_OVER / sizeof *HANDED_OVER;
        while (i < count && PyUnicode_CompareWithASCIIString(name, HANDED_OVER[i].name)) i++;
        if (i == count) return PyErr_Format(PyExc_TypeError, "nothing is called %U", name);
        Py_XSETREF(*HANDED_OVER[i].at, Py_NewRef(object));
    }
    Py_RETURN_NONE;
}

static PyObject *decode(PyObject *module, PyObject *bytes) {
    if (!PyBytes_CheckExact(bytes)) Py_RETURN_NONE;
    PyObject *pairs = pairs_decode(bytes);
    if (!pairs && !PyErr_Occurred()) Py_RETURN_NONE;
    return pairs;
}

static PyObject *encode(PyObject *module, PyObject *pairs) {
    PyObject *bytes = pairs_encode(pairs);
    if (!bytes && !PyErr_Occurred()) Py_RETURN_NONE;
    return bytes;
}

static const Proxywasm_constant CONSTANTS[] = {
    PROXYWASM_CONSTANT(OK),
    PROXYWASM_CONSTANT(NOT_FOUND),
    PROXYWASM_CONSTANT(BAD_ARGUMENT),
    PROXYWASM_CONSTANT(INTERNAL_FAILURE),
    PROXYWASM_CONSTANT(RECORDED),
    PROXYWASM_CONSTANT(TEXT),
    PROXYWASM_CONSTANT(FDS),
    PROXYWASM_CONSTANT(MAX_RANGES),
    PROXYWASM_CONSTANT(MAX_PAIRS_SIZE),
    PROXYWASM_CONSTANT(MAX_PAIRS),
    PROXYWASM_CONSTANT(U32),
    PROXYWASM_CONSTANT(I32),
    PROXYWASM_CONSTANT(U64),
    PROXYWASM_CONSTANT(I64),
    PROXYWASM_CONSTANT(BYTES),
    PROXYWASM_CONSTANT(PAIRS),
    PROXYWASM_CONSTANT(IOVECS),
    PROXYWASM_CONSTANT(U32_OUT),
    PROXYWASM_CONSTANT(U64_OUT),
    PROXYWASM_CONSTANT(BYTES_OUT),
    PROXYWASM_CONSTANT(PAIRS_OUT),
    PROXYWASM_CONSTANT(BYTES_AT),
    PROXYWASM_CONSTANT(STRINGS_AT),
    PROXYWASM_CONSTANT(STREAM_MAPS),
    PROXYWASM_CONSTANT(MAPS),
    PROXYWASM_CONSTANT(BUFFERS),
    PROXYWASM_CONSTANT(REQUEST),
    PROXYWASM_CONSTANT(RESPONSE),
    PROXYWASM_CONSTANT(STOP_ALL),
    PROXYWASM_CONSTANT(BUFFER_LIMIT),
    PROXYWASM_CONSTANT(STOPPED),
    {NULL, 0},
};

static PyMethodDef methods[] = {
    {"use", (PyCFunction)(void (*)(void))use, METH_VARARGS | METH_KEYWORDS, NULL},
    {"decode", decode, METH_O, "The pairs in serialised bytes, or None if Python must decode them."},
    {"encode", encode, METH_O, "A plain list of pairs in serialised form, or None for any other object."},
    {"received_request", (PyCFunction)(void (*)(void))wire_received_request, METH_FASTCALL,
     "The result of integrations.headers.received_request, or None if Python must compute it."},
    {"received_response", (PyCFunction)(void (*)(void))wire_received_response, METH_FASTCALL,
     "The result of integrations.headers.received_response, or None likewise."},
    {"sent_request", wire_sent_request, METH_O,
     "Method, path, scheme, headers and the place of their length, or None likewise: see integrations/heads.py."},
    {"sent_response", wire_sent_response, METH_O, "Status, headers and the place of their length, or None likewise."},
    {"asgi_begin", (PyCFunction)(void (*)(void))asgi_begin, METH_FASTCALL,
     "Feed an exchange the head of a scope. The target, or None: see integrations/asgi/messages.py."},
    {"asgi_sent", (PyCFunction)(void (*)(void))asgi_sent, METH_FASTCALL,
     "Feed an exchange a message from the application. The resulting message for the server; True if the result is "
     "something else; None if nothing was fed."},
    {"asgi_scope", (PyCFunction)(void (*)(void))asgi_scope, METH_FASTCALL,
     "The application's scope from the client's scope, its target and a head, or None."},
    {"slot_setter", (PyCFunction)(void (*)(void))slot_setter, METH_FASTCALL,
     "A function that sets these slots of an object of this class: see direct_init.py."},
    {"read_code", read_code, METH_VARARGS, "The figures of a code section, as a tuple: see abi/code_section.py."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module) {
    static bool is_ready;
    static const struct {
        const char *name;
        PyTypeObject *type;
    } TYPES[] = {{"ContextState", &ContextType},
                 {"VmBase", &VmBaseType},
                 {"Calls", &CallsType},
                 {"Guest", &GuestType},
                 {"Hostcall", &HostcallType},
                 {"HttpContextBase", &HttpContextBaseType},
                 {"FilterChainBase", &FilterChainBaseType},
                 {"HttpStreamBase", &HttpStreamBaseType},
                 {"PluginBase", &PluginBaseType},
                 {"HostBase", &HostBaseType},
                 {"Outbox", &OutboxType},
                 {"HeldBody", &HeldBodyType},
                 {"ExchangeBase", &ExchangeBaseType}};
    HttpContextBaseType.tp_base = &ContextType;
    static int (*const NAMES[])(void) = {buffer_names,  calls_names,    context_names,  vm_names,    guest_names,
                                         headers_names, host_names,     hostcall_names, chain_names, stream_names,
                                         wire_names,    exchange_names, asgi_names};
    for (size_t i = 0; !is_ready && i < sizeof NAMES / sizeof *NAMES; i++)
        if (NAMES[i]()) return -1;
    is_ready = true;
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++)
        if (PyType_Ready(TYPES[i].type) || PyModule_AddObjectRef(module, TYPES[i].name, (PyObject *)TYPES[i].type))
            return -1;
    const Proxywasm_constant *const LISTS[] = {CONSTANTS, BUFFER_CONSTANTS, CODE_CONSTANTS, EXCHANGE_CONSTANTS};
    for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++)
        if (proxywasm_add_constants(module, LISTS[i])) return -1;
    return add_pseudo_headers(module) || PyModule_AddIntConstant(module, "FINGERPRINT", FINGERPRINT) ||
                   PyModule_AddIntConstant(module, "NATIVE_ABI", PROXYWASM_NATIVE_ABI)
               ? -1
               : 0;
}

static PyModuleDef_Slot slots[] = {PROXYWASM_SLOTS{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "proxywasm_host._native", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
