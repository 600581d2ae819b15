/* Converts headers between HTTP libraries and filters, in the usual cases: the C form of parts of
 * integrations/headers.py (incoming) and integrations/heads.py (outgoing), which have the rules. In other cases,
 * functions return None, and Python does the work. Each makes one list in one pass. */
#include "native.h"
#include <stdarg.h>

enum { DIGITS = 18 }; /* any length with this many digits fits */

/* For each byte, whether it may occur in tokens (RFC 9110, 5.6.2) and in values (5.5). */
enum { IN_TOKENS = 1, IN_VALUES = 2 };
static uint8_t kinds[256];

static void classify(void) {
    static const char OTHERS[] = "!#$%&'*+.^_`|~-";
    for (int byte = 0; byte < 256; byte++)
        kinds[byte] = (uint8_t)((Py_ISALNUM(byte) || (byte && strchr(OTHERS, byte)) ? IN_TOKENS : 0) |
                                ((byte < 0x20 && byte != '\t') || byte == 0x7F ? 0 : IN_VALUES));
}

/* Whether all bytes have this kind. */
static bool consists_of(PyObject *bytes, uint8_t kind) {
    const uint8_t *at = (const uint8_t *)PyBytes_AS_STRING(bytes), *end = at + PyBytes_GET_SIZE(bytes);
    while (at < end && kinds[*at] & kind) at++;
    return at == end;
}

static bool is_token(PyObject *bytes) { return PyBytes_GET_SIZE(bytes) && consists_of(bytes, IN_TOKENS); }

/* Whether a value has no control characters, and no whitespace at its ends. */
static bool is_plain(PyObject *bytes) {
    const char *text = PyBytes_AS_STRING(bytes);
    Py_ssize_t size = PyBytes_GET_SIZE(bytes);
    if (!consists_of(bytes, IN_VALUES)) return false;
    return !size || !(text[0] == ' ' || text[0] == '\t' || text[size - 1] == ' ' || text[size - 1] == '\t');
}

static inline bool is_of(PyObject *bytes, const char *text, Py_ssize_t size) {
    return PyBytes_GET_SIZE(bytes) == size && !memcmp(PyBytes_AS_STRING(bytes), text, (size_t)size);
}
#define is(bytes, text) is_of(bytes, text, sizeof(text) - 1)

/* Whether a header concerns one connection only, or lists such headers. */
static bool is_peculiar(PyObject *name) {
    switch (PyBytes_AS_STRING(name)[0]) {
    case 'c': return is(name, "connection");
    case 'k': return is(name, "keep-alive");
    case 'p': return is(name, "proxy-connection");
    case 't': return is(name, "transfer-encoding");
    case 'u': return is(name, "upgrade");
    case 'e': return is(name, "expect");
    default: return false;
    }
}

static bool is_length(PyObject *value) {
    const char *text = PyBytes_AS_STRING(value);
    Py_ssize_t size = PyBytes_GET_SIZE(value);
    for (Py_ssize_t i = 0; i < size; i++)
        if (!Py_ISDIGIT(text[i])) return false;
    return size && size <= DIGITS;
}

/* Whether the text is a host name, perhaps with a port. IPv6 addresses are left to Python. */
static bool is_authority(PyObject *bytes) {
    const char *text = PyBytes_AS_STRING(bytes), *port = strchr(text, ':');
    Py_ssize_t size = PyBytes_GET_SIZE(bytes), name = port ? port - text : size;
    for (Py_ssize_t i = 0; i < size; i++)
        if (i < name ? !Py_ISALNUM(text[i]) && (!text[i] || !strchr(".-_", text[i])) : i > name && !Py_ISDIGIT(text[i]))
            return false;
    return true;
}

static bool is_path(PyObject *bytes) {
    const uint8_t *text = (const uint8_t *)PyBytes_AS_STRING(bytes);
    if (*text != '/') return false;
    for (Py_ssize_t i = 0; i < PyBytes_GET_SIZE(bytes); i++)
        if (text[i] <= ' ' || text[i] == '#' || text[i] == 0x7F) return false;
    return true;
}

/* Get an entry of a list or tuple, its name and its value. Returns false if it is not a plain pair of bytes. */
static bool plain_pair(PyObject *headers, Py_ssize_t index, PyObject **pair, PyObject **name, PyObject **value) {
    *pair = PySequence_Fast_GET_ITEM(headers, index);
    if (!PyTuple_CheckExact(*pair) || PyTuple_GET_SIZE(*pair) != 2) return false;
    *name = PyTuple_GET_ITEM(*pair, 0), *value = PyTuple_GET_ITEM(*pair, 1);
    return PyBytes_CheckExact(*name) && PyBytes_CheckExact(*value);
}

