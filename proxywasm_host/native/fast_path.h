/* What the C forms of the fast path share: the C form of the classes of runtime/fast_path.py. */
#ifndef PROXYWASM_FAST_PATH_H
#define PROXYWASM_FAST_PATH_H

#include "native.h"

enum { REQUEST, RESPONSE };
enum { STOP_ALL = 4, BUFFER_LIMIT = 1024 * 1024 };
extern const size_t HEADERS_MAP[2];

/* Each has its dict here so that one is only made when something is put into it. */

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
    uint32_t number, root_number; /* the ids */
    long long action[2];          /* by direction: what the last callback returned, or -1 */
    bool created, deleted, pending_done;
} HttpContextBase;

enum { FEW_FILTERS = 16 };

typedef struct {
    PyObject_HEAD
    PyObject *stream, *filters, *headers, *stopped, *buffer, *holder, *trailers, *resume_asked, *dict;
    Py_ssize_t passed, calling, count, header_count, header_size;
    unsigned long long received;
    uint8_t *given_end, few[FEW_FILTERS]; /* a byte for each of `count` filters */
    int direction;
    bool started, headers_sent, streaming, ended, complete, aborted;
} FilterChainBase;

typedef struct {
    PyObject_HEAD
    PyObject *host, *properties, *buffer_limit, *header_limits, *contexts, *local, *details, *dict;
    Py_ssize_t max_headers, max_header_bytes; /* what `header_limits` says */
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

/* The VM of a plugin that has a root too, borrowed; NULL with an exception. */
VmBase *plugin_vm(const PluginBase *self);

/* -- http_context.c -------------------------------------------------------------------------------------------- */

PyObject *context_make(PyObject *stream, PyObject *plugin);
/* 0 or an action, or -1 with an exception. */
int64_t context_on_headers(HttpContextBase *self, int direction, PyObject *headers, bool end_stream);
/* Give each HttpContext of a list its last callbacks: 0, or -1 with an exception. */
int end_contexts(PyObject *contexts);
/* Whether it lets bodies of this direction pass unseen, as they are. */
bool context_sees_no_body(const HttpContextBase *self, int direction);
/* The action that a method gave, from 0 on, or -1 with an exception; takes `result` over. */
int64_t action_of(PyObject *result);

/* -- filter_chain.c ----------------------------------------------------------------------------------------------- */

FilterChainBase *chain_make(PyObject *stream, int direction, PyObject *filters);
/* Headers have come in from outside: 0, or -1 with an exception. */
int chain_feed_headers(FilterChainBase *self, PyObject *headers, bool end_stream, bool owned);
/* So has a part of the body, which is bytes: 0, or -1 with an exception. */
int chain_feed_data(FilterChainBase *self, PyObject *data, bool end_stream);

/* -- http_stream.c --------------------------------------------------------------------------------------------- */

PyObject *stream_make(HostBase *host, PyObject *wanted, PyObject *plugins, PyObject *properties, PyObject *buffer_limit,
                      PyObject *header_limits);
/* A header map as on_log sees it, borrowed; None if it is not there, NULL with an exception. */
PyObject *map_for_log(PyObject *stream, size_t map);

/* -- exchange.c ----------------------------------------------------------------------------------------------- */

extern PyTypeObject ExchangeBaseType;

/* ExchangeBase.begin with its six arguments, of which the server may be NULL: 1, or 0 if the request is unusual and
 * nothing was done, or -1 with an exception. */
int exchange_begin_plain(ExchangeBase *self, PyObject *const *given);
/* 1 or 0, or -1 with an exception. */
int exchange_is_over(const ExchangeBase *self);
/* Methods of those names. */
PyObject *exchange_response(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords);
PyObject *exchange_response_body(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords);

/* Fields of a RequestHead and a ResponseHead, in the order that they have in heads.py. */
PyObject *request_head_field(PyObject *head, int which);
PyObject *response_head_field(PyObject *head, int which);

/* -- asgi.c --------------------------------------------------------------------------------------------------- */

/* Each does what is usual, or gives None if Python has to. */
PyObject *asgi_begin(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *asgi_sent(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *asgi_scope(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* -- checked_headers.c -------------------------------------------------------------------------------------------- */

/* A list of our own of headers (that list itself, if it is `owned`) that are plain pairs of bytes, whose names are in
 * lower case and differ; and their count and size, as measure() in header_limits.py says. NULL without an exception: they have to be looked at more closely. */
PyObject *checked_headers(PyObject *headers, bool owned, Py_ssize_t *count, Py_ssize_t *size);
/* Whether headers may go out as they are: what HttpStream.for_wire gives back as it was. */
bool fit_for_wire(int direction, PyObject *headers);
/* A RequestHeaders or ResponseHeaders, a RequestBody or ResponseBody. */
PyObject *headers_effect(int direction, PyObject *headers, bool end_stream, PyObject *stream);
PyObject *body_effect(int direction, PyObject *data, bool end_stream, PyObject *stream);
/* Fields of an effect: `name` is that of the first of these; of other effects, NULL with an exception where one is
 * missing. */
PyObject *effect_content(PyObject *effect, PyObject *name);
PyObject *effect_end_stream(PyObject *effect);
PyObject *effect_stream(PyObject *effect);

/* -- All of them ------------------------------------------------------------------------------------------------ */

#define DICT {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL}

/* Whether objects of a class are made as `init` says and by nothing else, so that its steps can be taken here. */
static inline bool is_made_here(const PyTypeObject *type, initproc init) {
    return type->tp_init == init && type->tp_new == PyType_GenericNew;
}

/* Call a method for its effect: 0, or -1 with an exception. */
static inline int told(PyObject *done) {
    Py_XDECREF(done);
    return done ? 0 : -1;
}

#endif
