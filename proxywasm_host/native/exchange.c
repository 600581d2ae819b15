/* The common path of an exchange: the C form of ExchangeBase in integrations/exchange_base.py. Unusual cases are left to
 * the methods of `Exchange`, which have the rules. */
#include "fast_path.h"

typedef enum { WAITING, BEGUN, ANSWERED, CUT, GONE } State; /* as in exchange_base.py; their places in known.states */

const Proxywasm_constant EXCHANGE_CONSTANTS[] = {
    PROXYWASM_CONSTANT(WAITING), PROXYWASM_CONSTANT(BEGUN), PROXYWASM_CONSTANT(ANSWERED),
    PROXYWASM_CONSTANT(CUT),     PROXYWASM_CONSTANT(GONE),  {NULL, 0},
};

static PyObject *deque, *empty, *owned_keyword, *attach_name, *take_name, *detach_name, *close_name, *perform_name,
    *reset_details_name, *no_details, *client_gone, *append_name, *stream_name, *local_name, *headers_name,
    *end_stream_name, *begin_closely_name, *response_closely_name, *take_in_name, *leave_name, *changes_bodies_name,
    *method_name, *path_name, *scheme_name, *at_name, *status_name, *feed_headers_names[2], *feed_body_names[2];

int exchange_names(void) {
    static const Name NAMES[] = {
        {&attach_name, "attach"},
        {&take_name, "_take"},
        {&detach_name, "detach"},
        {&close_name, "close"},
        {&perform_name, "perform"},
        {&reset_details_name, "reset_details"},
        {&no_details, ""},
        {&client_gone, "downstream_remote_disconnect"},
        {&append_name, "append"},
        {&stream_name, "stream"},
        {&local_name, "local"},
        {&headers_name, "headers"},
        {&end_stream_name, "end_stream"},
        {&begin_closely_name, "_begin_closely"},
        {&response_closely_name, "_response_closely"},
        {&take_in_name, "_take_in"},
        {&leave_name, "_leave_to_driver"},
        {&changes_bodies_name, "changes_bodies"},
        {&method_name, "method"},
        {&path_name, "path"},
        {&scheme_name, "scheme"},
        {&at_name, "at"},
        {&status_name, "status"},
        {&feed_headers_names[REQUEST], "request_headers"},
        {&feed_headers_names[RESPONSE], "response_headers"},
        {&feed_body_names[REQUEST], "request_body"},
        {&feed_body_names[RESPONSE], "response_body"},
    };
    PyObject *collections = PyImport_ImportModule("collections");
    deque = collections ? PyObject_GetAttrString(collections, "deque") : NULL;
    Py_XDECREF(collections);
    empty = PyBytes_FromStringAndSize(NULL, 0), owned_keyword = Py_BuildValue("(s)", "owned");
    return deque && empty && owned_keyword ? INTERN(NAMES) : -1;
}

/* -- State ------------------------------------------------------------------------------------------------------ */

static PyObject *state_of(State which) { return PyTuple_GET_ITEM(known.states, which); }

static bool is_in(const ExchangeBase *self, State which) { return self->state == state_of(which); }

static void enter(ExchangeBase *self, State which) { Py_XSETREF(self->state, Py_NewRef(state_of(which))); }

/* Whether the exchange has all that an event needs; false with an exception. */
static bool is_made(const ExchangeBase *self) {
    if (self->driver && self->stream && self->to_upstream && self->to_client && self->state) return true;
    return PyErr_Format(PyExc_RuntimeError, "the exchange was never made, or is gone");
}

int exchange_is_over(const ExchangeBase *self) {
    if (!is_in(self, WAITING) && !is_in(self, BEGUN)) return 1;
    if (is_a(self->stream, known.http_stream, &HttpStreamBaseType)) {
        PyObject *local = ((HttpStreamBase *)self->stream)->local;
        return local && local != Py_None;
    }
    PyObject *local = PyObject_GetAttr(self->stream, local_name);
    int over = local ? local != Py_None : -1;
    Py_XDECREF(local);
    return over;
}

static PyObject *get_over(ExchangeBase *self, void *closure) {
    int over = is_made(self) ? exchange_is_over(self) : -1;
    return over < 0 ? NULL : PyBool_FromLong(over);
}

