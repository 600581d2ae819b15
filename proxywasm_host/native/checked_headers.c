/* Checks incoming and outgoing headers, in the usual cases. */
#include "fast_path.h"

static PyObject *headers_name, *data_name, *end_stream_name, *stream_name;

int headers_names(void) {
    static const Name NAMES[] = {
        {&headers_name, "headers"},
        {&data_name, "data"},
        {&end_stream_name, "end_stream"},
        {&stream_name, "stream"},
    };
    return INTERN(NAMES);
}

enum { FEW = 32, SLOTS_OF_FEW = 128 }; /* up to this number of headers, names are compared in a table on the C stack */

/* The name in a plain pair. */
static PyObject *name_of(PyObject *list, Py_ssize_t index) { return PyTuple_GET_ITEM(PyList_GET_ITEM(list, index), 0); }

/* Bits set where one of eight characters is in the range from '@' to '_', as capitals are. Few names have others. */
static uint64_t capitals(uint64_t eight) { return eight & ~(eight << 1) & 0x4040404040404040; }

/* The hash of a name, computed eight characters at a time; `upper` gets bits where there may be a capital. */
static uint64_t hash_name(PyObject *name, uint64_t *upper) {
    static const uint64_t ODD = 0x9e3779b97f4a7c15;
    const unsigned char *text = (const unsigned char *)PyBytes_AS_STRING(name);
    size_t size = (size_t)PyBytes_GET_SIZE(name), at = 0;
    uint64_t hash = size, part = 0;
    for (; at + 8 <= size; at += 8) {
        memcpy(&part, text + at, 8);
        *upper |= capitals(part);
        hash = (hash ^ part) * ODD;
        hash ^= hash >> 32;
    }
    if (at == size) return hash;
    if (size >= 8) memcpy(&part, text + size - 8, 8); /* overlaps the previous part */
    else if (size >= 4) {
        uint32_t head, tail;
        memcpy(&head, text, 4), memcpy(&tail, text + size - 4, 4);
        part = (uint64_t)tail << 32 | head;
    } else part = (uint64_t)text[0] | (uint64_t)text[size / 2] << 8 | (uint64_t)text[size - 1] << 16;
    *upper |= capitals(part);
    hash = (hash ^ part) * ODD;
    return hash ^ hash >> 32;
}

/* Whether all names in a long list differ, or -1 with an exception. */
static int all_differ(PyObject *list) {
    PyObject *names = PySet_New(NULL);
    if (!names) return -1;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        if (PySet_Add(names, name_of(list, i))) {
            Py_DECREF(names);
            return -1;
        }
    }
    int differ = PySet_GET_SIZE(names) == PyList_GET_SIZE(list);
    Py_DECREF(names);
    return differ;
}

/* Put an index into a table with open addressing. Returns whether its name is new. */
static bool put_name(unsigned char *table, PyObject *list, Py_ssize_t index, uint64_t hash) {
    PyObject *name = name_of(list, index);
    for (unsigned at = hash % SLOTS_OF_FEW;; at = (at + 1) % SLOTS_OF_FEW) {
        if (!table[at]) {
            table[at] = (unsigned char)(index + 1);
            return true;
        }
        if (same_bytes(name, name_of(list, table[at] - 1))) return false;
    }
}

PyObject *checked_headers(PyObject *headers, bool owned, Py_ssize_t *count, Py_ssize_t *size) {
    if (!PyList_CheckExact(headers)) return NULL;
    PyObject *list = owned ? Py_NewRef(headers) : PyList_GetSlice(headers, 0, PyList_GET_SIZE(headers)), *name, *value;
    if (!list) return NULL;
    unsigned char table[SLOTS_OF_FEW] = {0};
    Py_ssize_t many = 0, bytes = 0, all = PyList_GET_SIZE(list);
    uint64_t upper = 0;
    int usual = 1;
    for (Py_ssize_t i = 0; i < all; i++) {
        if (!(usual = pair_of(list, i, &name, &value))) break;
        uint64_t hash = hash_name(name, &upper);
        if (all <= FEW && !(usual = put_name(table, list, i, hash))) break;
        many += PyBytes_AS_STRING(name)[0] != ':';
        bytes += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value);
    }
    *count = many, *size = bytes;
    if (upper) usual = 0;
    if (usual && all > FEW) usual = all_differ(list);
    if (usual <= 0) Py_CLEAR(list);
    return list;
}

#define TEXT(text) text, sizeof text - 1
/* As in http.py: pseudo headers by direction, with a bit for required ones. */
static const struct {
    const char *name;
    Py_ssize_t size;
    int needed;
} KNOWN[2][6] = {
    {{TEXT(":method"), 1}, {TEXT(":path"), 2}, {TEXT(":scheme"), 0}, {TEXT(":authority"), 0}, {TEXT(":protocol"), 0}},
    {{TEXT(":status"), 1}},
};
static const int NEEDED[] = {3, 1};

int add_pseudo_headers(PyObject *module) {
    Proxywasm_constant all[12] = {{"NEEDED_IN_REQUEST", NEEDED[REQUEST]}, {"NEEDED_IN_RESPONSE", NEEDED[RESPONSE]}};
    size_t count = 2;
    for (int direction = REQUEST; direction <= RESPONSE; direction++)
        for (size_t i = 0; KNOWN[direction][i].name; i++)
            all[count++] = (Proxywasm_constant){KNOWN[direction][i].name, KNOWN[direction][i].needed};
    return proxywasm_add_constants(module, all);
}

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
        Py_ssize_t size = PyBytes_GET_SIZE(name);
        int j = 0;
        while (KNOWN[direction][j].name &&
               (KNOWN[direction][j].size != size || memcmp(KNOWN[direction][j].name, text, (size_t)size)))
            j++;
        if (!KNOWN[direction][j].name) return false;
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

/* -- Outgoing effects ------------------------------------------------------------------------------------------- */

static PyObject *effect(Layout *layout, PyObject *class, PyObject *content_name, PyObject *content, bool end_stream,
                        PyObject *stream) {
    PyObject *const names[] = {content_name, end_stream_name, stream_name};
    PyObject *const values[] = {content, end_stream ? Py_True : Py_False, stream};
    return make_record(layout, class, names, values, 3);
}

static Layout headers_layouts[2], body_layouts[2];

PyObject *headers_effect(int direction, PyObject *headers, bool end_stream, PyObject *stream) {
    return effect(&headers_layouts[direction], known.headers_out[direction], headers_name, headers, end_stream, stream);
}

PyObject *body_effect(int direction, PyObject *data, bool end_stream, PyObject *stream) {
    return effect(&body_layouts[direction], known.body_out[direction], data_name, data, end_stream, stream);
}

static const Layout *layout_of(PyObject *effect) {
    static const Layout none;
    for (int direction = REQUEST; direction <= RESPONSE; direction++) {
        if ((PyObject *)Py_TYPE(effect) == known.headers_out[direction]) return &headers_layouts[direction];
        if ((PyObject *)Py_TYPE(effect) == known.body_out[direction]) return &body_layouts[direction];
    }
    return &none;
}

PyObject *effect_content(PyObject *effect, PyObject *name) { return record_field(layout_of(effect), effect, 0, name); }

PyObject *effect_end_stream(PyObject *effect) { return record_field(layout_of(effect), effect, 1, end_stream_name); }

PyObject *effect_stream(PyObject *effect) { return record_field(layout_of(effect), effect, 2, stream_name); }
