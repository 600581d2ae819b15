/* Headers on their way in and out, where there is nothing unusual about them. */
#include "plain.h"

enum { FEW = 24 }; /* headers among which a name is sought one by one */

static bool same(PyObject *a, PyObject *b) {
    return a == b || (PyBytes_GET_SIZE(a) == PyBytes_GET_SIZE(b) &&
                      !memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)PyBytes_GET_SIZE(a)));
}

/* Whether all names of a list of plain pairs differ, or -1 with an exception. */
static int all_differ(PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count <= FEW) {
        for (Py_ssize_t i = 1; i < count; i++)
            for (Py_ssize_t j = 0; j < i; j++)
                if (same(PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 0), PyTuple_GET_ITEM(PyList_GET_ITEM(list, j), 0)))
                    return 0;
        return 1;
    }
    PyObject *names = PySet_New(NULL);
    if (!names) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PySet_Add(names, PyTuple_GET_ITEM(PyList_GET_ITEM(list, i), 0))) {
            Py_DECREF(names);
            return -1;
        }
    }
    int differ = PySet_GET_SIZE(names) == count;
    Py_DECREF(names);
    return differ;
}

PyObject *plain_headers(PyObject *headers, bool unique) {
    if (!PyList_CheckExact(headers)) return NULL;
    PyObject *list = PyList_GetSlice(headers, 0, PyList_GET_SIZE(headers)), *name, *value;
    if (!list) return NULL;
    int plain = 1;
    for (Py_ssize_t i = 0; plain && i < PyList_GET_SIZE(list); i++) plain = pair_of(list, i, &name, &value);
    if (plain && unique) plain = all_differ(list);
    if (plain <= 0) Py_CLEAR(list);
    return list;
}

static const struct {
    const char *name;
    int needed;
} KNOWN[2][6] = {
    {{":method", 1}, {":path", 2}, {":scheme", 0}, {":authority", 0}, {":protocol", 0}, {NULL, 0}},
    {{":status", 1}, {NULL, 0}},
}; /* as in http.py */
static const int NEEDED[] = {3, 1};

bool fit_for_wire(int direction, PyObject *headers) {
    PyObject *name, *value;
    int found = 0;
    if (!PyList_CheckExact(headers)) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        if (!pair_of(headers, i, &name, &value)) return false;
        const char *text = PyBytes_AS_STRING(name);
        if (text[0] != ':') {
            if (found == NEEDED[direction]) return true;
            continue;
        }
        int j = 0;
        while (KNOWN[direction][j].name && strcmp(KNOWN[direction][j].name, text)) j++;
        if (!KNOWN[direction][j].name || strlen(text) != (size_t)PyBytes_GET_SIZE(name)) return false;
        if (direction == RESPONSE) {
            const char *digit = PyBytes_AS_STRING(value), *end = digit + PyBytes_GET_SIZE(value);
            if (digit == end) return false;
            for (; digit < end; digit++)
                if (*digit < '0' || *digit > '9') return false;
        }
        found |= KNOWN[direction][j].needed;
    }
    return found == NEEDED[direction];
}
