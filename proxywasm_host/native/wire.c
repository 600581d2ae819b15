/* Headers between HTTP libraries and filters, where there is nothing unusual about them: of
 * integrations/headers.py, which has the rules. Whatever else comes up is left to it, by None. */
#include "native.h"

/* What a name is of, and what no value may have (RFC 9110, 5.6.2 and 5.5). */
static bool is_token(const uint8_t *text, Py_ssize_t size) {
    static const char OTHERS[] = "!#$%&'*+.^_`|~-";
    for (Py_ssize_t i = 0; i < size; i++)
        if (!Py_ISALNUM(text[i]) && (!text[i] || !strchr(OTHERS, text[i]))) return false;
    return size > 0;
}

static bool is_clean(const uint8_t *text, Py_ssize_t size) {
    for (Py_ssize_t i = 0; i < size; i++)
        if ((text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7F) return false;
    return true;
}

static bool is_stripped(const uint8_t *text, Py_ssize_t size) {
    return !size || !(strchr(" \t\r\n", text[0]) || strchr(" \t\r\n", text[size - 1]));
}

/* Whether it is about one connection, or says what is. */
static bool is_peculiar(const char *name) {
    static const char *const PECULIAR[] = {
        "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "expect", "te",
    };
    for (size_t i = 0; i < sizeof PECULIAR / sizeof *PECULIAR; i++)
        if (!strcmp(name, PECULIAR[i])) return true;
    return false;
}

#define TEXT_OF(bytes) ((const uint8_t *)PyBytes_AS_STRING(bytes)), PyBytes_GET_SIZE(bytes)

PyObject *wire_sent(PyObject *module, PyObject *headers) {
    if (!PyList_CheckExact(headers)) Py_RETURN_NONE;
    PyObject *list = PyList_New(0), *name, *value;
    for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(headers); i++) {
        bool plain = pair_of(headers, i, &name, &value);
        if (plain && PyBytes_AS_STRING(name)[0] == ':') continue;
        plain = plain && is_token(TEXT_OF(name)) && !is_peculiar(PyBytes_AS_STRING(name)) && is_clean(TEXT_OF(value)) &&
                is_stripped(TEXT_OF(value));
        if (!plain) {
            Py_DECREF(list);
            Py_RETURN_NONE;
        }
        if (PyList_Append(list, PyList_GET_ITEM(headers, i))) Py_CLEAR(list);
    }
    return list;
}

PyObject *wire_received(PyObject *module, PyObject *headers) {
    if (!PyList_CheckExact(headers)) Py_RETURN_NONE;
    PyObject *list = PyList_New(0), *host = NULL, *name, *value;
    for (Py_ssize_t i = 0; list && i < PyList_GET_SIZE(headers); i++) {
        bool plain = pair_of(headers, i, &name, &value) && is_stripped(TEXT_OF(value)) &&
                     (Py_ssize_t)strlen(PyBytes_AS_STRING(name)) == PyBytes_GET_SIZE(name) &&
                     !is_peculiar(PyBytes_AS_STRING(name));
        bool is_host = plain && !strcmp(PyBytes_AS_STRING(name), "host");
        if (!plain || (is_host && host)) {
            Py_DECREF(list);
            Py_XDECREF(host);
            Py_RETURN_NONE;
        }
        if (is_host) host = Py_NewRef(value);
        else if (PyList_Append(list, PyList_GET_ITEM(headers, i))) Py_CLEAR(list);
    }
    PyObject *both = list ? PyTuple_Pack(2, list, host ? host : Py_None) : NULL;
    Py_XDECREF(list);
    Py_XDECREF(host);
    return both;
}