static PyObject *get_finished(ExchangeBase *self, void *closure) {
    if (!is_made(self)) return NULL;
    if (is_in(self, GONE)) Py_RETURN_TRUE;
    if (!is_in(self, ANSWERED) && !is_in(self, CUT)) Py_RETURN_FALSE;
    Py_ssize_t waiting = PyObject_Size(self->to_client);
    return waiting < 0 ? NULL : PyBool_FromLong(!waiting);
}

static int exchange_init(ExchangeBase *self, PyObject *args, PyObject *keywords) {
    static const Signature SIGNATURE = {
        "Exchange", 2, 2, {"driver", "stream", "fix_content_length", "http_1_0", "wake", "log"}};
    PyObject *given[] = {NULL, NULL, Py_True, Py_False, Py_None, known.exchange_log};
    if (!take_for_init(&SIGNATURE, args, keywords, given)) return -1;
    int fix_content_length = PyObject_IsTrue(given[2]), http_1_0 = PyObject_IsTrue(given[3]);
    if (fix_content_length < 0 || http_1_0 < 0) return -1;
    PyObject *driver = given[0], *stream = given[1], *wake = given[4], *log = given[5];
    if (!known.states || !log) return PyErr_SetString(PyExc_RuntimeError, "exchange_base was not imported"), -1;
    self->fix_content_length = fix_content_length, self->http_1_0 = http_1_0, self->client_clean = true;
    Py_XSETREF(self->driver, Py_NewRef(driver));
    Py_XSETREF(self->stream, Py_NewRef(stream));
    Py_XSETREF(self->wake, Py_NewRef(wake));
    Py_XSETREF(self->log, Py_NewRef(log));
    Py_XSETREF(self->client_method, Py_NewRef(empty));
    Py_XSETREF(self->upstream_method, Py_NewRef(empty));
    enter(self, WAITING);
    Py_XSETREF(self->to_upstream, PyObject_CallNoArgs(deque));
    Py_XSETREF(self->to_client, PyObject_CallNoArgs(deque));
    return self->to_upstream && self->to_client ? 0 : -1;
}

/* -- Out of the stream ------------------------------------------------------------------------------------------ */

/* Each takes an effect: 1; 0 if it is unusual; -1 with an exception. */

static int put(PyObject *queue, PyObject *part) {
    Py_INCREF(queue);
    int failed = part ? told(PyObject_CallMethodOneArg(queue, append_name, part)) : -1;
    Py_DECREF(queue);
    return failed ? -1 : 1;
}

static int is_true(PyObject *object, PyObject *name) {
    PyObject *value = PyObject_GetAttr(object, name);
    int is = value ? PyObject_IsTrue(value) : -1;
    Py_XDECREF(value);
    return is;
}

static bool is_head(PyObject *method) {
    return method && PyBytes_CheckExact(method) && PyBytes_GET_SIZE(method) == 4 &&
           !memcmp(PyBytes_AS_STRING(method), "HEAD", 4);
}

/* Whether the length at this index of the headers is the sender's, and no filter changes the body. */
static int is_true_length(const ExchangeBase *self, PyObject *headers, PyObject *place, PyObject *came) {
    Py_ssize_t at = PyLong_AsSsize_t(place);
    if (at < 0) return PyErr_Occurred() ? -1 : 1; /* no length */
    if (!self->fix_content_length) return 1;
    if (!came || !PyLong_CheckExact(came)) return 0;
    PyObject *told = PyTuple_GET_ITEM(PyList_GET_ITEM(headers, at), 1); /* digits, as wire.c has checked */
    if (strtoll(PyBytes_AS_STRING(told), NULL, 10) != PyLong_AsLongLong(came)) return PyErr_Occurred() ? -1 : 0;
    int changes = is_true(self->stream, changes_bodies_name);
    return changes < 0 ? -1 : !changes;
}

static Layout request_layout, response_layout;

