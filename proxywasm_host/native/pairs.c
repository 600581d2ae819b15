/* Header pairs: the usual case of abi/pairs.py, which documents the format. */
#include "native.h"

static uint8_t *write_u32(uint8_t *at, size_t number) {
    for (int i = 0; i < 4; i++) *at++ = (uint8_t)(number >> 8 * i);
    return at;
}

PyObject *pairs_decode(PyObject *bytes) {
    const uint8_t *data = (const uint8_t *)PyBytes_AS_STRING(bytes);
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    if (!size) return PyList_New(0);
    if (size > MAX_PAIRS_SIZE || size < 4) return NULL;
    size_t count = read_u32(data), at = 4 + 8 * count;
    if (count > MAX_PAIRS || at > size) return NULL;
    for (size_t i = 0; i < 2 * count; i++) {
        size_t end = at + read_u32(data + 4 + 4 * i);
        if (end >= size || data[end]) return NULL;
        at = end + 1;
    }
    if (at != size) return NULL;
    PyObject *list = PyList_New((Py_ssize_t)count);
    at = 4 + 8 * count;
    for (size_t i = 0; list && i < count; i++) {
        size_t key = read_u32(data + 4 + 8 * i), value = read_u32(data + 8 + 8 * i);
        PyObject *pair = PyTuple_New(2);
        if (!pair) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, pair);
        PyObject *first = PyBytes_FromStringAndSize((const char *)data + at, (Py_ssize_t)key);
        PyObject *second = PyBytes_FromStringAndSize((const char *)data + at + key + 1, (Py_ssize_t)value);
        PyTuple_SET_ITEM(pair, 0, first);
        PyTuple_SET_ITEM(pair, 1, second);
        if (!first || !second) Py_CLEAR(list);
        at += key + value + 2;
    }
    return list;
}

PyObject *pairs_encode(PyObject *list) {
    PyObject *name, *value;
    if (!PyList_CheckExact(list)) return NULL;
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (!count) return PyBytes_FromStringAndSize(NULL, 0);
    size_t size = 4;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!pair_of(list, i, &name, &value)) return NULL;
        size += 10 + (size_t)PyBytes_GET_SIZE(name) + (size_t)PyBytes_GET_SIZE(value);
    }
    if (size > UINT32_MAX) return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (!bytes) return NULL;
    uint8_t *numbers = write_u32((uint8_t *)PyBytes_AS_STRING(bytes), (size_t)count), *at = numbers + 8 * count;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!pair_of(list, i, &name, &value)) continue; /* never: it was a pair above, and no code has run since */
        PyObject *parts[2] = {name, value};
        for (int part = 0; part < 2; part++) {
            size_t length = (size_t)PyBytes_GET_SIZE(parts[part]);
            numbers = write_u32(numbers, length);
            memcpy(at, PyBytes_AS_STRING(parts[part]), length + 1); /* with the NUL at the end of bytes objects */
            at += length + 1;
        }
    }
    return bytes;
}
