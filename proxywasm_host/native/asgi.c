/* Converts between an exchange and messages of ASGI in the usual cases, as integrations/asgi/messages.py does, which gets
 * all other cases: then the result is None. */
#include "fast_path.h"

static PyObject *type_name, *body_name, *more_body_name, *status_name, *headers_name, *method_name, *scheme_name,
    *http_version_name, *raw_path_name, *query_string_name, *target_name, *extensions_name, *trailers_name, *data_name,
    *popleft_name, *start_type, *body_type;

int asgi_names(void) {
    static const Name NAMES[] = {
        {&type_name, "type"},
        {&body_name, "body"},
        {&more_body_name, "more_body"},
        {&status_name, "status"},
        {&headers_name, "headers"},
        {&method_name, "method"},
        {&scheme_name, "scheme"},
        {&http_version_name, "http_version"},
        {&raw_path_name, "raw_path"},
        {&query_string_name, "query_string"},
        {&target_name, "proxywasm.target"},
        {&extensions_name, "extensions"},
        {&trailers_name, "trailers"},
        {&data_name, "data"},
        {&popleft_name, "popleft"},
        {&start_type, "http.response.start"},
        {&body_type, "http.response.body"},
    };
    return INTERN(NAMES);
}

/* -- The scope -------------------------------------------------------------------------------------------------- */

/* An item of a dict, borrowed. NULL, perhaps with an exception, if it is missing. */
static PyObject *item(PyObject *dict, PyObject *key) { return PyDict_GetItemWithError(dict, key); }

static bool is_text(PyObject *object, const char *text) {
    return object && PyUnicode_CheckExact(object) && !PyUnicode_CompareWithASCIIString(object, text);
}

/* Text as bytes; NULL without an exception if it is not ASCII. */
static PyObject *ascii(PyObject *text) {
    if (!text || !PyUnicode_CheckExact(text) || !PyUnicode_IS_ASCII(text)) return NULL;
    return PyBytes_FromStringAndSize(PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text));
}

static bool is_same(PyObject *text, PyObject *bytes) {
    return text && PyUnicode_CheckExact(text) && PyUnicode_IS_ASCII(text) &&
           PyUnicode_GET_LENGTH(text) == PyBytes_GET_SIZE(bytes) &&
           !memcmp(PyUnicode_DATA(text), PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

/* Path and query as the client sent them. NULL, perhaps with an exception, if the Python form has to find them. */
static PyObject *target_of(PyObject *scope) {
    PyObject *path = item(scope, raw_path_name), *query = item(scope, query_string_name);
    if (PyErr_Occurred() || item(scope, target_name) || !path || !PyBytes_CheckExact(path) || !PyBytes_GET_SIZE(path))
        return NULL;
    if (!query) return Py_NewRef(path);
    if (!PyBytes_CheckExact(query)) return NULL;
    Py_ssize_t size = PyBytes_GET_SIZE(path), more = PyBytes_GET_SIZE(query);
    if (!more || memchr(PyBytes_AS_STRING(path), '?', (size_t)size)) return Py_NewRef(path);
    PyObject *whole = PyBytes_FromStringAndSize(NULL, size + 1 + more);
    if (!whole) return NULL;
    char *at = PyBytes_AS_STRING(whole);
    memcpy(at, PyBytes_AS_STRING(path), (size_t)size);
    at[size] = '?';
    memcpy(at + size + 1, PyBytes_AS_STRING(query), (size_t)more);
    return whole;
}

PyObject *asgi_begin(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyObject_TypeCheck(args[0], &ExchangeBaseType))
        return PyErr_Format(PyExc_TypeError, "an exchange and a scope are needed");
    PyObject *scope = args[1];
    if (!PyDict_CheckExact(scope)) Py_RETURN_NONE;
    PyObject *version = item(scope, http_version_name);
    if (!is_text(version, "1.1") && !is_text(version, "1.0")) return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *target = target_of(scope), *method = target ? ascii(item(scope, method_name)) : NULL,
             *scheme = method ? ascii(item(scope, scheme_name)) : NULL,
             *headers = scheme ? item(scope, headers_name) : NULL;
    PyObject *const given[] = {method, target, scheme, headers, Py_None, NULL};
    Py_XINCREF(headers);
    int begun = headers ? exchange_try_begin((ExchangeBase *)args[0], given) : PyErr_Occurred() ? -1 : 0;
    PyObject *result = begun < 0 ? NULL : Py_NewRef(begun ? target : Py_None);
    Py_XDECREF(headers);
    Py_XDECREF(scheme);
    Py_XDECREF(method);
    Py_XDECREF(target);
    return result;
}

/* -- What the application sends ----------------------------------------------------------------------------------- */

/* Feed a message: 1; 0 if it is unusual; -1 with an exception. */
static int feed(ExchangeBase *exchange, PyObject *message) {
    PyObject *type = item(message, type_name);
    bool is_body = is_text(type, "http.response.body");
    if (PyErr_Occurred()) return -1;
    if (!is_body && !is_text(type, "http.response.start")) return 0;
    PyObject *done;
    if (is_body) {
        PyObject *body = item(message, body_name), *more = PyErr_Occurred() ? NULL : item(message, more_body_name);
        if (PyErr_Occurred()) return -1;
        if (!body || !PyBytes_CheckExact(body) || (more && !PyBool_Check(more))) return 0;
        int over = exchange_is_over(exchange);
        if (over) return over < 0 ? -1 : 0;
        PyObject *const given[] = {body, more == Py_True ? Py_False : Py_True};
        Py_INCREF(body);
        done = exchange_response_body(exchange, given, 2, NULL);
        Py_DECREF(body);
    } else {
        PyObject *trailers = item(message, trailers_name),
                 *status = PyErr_Occurred() ? NULL : item(message, status_name),
                 *headers = status ? item(message, headers_name) : NULL;
        if (PyErr_Occurred()) return -1;
        if (!headers || (trailers && trailers != Py_False)) return 0;
        PyObject *const given[] = {Py_NewRef(status), Py_NewRef(headers)};
        done = exchange_response(exchange, given, 2, NULL);
        Py_DECREF(status);
        Py_DECREF(headers);
    }
    Py_XDECREF(done);
    return done ? 1 : -1;
}

/* The message that a part for the client becomes, or None if there is not exactly one. */
static PyObject *message_of(PyObject *part) {
    PyObject *end_stream = NULL, *first = NULL, *second = NULL, *message = NULL;
    bool is_body = (PyObject *)Py_TYPE(part) == known.body_out[RESPONSE];
    if (is_body) {
        end_stream = effect_end_stream(part);
        first = end_stream ? effect_content(part, data_name) : NULL;
        second = Py_NewRef(end_stream == Py_True ? Py_False : Py_True);
    } else if ((PyObject *)Py_TYPE(part) == known.response_head) {
        end_stream = response_head_field(part, 2);
        first = end_stream && end_stream != Py_True ? response_head_field(part, 0) : NULL;
        second = first ? response_head_field(part, 1) : NULL;
    }
    if (first && second) {
        message = PyDict_New();
        if (message && (PyDict_SetItem(message, type_name, is_body ? body_type : start_type) ||
                        PyDict_SetItem(message, is_body ? body_name : status_name, first) ||
                        PyDict_SetItem(message, is_body ? more_body_name : headers_name, second)))
            Py_CLEAR(message);
    } else if (!PyErr_Occurred()) {
        message = Py_NewRef(Py_None); /* two messages, or none */
    }
    Py_XDECREF(end_stream);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return message;
}

/* Whether a filter may hold a part of the response. */
static bool holds_response(const ExchangeBase *exchange) {
    if (!is_a(exchange->stream, known.http_stream, &HttpStreamBaseType)) return true;
    const FilterChainBase *chain = ((HttpStreamBase *)exchange->stream)->response;
    return !chain || (chain->buffer && chain->buffer != Py_None);
}

PyObject *asgi_sent(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 2 || !PyObject_TypeCheck(args[0], &ExchangeBaseType))
        return PyErr_Format(PyExc_TypeError, "an exchange and a message are needed");
    ExchangeBase *exchange = (ExchangeBase *)args[0];
    int fed = PyDict_CheckExact(args[1]) && exchange->to_client ? feed(exchange, args[1]) : 0;
    if (fed <= 0) return fed ? NULL : Py_NewRef(Py_None);
    PyObject *queue = Py_NewRef(exchange->to_client), *message = NULL;
    Py_ssize_t parts = holds_response(exchange) ? 0 : PyObject_Size(queue);
    PyObject *part = parts == 1 ? PySequence_GetItem(queue, 0) : NULL;
    if (part) message = message_of(part);
    else if (parts >= 0 && !PyErr_Occurred()) message = Py_NewRef(Py_None);
    if (message == Py_None) {
        Py_SETREF(message, Py_NewRef(Py_True));
    } else if (message) {
        PyObject *taken = PyObject_CallMethodNoArgs(queue, popleft_name);
        if (!taken) Py_CLEAR(message);
        Py_XDECREF(taken);
    }
    Py_XDECREF(part);
    Py_DECREF(queue);
    return message;
}

