/* What the files plain_*.c share: the twins of the classes of runtime/plain.py. */
#ifndef PROXYWASM_PLAIN_H
#define PROXYWASM_PLAIN_H

#include "native.h"

enum { REQUEST, RESPONSE };
enum { STOP_ALL = 4 }; /* as in plain.py: HeadersAction.STOP_ALL_ITERATION_AND_WATERMARK */
extern const Py_ssize_t HEADERS_MAP[2];

typedef struct {
    Context base;
    PyObject *stream, *plugin, *vm;
    bool created, deleted, pending_done;
} PlainContext;

typedef struct {
    PyObject_HEAD
    PyObject *stream, *filters, *headers, *stopped, *buffer, *holder, *trailers, *given_end;
    Py_ssize_t passed, calling;
    unsigned long long received;
    int direction;
    bool started, headers_sent, streaming, ended, complete, aborted;
} PlainPath;

typedef struct {
    PyObject_HEAD
    PyObject *host, *outbox, *properties, *buffer_limit, *started_ns, *contexts, *request, *response;
} PlainStream;

/* Each gives 0 or an action, or -1 with an exception. */
int64_t context_on_headers(PlainContext *self, int direction, PyObject *headers, bool end_stream);
PyObject *maps_for_log(PyObject *stream);
/* What a method that takes and gives numbers answers, or -1 with an exception; takes `result` over. */
int64_t answer(PyObject *result);
/* A method that a subclass must have. */
PyObject *to_override(PyObject *self, PyObject *args);

/* A list of our own of headers that are plain pairs of bytes and, if `unique`, of different names. NULL without an
 * exception: they have to be looked at more closely. */
PyObject *plain_headers(PyObject *headers, bool unique);
/* Whether headers may go out as they are: what HttpStream.for_wire gives back as it was. */
bool fit_for_wire(int direction, PyObject *headers);

/* Call a method for its effect: 0, or -1 with an exception. */
static inline int told(PyObject *done) {
    Py_XDECREF(done);
    return done ? 0 : -1;
}

#endif