static int request_headers(ExchangeBase *self, PyObject *headers, PyObject *end_stream) {
    PyObject *const names[] = {method_name, path_name, scheme_name, headers_name, end_stream_name, at_name};
    PyObject *plain = wire_sent_request(NULL, headers);
    if (!plain || plain == Py_None) return Py_XDECREF(plain), plain ? 0 : -1;
    PyObject *list = PyTuple_GET_ITEM(plain, 3), *at = PyTuple_GET_ITEM(plain, 4);
    int usual =
        end_stream == Py_True && PyLong_AsLong(at) >= 0 ? 0 : is_true_length(self, list, at, self->request_length);
    if (usual > 0) {
        PyObject *method = PyTuple_GET_ITEM(plain, 0);
        PyObject *const values[] = {method, PyTuple_GET_ITEM(plain, 1), PyTuple_GET_ITEM(plain, 2), list, end_stream,
                                    at};
        Py_XSETREF(self->upstream_method, Py_NewRef(method));
        PyObject *head = make_record(&request_layout, known.request_head, names, values, 6);
        usual = put(self->to_upstream, head);
        Py_XDECREF(head);
    }
    Py_DECREF(plain);
    return usual;
}

static int response_headers(ExchangeBase *self, PyObject *headers, PyObject *end_stream) {
    PyObject *const names[] = {status_name, headers_name, end_stream_name, at_name};
    if (!is_in(self, WAITING) || is_head(self->client_method)) return 0;
    PyObject *plain = wire_sent_response(NULL, headers);
    if (!plain || plain == Py_None) return Py_XDECREF(plain), plain ? 0 : -1;
    PyObject *status = PyTuple_GET_ITEM(plain, 0), *list = PyTuple_GET_ITEM(plain, 1), *at = PyTuple_GET_ITEM(plain, 2);
    long number = PyLong_AsLong(status);
    bool bodiless = number == 204 || number == 304 || (end_stream == Py_True && PyLong_AsLong(at) >= 0);
    int usual = bodiless ? 0 : is_true_length(self, list, at, self->response_length);
    if (usual > 0) {
        PyObject *const values[] = {status, list, end_stream, at};
        PyObject *head = make_record(&response_layout, known.response_head, names, values, 4);
        enter(self, end_stream == Py_True ? ANSWERED : BEGUN);
        usual = put(self->to_client, head);
        Py_XDECREF(head);
    }
    Py_DECREF(plain);
    return usual;
}

PyObject *request_head_field(PyObject *head, int which) {
    PyObject *const names[] = {method_name, path_name, scheme_name, headers_name, end_stream_name, at_name};
    return record_field(&request_layout, head, which, names[which]);
}

PyObject *response_head_field(PyObject *head, int which) {
    PyObject *const names[] = {status_name, headers_name, end_stream_name, at_name};
    return record_field(&response_layout, head, which, names[which]);
}

static int headers_out(ExchangeBase *self, int direction, PyObject *effect) {
    PyObject *headers = effect_content(effect, headers_name), *end_stream = effect_end_stream(effect);
    int usual = headers && end_stream ? 0 : -1;
    if (!usual && PyBool_Check(end_stream))
        usual = (direction == REQUEST ? request_headers : response_headers)(self, headers, end_stream);
    Py_XDECREF(headers);
    Py_XDECREF(end_stream);
    return usual;
}

static int body_out(ExchangeBase *self, int direction, PyObject *effect) {
    PyObject *waits = direction == REQUEST ? self->waiting_request : self->waiting_response;
    if (waits && waits != Py_None) return 0;
    if (direction == REQUEST) return put(self->to_upstream, effect);
    if (!is_in(self, BEGUN)) return 0;
    PyObject *end_stream = effect_end_stream(effect);
    int ends = end_stream ? PyObject_IsTrue(end_stream) : -1;
    Py_XDECREF(end_stream);
    if (ends > 0) enter(self, ANSWERED);
    return ends < 0 ? -1 : put(self->to_client, effect);
}

static int take_in(ExchangeBase *self, PyObject *effect) {
    PyObject *class = (PyObject *)Py_TYPE(effect);
    for (int direction = REQUEST; direction <= RESPONSE; direction++) {
        int taken = class == known.headers_out[direction] ? headers_out(self, direction, effect)
                    : class == known.body_out[direction]  ? body_out(self, direction, effect)
                                                          : 0;
        if (taken) return taken < 0 ? -1 : 0;
    }
    return told(PyObject_CallMethodOneArg((PyObject *)self, take_in_name, effect));
}