/* -- The application's scope -------------------------------------------------------------------------------------- */

/* Set an item of a scope to this text, which is ASCII: 0, or -1 with an exception. */
static int set_text(PyObject *scope, PyObject *key, PyObject *bytes) {
    if (is_same(item(scope, key), bytes)) return 0;
    PyObject *text = PyUnicode_DecodeASCII(PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes), NULL);
    int failed = text ? PyDict_SetItem(scope, key, text) : -1;
    Py_XDECREF(text);
    return failed;
}

enum { METHOD, PATH, SCHEME, HEADERS, END_STREAM, AT, FIELDS };

PyObject *asgi_scope(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    if (count != 3) return PyErr_Format(PyExc_TypeError, "a scope, its target and a head are needed");
    PyObject *scope = args[0], *target = args[1], *field[FIELDS] = {NULL}, *made = NULL;
    if (!PyDict_CheckExact(scope) || !PyBytes_CheckExact(target) || (PyObject *)Py_TYPE(args[2]) != known.request_head)
        Py_RETURN_NONE;
    PyObject *extensions = item(scope, extensions_name);
    if (PyErr_Occurred()) return NULL;
    if (extensions && extensions != Py_None && !(PyDict_CheckExact(extensions) && !PyDict_GET_SIZE(extensions)))
        Py_RETURN_NONE;
    bool whole = true;
    for (int i = 0; whole && i < FIELDS; i++) whole = (field[i] = request_head_field(args[2], i));
    bool usual = whole && PyBytes_CheckExact(field[METHOD]) && PyBytes_CheckExact(field[SCHEME]) &&
                 PyBytes_CheckExact(field[PATH]) && same_bytes(field[PATH], target) &&
                 (field[END_STREAM] == Py_True || PyLong_AsLong(field[AT]) >= 0);
    if (usual) {
        made = PyDict_Copy(scope);
        if (made && (set_text(made, method_name, field[METHOD]) || set_text(made, scheme_name, field[SCHEME]) ||
                     PyDict_SetItem(made, headers_name, field[HEADERS])))
            Py_CLEAR(made);
    } else if (whole && !PyErr_Occurred()) {
        made = Py_NewRef(Py_None);
    }
    for (int i = 0; i < FIELDS; i++) Py_XDECREF(field[i]);
    return made;
}
