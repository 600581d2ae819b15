/* Python's numbers as WebAssembly's values, for engines in C. A value is in a word of 64 bits, one of 32 bits in its lower
 * half. A letter is its type: i I f F for i32 i64 f32 f64, and 0 for no result.
 */
#ifndef PROXYWASM_VALUES_H
#define PROXYWASM_VALUES_H

#include "proxywasm_host.h"
#include <stdbool.h>
#include <string.h>

/* Returns 0, or -1 with an exception. */
static inline int proxywasm_to_word(char type, PyObject *value, uint64_t *word) {
    if (type == 'i' || type == 'I') {
        unsigned long long number = PyLong_AsUnsignedLongLongMask(value);
        if (number == (unsigned long long)-1 && PyErr_Occurred()) return -1;
        *word = type == 'I' ? number : (uint32_t)number;
        return 0;
    }
    double number = PyFloat_AsDouble(value);
    if (number == -1 && PyErr_Occurred()) return -1;
    float single = (float)number;
    *word = 0;
    if (type == 'F') memcpy(word, &number, sizeof number);
    else memcpy(word, &single, sizeof single);
    return 0;
}

static inline PyObject *proxywasm_from_word(char type, const uint64_t *word) {
    float single;
    double number;
    switch (type) {
    case 'i': return PyLong_FromUnsignedLong((uint32_t)*word);
    case 'I': return PyLong_FromUnsignedLongLong(*word);
    case 'f': memcpy(&single, word, sizeof single); return PyFloat_FromDouble((double)single);
    case 'F': memcpy(&number, word, sizeof number); return PyFloat_FromDouble(number);
    default: Py_RETURN_NONE;
    }
}

/* Whether all of a string are letters of types. */
static inline bool proxywasm_are_types(const char *letters, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++)
        if (!letters[i] || !strchr("iIfF", letters[i])) return false;
    return true;
}

/* Whether none is a float, so that calls may go past Python's numbers. */
static inline bool proxywasm_are_integers(const char *letters, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (letters[i] == 'f' || letters[i] == 'F') return false;
    return true;
}

/* Call a host function with arguments that are one in every `stride` words. Returns a new reference, or NULL. */
static inline PyObject *proxywasm_call(PyObject *call, const char *types, size_t count, const uint64_t *words,
                                       size_t stride) {
    PyObject *few[16], **args = count <= sizeof few / sizeof *few ? few : PyMem_Malloc(count * sizeof *args);
    if (!args) return PyErr_NoMemory();
    size_t made = 0;
    for (; made < count; made++)
        if (!(args[made] = proxywasm_from_word(types[made], &words[made * stride]))) break;
    Py_INCREF(call); /* the call may release it */
    PyObject *result = made == count ? PyObject_Vectorcall(call, args, made, NULL) : NULL;
    Py_DECREF(call);
    while (made) Py_DECREF(args[--made]);
    if (args != few) PyMem_Free(args);
    return result;
}

#endif
