/* Converts between Python's numbers and the 64-bit slots that carry values. */
#include "native.h"

int to_slot(char kind, PyObject *value, uint64_t *slot) {
    if (kind == 'i' || kind == 'I') {
        unsigned long long number = PyLong_AsUnsignedLongLongMask(value);
        if (number == (unsigned long long)-1 && PyErr_Occurred()) return -1;
        *slot = kind == 'I' ? number : (uint32_t)number;
        return 0;
    }
    double number = PyFloat_AsDouble(value);
    if (number == -1 && PyErr_Occurred()) return -1;
    float single = (float)number;
    *slot = 0;
    if (kind == 'F') memcpy(slot, &number, sizeof number);
    else memcpy(slot, &single, sizeof single);
    return 0;
}

PyObject *from_slot(char kind, const uint64_t *slot) {
    float single;
    double number;
    switch (kind) {
    case 'i': return PyLong_FromUnsignedLong((uint32_t)*slot);
    case 'I': return PyLong_FromUnsignedLongLong(*slot);
    case 'f': memcpy(&single, slot, sizeof single); return PyFloat_FromDouble((double)single);
    case 'F': memcpy(&number, slot, sizeof number); return PyFloat_FromDouble(number);
    default: Py_RETURN_NONE;
    }
}

/* Whether all letters are kinds of values. */
static bool are_kinds(const char *kinds, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++)
        if (!kinds[i] || !strchr("iIfF", kinds[i])) return false;
    return size <= MAX_ARGUMENTS;
}

int parse_type(PyObject *type, char **params, Py_ssize_t *count, char *result) {
    const char *kinds, *results;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(type, "s#s#", &kinds, count, &results, &size)) return -1;
    if (!are_kinds(kinds, *count) || !are_kinds(results, size) || size > 1)
        return PyErr_SetString(PyExc_ValueError, "a type that cannot cross"), -1;
    *params = PyMem_Malloc((size_t)*count + 1);
    if (!*params) return PyErr_NoMemory(), -1;
    memcpy(*params, kinds, (size_t)*count);
    *result = *results;
    return 0;
}
