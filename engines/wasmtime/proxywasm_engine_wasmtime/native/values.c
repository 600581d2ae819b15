/* Converts between Python's numbers and the slots that carry values. */
#include "native.h"

int to_slot(char kind, PyObject *value, Slot *slot) {
    if (kind == 'i' || kind == 'I') {
        unsigned long long number = PyLong_AsUnsignedLongLongMask(value);
        if (number == (unsigned long long)-1 && PyErr_Occurred()) return -1;
        if (kind == 'I') slot->i64 = number;
        else slot->i32 = (uint32_t)number;
        return 0;
    }
    double number = PyFloat_AsDouble(value);
    if (number == -1 && PyErr_Occurred()) return -1;
    if (kind == 'F') slot->f64 = number;
    else slot->f32 = (float)number;
    return 0;
}

PyObject *from_slot(char kind, const Slot *slot) {
    switch (kind) {
    case 'i': return PyLong_FromUnsignedLong(slot->i32);
    case 'I': return PyLong_FromUnsignedLongLong(slot->i64);
    case 'f': return PyFloat_FromDouble((double)slot->f32);
    case 'F': return PyFloat_FromDouble(slot->f64);
    default: Py_RETURN_NONE;
    }
}

bool are_kinds(const char *kinds, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++)
        if (!kinds[i] || !strchr("iIfF", kinds[i])) return false;
    return true;
}
