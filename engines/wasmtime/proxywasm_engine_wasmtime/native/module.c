/* The Python module, and the table of Wasmtime's functions. */
#include "native.h"

Api api;

/* use(…): the addresses of the functions in `Api`, in its order */
static PyObject *use(PyObject *module, PyObject *args) {
    unsigned long long found[7];
    if (!PyArg_ParseTuple(args, "KKKKKKK", &found[0], &found[1], &found[2], &found[3], &found[4], &found[5], &found[6]))
        return NULL;
    void *addresses[7];
    for (int i = 0; i < 7; i++) addresses[i] = (void *)(uintptr_t)found[i];
    memcpy(&api, addresses, sizeof api);
    Py_RETURN_NONE;
}

/* prepare(is_enabled, bring_forward, check_stack): the functions to call before a guest is entered */
static PyObject *prepare(PyObject *module, PyObject *args) {
    PyObject *functions[3];
    if (!PyArg_ParseTuple(args, "O!OO", &PyCFunction_Type, &functions[0], &functions[1], &functions[2])) return NULL;
    trampolines_prepare(functions[0], functions[1], functions[2]);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"use", use, METH_VARARGS, NULL},
    {"prepare", prepare, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static const Proxywasm_constant CONSTANTS[] = {PROXYWASM_CONSTANT(MAX_NESTED), {NULL, 0}};

static int fill(PyObject *module) {
    static bool is_ready;
    if (!is_ready && ticker_ready()) return -1;
    is_ready = true;
    if (PyType_Ready(&GuestType) || PyModule_AddType(module, &TickerType) || PyModule_AddType(module, &TrampolinesType))
        return -1;
    PyObject *host = PyLong_FromVoidPtr((void *)host_called), *epoch = PyLong_FromVoidPtr((void *)epoch_reached);
    int failed = !host || !epoch || PyModule_AddObjectRef(module, "HOST_CALLED", host) ||
                 PyModule_AddObjectRef(module, "EPOCH_REACHED", epoch);
    Py_XDECREF(host);
    Py_XDECREF(epoch);
    failed = failed || proxywasm_add_constants(module, CONSTANTS) ||
             PyModule_AddIntConstant(module, "FINGERPRINT", FINGERPRINT) ||
             PyModule_AddIntConstant(module, "NATIVE_ABI", PROXYWASM_NATIVE_ABI);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {PROXYWASM_SLOTS{Py_mod_exec, (void *)fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "proxywasm_engine_wasmtime._native", .m_size = 0, .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModuleDef_Init(&definition); }
