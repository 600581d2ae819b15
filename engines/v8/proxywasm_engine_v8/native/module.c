/* The module, and V8's functions. */
#include "native.h"

Api api;

/* use(callable, [address, …]): what tells how far down V8 may go on the stack of the thread that asks, and the functions
 * in `Api`, in its order */
static PyObject *use(PyObject *module, PyObject *args) {
    PyObject *callable, *addresses;
    void *found[sizeof api / sizeof(void *)];
    const Py_ssize_t count = sizeof found / sizeof *found;
    if (!PyArg_ParseTuple(args, "OO!", &callable, &PyList_Type, &addresses)) return NULL;
    if (PyList_GET_SIZE(addresses) != count) return PyErr_Format(PyExc_ValueError, "%zd addresses are wanted", count);
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
    {"edited", edited, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "proxywasm_engine_v8._native",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__native(void) {
    if (ticker_ready()) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    PyObject *host = PyLong_FromVoidPtr((void *)host_called);
    if (PyType_Ready(&GuestType) || PyModule_AddType(module, &TrampolinesType) ||
        PyModule_AddType(module, &AffinityType) || !host || PyModule_AddObjectRef(module, "HOST_CALLED", host) ||
        PyModule_AddIntConstant(module, "FINGERPRINT", FINGERPRINT) ||
        PyModule_AddIntConstant(module, "NATIVE_ABI", PROXYWASM_NATIVE_ABI))
        Py_CLEAR(module);
    Py_XDECREF(host);
    return module;
}
