/* Headers on their way in and out, where there is nothing unusual about them. */
#include "fast_path.h"

static PyObject *headers_name, *end_stream_name, *stream_name;

int headers_names(void) {
    static const Name NAMES[] = {
        {&headers_name, "headers"},
        {&end_stream_name, "end_stream"},
        {&stream_name, "stream"},
    };
    return INTERN(NAMES);
}

enum { FEW = 24 }; /* headers among which a name is sought one by one */

/* Of a plain pair. */
static PyObject *name_of(PyObject *list, Py_ssize_t index) { return PyTuple_GET_ITEM(PyList_GET_ITEM(list, index), 0); }

/* Whether all names of a list of plain pairs differ, or -1 with an exception. */
static int all_differ(PyObject *list) {
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count <= FEW) {
        for (Py_ssize_t i = 1; i < count; i++)
            for (Py_ssize_t j = 0; j < i; j++)
                if (same_bytes(name_of(list, i), name_of(list, j))) return 0;
        return 1;
    }
    PyObject *names = PySet_New(NULL);
    if (!names) return -1;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PySet_Add(names, name_of(list, i))) {
            Py_DECREF(names);
            return -1;
        }
    }
    int differ = PySet_GET_SIZE(names) == count;
    Py_DECREF(names);
    return differ;
}

/* Whether a name is in lower case, as names are here. */
static bool is_lower(PyObject *name) {
    const char *text = PyBytes_AS_STRING(name);
    unsigned upper = 0;
    for (Py_ssize_t i = 0; i < PyBytes_GET_SIZE(name); i++) upper |= (unsigned)(text[i] - 'A') < 26;
    return !upper;
}

PyObject *checked_headers(PyObject *headers, Py_ssize_t *count, Py_ssize_t *size) {
    if (!PyList_CheckExact(headers)) return NULL;
    PyObject *list = PyList_GetSlice(headers, 0, PyList_GET_SIZE(headers)), *name, *value;
    if (!list) return NULL;
    Py_ssize_t many = 0, bytes = 0;
    int plain = 1;
    for (Py_ssize_t i = 0; plain && i < PyList_GET_SIZE(list); i++) {
        if (!(plain = pair_of(list, i, &name, &value) && is_lower(name))) break;
        many += PyBytes_AS_STRING(name)[0] != ':';
        bytes += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value);
    }
    *count = many, *size = bytes;
    if (plain) plain = all_differ(list);
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

/* -- What goes out ---------------------------------------------------------------------------------------------- */

static PyObject *const *const SLOTS[] = {&headers_name, &end_stream_name, &stream_name};
enum { FIELDS = 3 };

/* Where a class keeps its fields, so that it need not be called. */
typedef struct {
    PyObject *class;
    Py_ssize_t at[FIELDS];
    bool found;
} Layout;

static int find_layout(Layout *layout, PyObject *class) {
    layout->found = PyType_Check(class) && ((PyTypeObject *)class)->tp_new == PyBaseObject_Type.tp_new;
    for (int i = 0; i < FIELDS; i++) {
        PyObject *slot = PyObject_GetAttr(class, *SLOTS[i]);
        if (!slot) return -1;
        bool own = Py_IS_TYPE(slot, &PyMemberDescr_Type) && PyDescr_TYPE(slot) == (PyTypeObject *)class;
        PyMemberDef *member = own ? ((PyMemberDescrObject *)slot)->d_member : NULL;
        if (member && member->type == T_OBJECT_EX) layout->at[i] = member->offset;
        else layout->found = false;
        Py_DECREF(slot);
    }
    Py_XSETREF(layout->class, Py_NewRef(class));
    return 0;
}

PyObject *headers_effect(int direction, PyObject *headers, bool end_stream, PyObject *stream) {
    static Layout layouts[2];
    Layout *layout = &layouts[direction];
    PyObject *class = known.headers_out[direction], *fields[] = {headers, end_stream ? Py_True : Py_False, stream};
    if (layout->class != class && find_layout(layout, class)) return NULL;
    if (!layout->found) return PyObject_Vectorcall(class, fields, FIELDS, NULL);
    PyObject *effect = ((PyTypeObject *)class)->tp_alloc((PyTypeObject *)class, 0);
    for (int i = 0; effect && i < FIELDS; i++) *(PyObject **)((char *)effect + layout->at[i]) = Py_NewRef(fields[i]);
    return effect;
}