/* Whether an effect is one of the stream's: 1 or 0, or -1 with an exception. */
static int is_ours(const ExchangeBase *self, PyObject *effect) {
    PyObject *of = effect_stream(effect);
    if (!of && !PyErr_ExceptionMatches(PyExc_AttributeError)) return -1;
    if (!of) PyErr_Clear();
    Py_XDECREF(of);
    return of && of == self->stream;
}

static int feed(ExchangeBase *self, PyObject *todo) {
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(todo); at++) {
        PyObject *effect = Py_NewRef(PyList_GET_ITEM(todo, at));
        int ours = is_made(self) ? is_ours(self, effect) : -1, failed = ours < 0 || (ours && take_in(self, effect));
        Py_DECREF(effect);
        if (failed) return -1;
        if (ours) continue;
        PyObject *rest = PyList_GetSlice(todo, at, PyList_GET_SIZE(todo));
        failed = rest ? told(PyObject_CallMethodOneArg((PyObject *)self, leave_name, rest)) : -1;
        Py_XDECREF(rest);
        return failed;
    }
    return 0;
}

/* Takes ownership of `todo`, the stream's effects: 0, or -1 with an exception. */
static int fed(ExchangeBase *self, PyObject *todo) {
    int failed = -1;
    if (todo && !PyList_CheckExact(todo)) PyErr_Format(PyExc_TypeError, "effects are a list, not %R", todo);
    else if (todo) failed = feed(self, todo);
    Py_XDECREF(todo);
    return failed;
}

static PyObject *none_unless(int failed) { return failed ? NULL : Py_NewRef(Py_None); }

static PyObject *exchange_feed(ExchangeBase *self, PyObject *todo) { return none_unless(fed(self, Py_NewRef(todo))); }

/* -- What came -------------------------------------------------------------------------------------------------- */

static int feed_headers(ExchangeBase *self, int direction, PyObject *headers, bool end_stream) {
    PyObject *stream = Py_NewRef(self->stream), *args[] = {stream, headers, end_stream ? Py_True : Py_False, Py_True};
    PyObject *todo = PyObject_VectorcallMethod(feed_headers_names[direction], args, 3, owned_keyword);
    Py_DECREF(stream);
    return fed(self, todo);
}

static int feed_body(ExchangeBase *self, int direction, PyObject *data, PyObject *end_stream) {
    PyObject *stream = Py_NewRef(self->stream), *args[] = {stream, data, end_stream};
    PyObject *todo = PyObject_VectorcallMethod(feed_body_names[direction], args, 3, NULL);
    Py_DECREF(stream);
    return fed(self, todo);
}

static int attach(ExchangeBase *self) {
    PyObject *sink = PyObject_GetAttr((PyObject *)self, take_name), *driver = Py_NewRef(self->driver);
    int failed = sink ? told(PyObject_CallMethodObjArgs(driver, attach_name, self->stream, sink, NULL)) : -1;
    Py_XDECREF(sink);
    Py_DECREF(driver);
    return failed;
}

int exchange_try_begin(ExchangeBase *self, PyObject *const *given) {
    if (!is_made(self)) return -1;
    PyObject *const came[] = {given[3], given[0], given[1], given[2], given[5]};
    PyObject *plain = wire_received_request(NULL, came, 5);
    if (!plain || plain == Py_None) return Py_XDECREF(plain), plain ? 0 : -1;
    PyObject *length = PyTuple_GET_ITEM(plain, 1), *chunked = PyTuple_GET_ITEM(plain, 2); /* clean */
    int ends = given[4] != Py_None ? PyObject_IsTrue(given[4]) : chunked != Py_True && !PyObject_IsTrue(length);
    int failed = ends < 0;
    if (!failed) {
        Py_XSETREF(self->client_method, Py_NewRef(given[0]));
        Py_XSETREF(self->request_length, Py_NewRef(length));
        self->request_ended = ends;
        failed = attach(self) || feed_headers(self, REQUEST, PyTuple_GET_ITEM(plain, 0), ends);
    }
    Py_DECREF(plain);
    return failed ? -1 : 1;
}

