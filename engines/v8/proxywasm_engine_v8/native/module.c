/* The Python module, and the table of V8's functions. */
#include "native.h"

Api api;

/* use(callable, [address, …]): a callable that returns the lowest address that V8 may use on the stack of the calling
 * thread, and the functions of `Api` in its order */
static PyObject *use(PyObject *module, PyObject *args) {
    PyObject *callable, *addresses;
    void *found[sizeof api / sizeof(void *)];
    const Py_ssize_t count = sizeof found / sizeof *found;
    if (!PyArg_ParseTuple(args, "OO!", &callable, &PyList_Type, &addresses)) return NULL;
    if (PyList_GET_SIZE(addresses) != count) return PyErr_Format(PyExc_ValueError, "expected %zd addresses", count);
    for (Py_ssize_t i = 0; i < count; i++) {
        found[i] = PyLong_AsVoidPtr(PyList_GET_ITEM(addresses, i));
        if (!found[i]) return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "address %zd is 0", i);
    }
    memcpy(&api, found, sizeof api);
    affinity_use(callable);
    Py_RETURN_NONE;
}

static PyObject *is_ticking(PyObject *module, PyObject *unused) { return PyBool_FromLong(ticker_runs()); }

static PyMethodDef methods[] = {
    {"use", use, METH_VARARGS, NULL},
    {"is_ticking", is_ticking, METH_NOARGS, NULL},
    {"ranges_of", ranges_of, METH_VARARGS, NULL},
    {"planned", planned, METH_VARARGS, NULL},
    {"joined", joined, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static const Proxywasm_constant CONSTANTS[] = {
    PROXYWASM_CONSTANT(PAGE),       PROXYWASM_CONSTANT(ARGUMENTS),
    PROXYWASM_CONSTANT(UNANSWERED), PROXYWASM_CONSTANT(MAX_NESTED),
    PROXYWASM_CONSTANT(MAX_BITS),   PROXYWASM_CONSTANT(LARGE),
    PROXYWASM_CONSTANT(MOST),       {NULL, 0},
};

static int fill(PyObject *module) {
    static bool is_ready;
    if (!is_ready && ticker_ready()) return -1;
    is_ready = true;
    PyObject *host = PyLong_FromVoidPtr((void *)host_called);
    int failed = PyType_Ready(&GuestType) || PyModule_AddType(module, &TrampolinesType) ||
                 PyModule_AddType(module, &AffinityType) || !host ||
                 PyModule_AddObjectRef(module, "HOST_CALLED", host) || proxywasm_add_constants(module, CONSTANTS) ||
                 PyModule_AddIntConstant(module, "FINGERPRINT", FINGERPRINT) ||
                 PyModule_AddIntConstant(module, "NATIVE_ABI", PROXYWASM_NATIVE_ABI);
    Py_XDECREF(host);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {PROXYWASM_SLOTS{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "proxywasm_engine_v8._native", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