/* Whether headers are a list or tuple, which cannot change during a pass, because no other code runs. */
static bool is_sequence(PyObject *headers) { return PyList_CheckExact(headers) || PyTuple_CheckExact(headers); }

/* Make a list whose first items, `first` of them, are set later. */
static PyObject *list_with_room(Py_ssize_t first) {
    PyObject *list = PyList_New(first);
    for (Py_ssize_t i = 0; list && i < first; i++) PyList_SET_ITEM(list, i, Py_NewRef(Py_None));
    return list;
}

static int set_pair(PyObject *list, Py_ssize_t at, PyObject *name, PyObject *value) {
    PyObject *pair = name && value ? PyTuple_Pack(2, name, value) : NULL;
    return pair ? PyList_SetItem(list, at, pair) : -1;
}

/* Leave the work to Python: drop `list`, which may be NULL, and return None; or NULL if there is an exception. */
static PyObject *left(PyObject *list) {
    Py_XDECREF(list);
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_NONE;
}

/* Make a tuple of objects, which are taken over; NULL if one of them is NULL. */
static PyObject *tuple_of(Py_ssize_t size, ...) {
    PyObject *tuple = PyTuple_New(size);
    bool whole = tuple;
    va_list items;
    va_start(items, size);
    for (Py_ssize_t i = 0; i < size; i++) {
        PyObject *item = va_arg(items, PyObject *);
        whole = whole && item;
        if (tuple) PyTuple_SET_ITEM(tuple, i, item);
        else Py_XDECREF(item);
    }
    va_end(items);
    if (!whole) Py_CLEAR(tuple);
    return tuple;
}

static PyObject *length_or_none(PyObject *value) {
    return value ? PyLong_FromLongLong(strtoll(PyBytes_AS_STRING(value), NULL, 10)) : Py_NewRef(Py_None);
}

static PyObject *authority_name, *path_name, *method_name, *scheme_name, *status_name, *host_name;

int wire_names(void) {
    static const Name NAMES[] = {
        {&authority_name, ":authority"}, {&path_name, ":path"},     {&method_name, ":method"},
        {&scheme_name, ":scheme"},       {&status_name, ":status"}, {&host_name, "host"},
    };
    classify();
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (!*NAMES[i].at && !(*NAMES[i].at = PyBytes_FromString(NAMES[i].text))) return -1;
    return 0;
}

PyObject *wire_received_request(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 5) return PyErr_Format(PyExc_TypeError, "headers, method, target, scheme, server");
    PyObject *headers = args[0], *method = args[1], *target = args[2], *scheme = args[3], *authority = NULL;
    if (!is_sequence(headers)) Py_RETURN_NONE;
    for (int i = 1; i < 5; i++) /* the server may be NULL: without a host header, this is unusual */
        if (args[i] ? !PyBytes_CheckExact(args[i]) : i < 4) Py_RETURN_NONE;
    if (PyBytes_AS_STRING(target)[0] != '/' || memchr(PyBytes_AS_STRING(target), '#', (size_t)PyBytes_GET_SIZE(target)))
        Py_RETURN_NONE;
    PyObject *list = list_with_room(4), *length = NULL, *pair, *name, *value;
    bool chunked = false;
    for (Py_ssize_t i = 0; list && i < PySequence_Fast_GET_SIZE(headers); i++) {
        if (!plain_pair(headers, i, &pair, &name, &value) || !is_token(name) || !is_plain(value)) return left(list);
        if (is_peculiar(name)) {
            bool is_chunked = is(name, "transfer-encoding") && is(value, "chunked");
            if (!is_chunked && !(is(name, "connection") && is(value, "keep-alive"))) return left(list);
            chunked |= is_chunked;
            continue;
        }
        if (is(name, "te") && !is(value, "trailers")) return left(list);
        if (is(name, "host")) {
            if (authority || !is_authority(value)) return left(list);
            authority = value;
            continue;
        }
        if (is(name, "content-length")) {
            if (length || !is_length(value)) return left(list);
            length = value;
        }
        if (PyList_Append(list, pair)) return left(list);
    }
    if (!list || (chunked && length) || set_pair(list, 0, authority_name, authority ? authority : args[4]) ||
        set_pair(list, 1, path_name, target) || set_pair(list, 2, method_name, method) ||
        set_pair(list, 3, scheme_name, scheme))
        return left(list);
    return tuple_of(4, list, length_or_none(length), Py_NewRef(chunked ? Py_True : Py_False), Py_NewRef(Py_True));
}