static PyObject *exchange_begin(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    static const Signature SIGNATURE = {
        "begin", 6, 4, {"method", "target", "scheme", "headers", "end_stream", "server"}};
    PyObject *given[] = {NULL, NULL, NULL, NULL, Py_None, empty};
    if (!take(&SIGNATURE, args, count, keywords, given)) return NULL;
    int begun = exchange_try_begin(self, given);
    if (begun < 0) return NULL;
    if (begun) Py_RETURN_NONE;
    Py_XSETREF(self->client_method, Py_NewRef(given[0]));
    if (attach(self)) return NULL;
    return PyObject_CallMethodObjArgs((PyObject *)self, begin_closely_name, given[0], given[1], given[2], given[3],
                                      given[4], given[5], NULL);
}

static PyObject *exchange_request_body(ExchangeBase *self, PyObject *const *args, Py_ssize_t count,
                                       PyObject *keywords) {
    static const Signature SIGNATURE = {"request_body", 2, 2, {"data", "end_stream"}};
    PyObject *given[] = {NULL, NULL};
    if (!take(&SIGNATURE, args, count, keywords, given) || !is_made(self)) return NULL;
    if (self->request_ended) Py_RETURN_NONE;
    int ends = PyObject_IsTrue(given[1]), any = ends > 0 ? 1 : PyObject_IsTrue(given[0]);
    if (ends < 0 || any < 0) return NULL;
    self->request_ended = ends;
    return none_unless(any && feed_body(self, REQUEST, given[0], given[1]));
}

PyObject *exchange_response(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    static const Signature SIGNATURE = {"response", 3, 2, {"status", "headers", "end_stream", "trailers"}};
    PyObject *given[] = {NULL, NULL, Py_False, Py_False};
    if (!take(&SIGNATURE, args, count, keywords, given) || !is_made(self)) return NULL;
    int over = self->response_ended ? 1 : exchange_is_over(self), ends = PyObject_IsTrue(given[2]);
    if (over < 0 || ends < 0) return NULL;
    if (over) Py_RETURN_NONE;
    PyObject *plain = wire_received_response(NULL, given, 2);
    if (!plain) return NULL;
    if (plain == Py_None) {
        Py_DECREF(plain);
        return PyObject_CallMethodObjArgs((PyObject *)self, response_closely_name, given[0], given[1], given[2],
                                          given[3], NULL);
    }
    long status = PyLong_AsLong(given[0]);
    PyObject *length = PyTuple_GET_ITEM(plain, 1), *done = NULL;
    ends |= is_head(self->client_method) || is_head(self->upstream_method) || status == 204 || status == 304;
    int any = ends || length == Py_None ? 1 : PyObject_IsTrue(length);
    if (!any) any = PyObject_IsTrue(given[3]); /* trailers */
    if (any >= 0) {
        ends = ends || !any;
        self->response_ended = ends;
        Py_XSETREF(self->response_length, Py_NewRef(length));
        done = none_unless(feed_headers(self, RESPONSE, PyTuple_GET_ITEM(plain, 0), ends));
    }
    Py_DECREF(plain);
    return done;
}

PyObject *exchange_response_body(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    static const Signature SIGNATURE = {"response_body", 2, 2, {"data", "end_stream"}};
    PyObject *given[] = {NULL, NULL};
    if (!take(&SIGNATURE, args, count, keywords, given) || !is_made(self)) return NULL;
    int over = self->response_ended ? 1 : exchange_is_over(self);
    int ends = PyObject_IsTrue(given[1]), any = ends > 0 ? 1 : PyObject_IsTrue(given[0]);
    if (over < 0 || ends < 0 || any < 0) return NULL;
    if (over) Py_RETURN_NONE;
    self->response_ended = ends;
    return none_unless(any && feed_body(self, RESPONSE, given[0], given[1]));
}

/* -- The end ---------------------------------------------------------------------------------------------------- */

