/* The interface between the C forms of the classes in runtime/fast_path.py. */
#ifndef PROXYWASM_FAST_PATH_H
#define PROXYWASM_FAST_PATH_H

#include "native.h"

enum { REQUEST, RESPONSE };
enum { STOP_ALL = 4, BUFFER_LIMIT = 1024 * 1024 };
extern const size_t HEADERS_MAP[2];

/* Each class has a field for its dict, so that the dict is made only when an attribute is stored in it. */

typedef struct {
    PyObject_HEAD
    PyObject *host;
    VmBase *vm;
    Context *root;
    PyObject *dict;
    bool closed;
} PluginBase;

typedef struct {
    Context base;
    PyObject *stream, *plugin, *dict;
    VmBase *vm;
    uint32_t number, root_number; /* the ids of the context and its root */
    long long action[2];          /* for each direction, the result of the last callback, or -1 */
    bool created, deleted, pending_done;
} HttpContextBase;

enum { FEW_FILTERS = 16 };

typedef struct {
    PyObject_HEAD
    PyObject *stream, *filters, *headers, *stopped, *buffer, *holder, *trailers, *resume_asked, *dict;
    Py_ssize_t passed, calling, count, header_count, header_size;
    unsigned long long received;
    uint8_t *given_end, few[FEW_FILTERS]; /* one byte for each of `count` filters */
    int direction;
    bool started, headers_sent, streaming, ended, complete, aborted;
} FilterChainBase;

typedef struct {
    PyObject_HEAD
    PyObject *host, *properties, *buffer_limit, *header_limits, *contexts, *local, *details, *dict;
    Py_ssize_t max_headers, max_header_bytes; /* from `header_limits` */
    Outbox *outbox;
    FilterChainBase *request, *response;
    long long started_ns;
    bool closed;
} HttpStreamBase;

typedef struct {
    PyObject_HEAD
    PyObject *services, *clock, *stream_type, *dict;
    Outbox *outbox;
} HostBase;

typedef struct {
    PyObject_HEAD
    PyObject *driver, *stream, *to_upstream, *to_client, *wake, *log, *state, *dict;
    PyObject *client_method, *upstream_method, *request_length, *response_length, *waiting_request, *waiting_response;
    bool fix_content_length, http_1_0, feeding, request_ended, response_ended, client_clean;
} ExchangeBase;

/* -- host.c ----------------------------------------------------------------------------------------------- */

/* The VM of a plugin, borrowed; NULL with an exception, also if the plugin has no root. */
VmBase *plugin_vm(const PluginBase *self);

/* -- http_context.c -------------------------------------------------------------------------------------------- */

PyObject *context_make(PyObject *stream, PyObject *plugin);
/* Returns an action (0 to continue), or -1 with an exception. */
int64_t context_on_headers(HttpContextBase *self, int direction, PyObject *headers, bool end_stream);
/* Call the last callbacks of each HttpContext in a list. Returns 0, or -1 with an exception. */
int end_contexts(PyObject *contexts);
/* Whether bodies of this direction pass unchanged, because the guest has no callback for them. */
bool context_sees_no_body(const HttpContextBase *self, int direction);
/* Convert the result of a method to an action ≥ 0, or -1 with an exception. Takes over `result`. */
int64_t action_of(PyObject *result);

/* -- filter_chain.c ----------------------------------------------------------------------------------------------- */

FilterChainBase *chain_make(PyObject *stream, int direction, PyObject *filters);
/* Headers have arrived from outside. Returns 0, or -1 with an exception. */
int chain_feed_headers(FilterChainBase *self, PyObject *headers, bool end_stream, bool owned);
/* A part of the body has arrived, as bytes. Returns 0, or -1 with an exception. */
int chain_feed_data(FilterChainBase *self, PyObject *data, bool end_stream);

/* -- http_stream.c --------------------------------------------------------------------------------------------- */

PyObject *stream_make(HostBase *host, PyObject *wanted, PyObject *plugins, PyObject *properties, PyObject *buffer_limit,
                      PyObject *header_limits);
/* A header map for on_log, borrowed; None if it does not exist, NULL with an exception. */
PyObject *map_for_log(PyObject *stream, size_t map);

/* -- exchange.c ----------------------------------------------------------------------------------------------- */

extern PyTypeObject ExchangeBaseType;

/* ExchangeBase.begin with its six arguments, of which the server may be NULL. Returns 1; 0 if the request is unusual
 * and nothing was done; or -1 with an exception. */
int exchange_try_begin(ExchangeBase *self, PyObject *const *given);
/* Returns 1 or 0, or -1 with an exception. */
int exchange_is_over(const ExchangeBase *self);
/* The methods `response` and `response_body`. */
PyObject *exchange_response(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords);
PyObject *exchange_response_body(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords);

/* Fields of a RequestHead and a ResponseHead, by their order in heads.py. */
PyObject *request_head_field(PyObject *head, int which);
PyObject *response_head_field(PyObject *head, int which);

/* -- asgi.c --------------------------------------------------------------------------------------------------- */

/* Each handles the usual case, or returns None if Python must do the work. */
PyObject *asgi_begin(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *asgi_sent(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *asgi_scope(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* -- checked_headers.c -------------------------------------------------------------------------------------------- */

/* Copy a list of headers (or return the list itself, if it is `owned`), if they are plain pairs of bytes with different
 * names in lower case. Sets their count and size, as measure() in header_limits.py defines them. Returns NULL without
 * an exception if Python must check them. */
PyObject *checked_headers(PyObject *headers, bool owned, Py_ssize_t *count, Py_ssize_t *size);
/* Whether headers may be sent unchanged: HttpStream.for_wire would return them as they are. */
bool fit_for_wire(int direction, PyObject *headers);
/* Make a RequestHeaders or ResponseHeaders, or a RequestBody or ResponseBody. */
PyObject *headers_effect(int direction, PyObject *headers, bool end_stream, PyObject *stream);
PyObject *body_effect(int direction, PyObject *data, bool end_stream, PyObject *stream);
/* Fields of such an effect; `name` is the name of the first. If the effect does not have the field, NULL with an
 * exception. */
PyObject *effect_content(PyObject *effect, PyObject *name);
PyObject *effect_end_stream(PyObject *effect);
PyObject *effect_stream(PyObject *effect);

/* -- For all files ---------------------------------------------------------------------------------------------- */

#define DICT {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL}

/* Whether only `init` initialises objects of a class, so that C code can do the same without a call of the class. */
static inline bool is_made_here(const PyTypeObject *type, initproc init) {
    return type->tp_init == init && type->tp_new == PyType_GenericNew;
}

/* Drop the result of a call. Returns 0, or -1 with an exception. */
static inline int told(PyObject *done) {
    Py_XDECREF(done);
    return done ? 0 : -1;
}

#endif