/* A status as bytes. */
static PyObject *bytes_of(long status) {
    if (status < 100 || status > 999) return PyBytes_FromFormat("%ld", status);
    const char digits[] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
    return PyBytes_FromStringAndSize(digits, sizeof digits);
}

PyObject *wire_received_response(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "status, headers");
    PyObject *headers = args[1];
    if (!is_sequence(headers) || !PyLong_CheckExact(args[0])) Py_RETURN_NONE;
    long status = PyLong_AsLong(args[0]);
    if (status == -1 && PyErr_Occurred()) return NULL;
    PyObject *list = list_with_room(1), *length = NULL, *pair, *name, *value;
    for (Py_ssize_t i = 0; list && i < PySequence_Fast_GET_SIZE(headers); i++) {
        if (!plain_pair(headers, i, &pair, &name, &value) || !is_plain(value)) return left(list);
        for (Py_ssize_t k = 0; k < PyBytes_GET_SIZE(name); k++)
            if (Py_ISUPPER(PyBytes_AS_STRING(name)[k])) return left(list);
        if (is(name, "keep-alive") || is(name, "transfer-encoding")) return left(list);
        if (is(name, "content-length")) {
            if (length || !is_length(value)) return left(list);
            length = value;
        }
        if (PyList_Append(list, pair)) return left(list);
    }
    PyObject *text = list ? bytes_of(status) : NULL;
    int failed = !text || set_pair(list, 0, status_name, text);
    Py_XDECREF(text);
    return failed ? left(list) : tuple_of(2, list, length_or_none(length));
}

/* Append the headers from `start` on to `list`, which is taken over, and set `*at` to the index of content-length, or
 * -1. Returns NULL without an exception if any header is unusual. */
static PyObject *rest_of(PyObject *list, PyObject *headers, Py_ssize_t start, Py_ssize_t *at) {
    PyObject *pair, *name, *value;
    *at = -1;
    for (Py_ssize_t i = start; list && i < PyList_GET_SIZE(headers); i++) {
        bool plain =
            plain_pair(headers, i, &pair, &name, &value) && is_token(name) && is_plain(value) && !is_peculiar(name);
        if (plain && is(name, "content-length")) {
            plain = *at < 0 && is_length(value);
            *at = PyList_GET_SIZE(list);
        }
        if (!plain || PyList_Append(list, pair)) Py_CLEAR(list);
    }
    return list;
}

PyObject *wire_sent_request(PyObject *module, PyObject *headers) {
    if (!PyList_CheckExact(headers)) Py_RETURN_NONE;
    PyObject *method = NULL, *path = NULL, *scheme = NULL, *host = NULL, *pair, *name, *value;
    Py_ssize_t start = 0, at;
    for (; start < PyList_GET_SIZE(headers); start++) {
        if (!plain_pair(headers, start, &pair, &name, &value)) Py_RETURN_NONE;
        if (PyBytes_AS_STRING(name)[0] != ':') break;
        PyObject **place = is(name, ":method")      ? &method
                           : is(name, ":path")      ? &path
                           : is(name, ":scheme")    ? &scheme
                           : is(name, ":authority") ? &host
                                                    : NULL;
        if (!place || *place) Py_RETURN_NONE;
        *place = value;
    }
    if (!method || !path || !scheme || !host || !is_token(method) || !is_path(path) || !is_token(scheme) ||
        !is_plain(host))
        Py_RETURN_NONE;
    PyObject *list = rest_of(list_with_room(1), headers, start, &at);
    if (!list || set_pair(list, 0, host_name, host)) return left(list);
    return tuple_of(5, Py_NewRef(method), Py_NewRef(path), Py_NewRef(scheme), list, PyLong_FromSsize_t(at));
}

PyObject *wire_sent_response(PyObject *module, PyObject *headers) {
    PyObject *pair, *name, *value;
    Py_ssize_t at;
    if (!PyList_CheckExact(headers) || !PyList_GET_SIZE(headers) || !plain_pair(headers, 0, &pair, &name, &value) ||
        !is(name, ":status") || PyBytes_GET_SIZE(value) != 3)
        Py_RETURN_NONE;
    const char *text = PyBytes_AS_STRING(value);
    if (text[0] < '2' || text[0] > '5' || !Py_ISDIGIT(text[1]) || !Py_ISDIGIT(text[2])) Py_RETURN_NONE;
    PyObject *list = rest_of(PyList_New(0), headers, 1, &at);
    if (!list) return left(list);
    return tuple_of(3, PyLong_FromLong(atoi(text)), list, PyLong_FromSsize_t(at));
}