static PyObject *exchange_close(ExchangeBase *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords) {
    static const Signature SIGNATURE = {"close", 0, 0, {"whole"}};
    PyObject *given[] = {Py_False}, *todo = NULL;
    if (!take(&SIGNATURE, args, count, keywords, given) || !is_made(self)) return NULL;
    Py_XSETREF(self->wake, Py_NewRef(Py_None)); /* its carrier refers to the exchange: break the cycle */
    PyObject *driver = Py_NewRef(self->driver), *stream = Py_NewRef(self->stream);
    int failed = told(PyObject_CallMethodOneArg(driver, detach_name, stream)), whole = is_in(self, ANSWERED);
    if (!failed && !whole) whole = PyObject_IsTrue(given[0]);
    if (!failed && !whole) whole = is_true(stream, reset_details_name);
    if (!failed && whole >= 0) todo = PyObject_CallMethodOneArg(stream, close_name, whole ? no_details : client_gone);
    int any = todo ? PyObject_IsTrue(todo) : -1;
    if (any > 0) any = told(PyObject_CallMethodOneArg(driver, perform_name, todo));
    Py_XDECREF(todo);
    Py_DECREF(stream);
    Py_DECREF(driver);
    return none_unless(any);
}

/* -- The type --------------------------------------------------------------------------------------------------- */

static int exchange_traverse(ExchangeBase *self, visitproc visit, void *arg) {
    Py_VISIT(self->driver);
    Py_VISIT(self->stream);
    Py_VISIT(self->to_upstream);
    Py_VISIT(self->to_client);
    Py_VISIT(self->wake);
    Py_VISIT(self->log);
    Py_VISIT(self->state);
    Py_VISIT(self->dict);
    Py_VISIT(self->client_method);
    Py_VISIT(self->upstream_method);
    Py_VISIT(self->request_length);
    Py_VISIT(self->response_length);
    Py_VISIT(self->waiting_request);
    Py_VISIT(self->waiting_response);
    return 0;
}

static int exchange_clear(ExchangeBase *self) {
    Py_CLEAR(self->driver);
    Py_CLEAR(self->stream);
    Py_CLEAR(self->to_upstream);
    Py_CLEAR(self->to_client);
    Py_CLEAR(self->wake);
    Py_CLEAR(self->log);
    Py_CLEAR(self->state);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->client_method);
    Py_CLEAR(self->upstream_method);
    Py_CLEAR(self->request_length);
    Py_CLEAR(self->response_length);
    Py_CLEAR(self->waiting_request);
    Py_CLEAR(self->waiting_response);
    return 0;
}

static void exchange_dealloc(ExchangeBase *self) {
    PyObject_GC_UnTrack(self);
    exchange_clear(self);
    Py_TYPE(self)->tp_free(self);
}

#define EVENT(name) #name, (PyCFunction)(void (*)(void))exchange_##name, METH_FASTCALL | METH_KEYWORDS

