/* The type of a function, from two strings of letters. */
#include "native.h"

int parse_type(PyObject *type, char **params, Py_ssize_t *count, char *result) {
    const char *kinds, *results;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(type, "s#s#", &kinds, count, &results, &size)) return -1;
    if (!proxywasm_are_types(kinds, *count) || *count > MAX_ARGUMENTS || !proxywasm_are_types(results, size) ||
        size > 1)
        return PyErr_SetString(PyExc_ValueError, "a type that cannot cross"), -1;
    *params = PyMem_Malloc((size_t)*count + 1);
    if (!*params) return PyErr_NoMemory(), -1;
    memcpy(*params, kinds, (size_t)*count);
    *result = *results;
    return 0;
}