static PyMethodDef exchange_methods[] = {
    {EVENT(begin),
     "begin($self, method, target, scheme, headers, end_stream=None, server=b'')\n--\n\n"
     "Feed the request's head.\n\n"
     "Args:\n"
     "    method: the request's method.\n"
     "    target: as on the wire: path and query, an absolute URL, or ``*``.\n"
     "    scheme: ``http`` or ``https``.\n"
     "    headers: as received, names in lower case, including ``host`` (in HTTP/2 from ``:authority``).\n"
     "    end_stream: nothing follows; ``None`` if the headers decide, as in HTTP/1 (RFC 9112, section 6.3).\n"
     "    server: the authority if there is no ``host``."},
    {EVENT(request_body), "request_body($self, data, end_stream)\n--\n\n"
                          "Feed a part of the request's body. Ignored after its end."},
    {EVENT(response), "response($self, status, headers, end_stream=False, *, trailers=False)\n--\n\n"
                      "Feed the response's head.\n\n"
                      "Args:\n"
                      "    status: the response's status.\n"
                      "    headers: as received.\n"
                      "    end_stream: nothing follows.\n"
                      "    trailers: something may follow a body of length 0."},
    {EVENT(response_body),
     "response_body($self, data, end_stream)\n--\n\n"
     "Feed a part of the response's body. Ignored after its end, and once upstream is ignored (`over`)."},
    {EVENT(close), "close($self, *, whole=False)\n--\n\n"
                   "End the exchange. Call it always, however the exchange ended.\n\n"
                   "`whole`: the client gets the whole response, though not all of it passed the exchange."},
    {"_feed", (PyCFunction)exchange_feed, METH_O,
     "_feed($self, todo, /)\n--\n\n"
     "Take the effects of an event that the exchange fed, up to the first one that is not the stream's."},
    {"_begin_closely", to_override, METH_VARARGS,
     "_begin_closely($self, method, target, scheme, headers, end_stream, server, /)\n--\n\n"
     "`begin`, for any request."},
    {"_response_closely", to_override, METH_VARARGS,
     "_response_closely($self, status, headers, end_stream, trailers, /)\n--\n\n"
     "`response`, for any response, unless upstream is ignored."},
    {"_take", to_override, METH_VARARGS,
     "_take($self, effect, /)\n--\n\n"
     "Take an effect of the stream, and wake the carrier unless it is feeding an event."},
    {"_take_in", to_override, METH_VARARGS,
     "_take_in($self, effect, /)\n--\n\n"
     "Take an effect of the stream, without waking the carrier."},
    {"_leave_to_driver", to_override, METH_VARARGS,
     "_leave_to_driver($self, todo, /)\n--\n\n"
     "Let the driver perform effects of an event that the exchange fed."},
    {NULL, NULL, 0, NULL},
};

#define OWN(name, kind, doc) #name, kind, offsetof(ExchangeBase, name), 0, doc
#define HIDDEN(name, kind) "_" #name, kind, offsetof(ExchangeBase, name), 0, NULL

static PyMemberDef exchange_members[] = {
    {OWN(stream, T_OBJECT_EX, "The stream that it carries.")},
    {OWN(to_upstream, T_OBJECT_EX, "Parts of the request, in order, the head first. Take them from the left.")},
    {OWN(to_client, T_OBJECT_EX, "Parts of the response, in order. Take them from the left.")},
    {OWN(wake, T_OBJECT, "Called when an event from elsewhere has changed the exchange. It must not feed anything.")},
    {OWN(state, T_OBJECT_EX, "The state of the exchange.")},
    {HIDDEN(driver, T_OBJECT_EX)},
    {HIDDEN(log, T_OBJECT_EX)},
    {HIDDEN(client_method, T_OBJECT_EX)},
    {HIDDEN(upstream_method, T_OBJECT_EX)},
    {HIDDEN(request_length, T_OBJECT)},
    {HIDDEN(response_length, T_OBJECT)},
    {HIDDEN(waiting_request, T_OBJECT)},
    {HIDDEN(waiting_response, T_OBJECT)},
    {NULL, 0, 0, 0, NULL},
};

#define HIDDEN_FLAG(name) "_" #name, get_flag, set_flag, NULL, (void *)offsetof(ExchangeBase, name)

static PyGetSetDef exchange_getset[] = {
    DICT,
    {"over", (getter)get_over, NULL,
     "Whether the rest of upstream's response is ignored, so that the carrier should break it off.", NULL},
    {"finished", (getter)get_finished, NULL, "Whether `to_client` is empty and will stay empty.", NULL},
    {HIDDEN_FLAG(fix_content_length)},
    {HIDDEN_FLAG(http_1_0)},
    {HIDDEN_FLAG(feeding)},
    {HIDDEN_FLAG(request_ended)},
    {HIDDEN_FLAG(response_ended)},
    {HIDDEN_FLAG(client_clean)},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject ExchangeBaseType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.ExchangeBase",
    .tp_doc = "A request in progress, on the common path. `Exchange` adds the unusual cases.",
    .tp_basicsize = sizeof(ExchangeBase),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)exchange_init,
    .tp_dealloc = (destructor)exchange_dealloc,
    .tp_traverse = (traverseproc)exchange_traverse,
    .tp_clear = (inquiry)exchange_clear,
    .tp_methods = exchange_methods,
    .tp_members = exchange_members,
    .tp_getset = exchange_getset,
    .tp_dictoffset = offsetof(ExchangeBase, dict),
};
