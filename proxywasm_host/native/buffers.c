/* Native handlers of the hostcalls on buffers and on time, for the usual case: an existing buffer, the machine's clock.
 * Everything else is left to abi/hostcalls/buffers.py and basics.py, which have the rules. */
#include "native.h"

#include <time.h>

/* As in types.py. */
enum {
    HTTP_CALL_RESPONSE_BODY = 4,
    GRPC_RECEIVE_BUFFER = 5,
    VM_CONFIGURATION = 6,
    PLUGIN_CONFIGURATION = 7,
    REDIS_CALL_RESPONSE = 9
};

const Proxywasm_constant BUFFER_CONSTANTS[] = {
    PROXYWASM_CONSTANT(HTTP_CALL_RESPONSE_BODY), PROXYWASM_CONSTANT(GRPC_RECEIVE_BUFFER),
    PROXYWASM_CONSTANT(VM_CONFIGURATION),        PROXYWASM_CONSTANT(PLUGIN_CONFIGURATION),
    PROXYWASM_CONSTANT(REDIS_CALL_RESPONSE),     {NULL, 0},
};

static PyObject *writable_size_name, *services_name, *clock_name;

static PyObject *current(Hostcall *self) { return ((VmBase *)self->vm)->context; }

/* An existing buffer. */
typedef struct {
    PyObject *bytes; /* a new reference, which prevents changes */
    size_t size;     /* number of bytes in use; the rest is spare capacity */
    HeldBody *held;  /* the owner of the bytes, borrowed, or NULL */
} Buffer;

static bool is_held(PyObject *found) { return Py_IS_TYPE(found, &HeldBodyType) && ((HeldBody *)found)->bytes; }

static Buffer buffer_open(const Places *buffers, uint32_t buffer) {
    PyObject *found = place_get(buffers, buffer);
    if (!is_held(found)) return (Buffer){Py_NewRef(found), (size_t)PyBytes_GET_SIZE(found), NULL};
    HeldBody *held = (HeldBody *)found;
    return (Buffer){Py_NewRef(held->bytes), held->size, held};
}

/* The places with a buffer; NULL if it does not exist, or is neither bytes nor a HeldBody. */
static Places *buffers_of(PyObject *context, uint32_t buffer, bool of_stream) {
    if (!is_context(context) || buffer == VM_CONFIGURATION || buffer >= BUFFERS) return NULL;
    bool of_root = buffer == HTTP_CALL_RESPONSE_BODY || buffer == GRPC_RECEIVE_BUFFER ||
                   buffer == PLUGIN_CONFIGURATION || buffer == REDIS_CALL_RESPONSE;
    if (of_root && of_stream) return NULL;
    if (of_root) context = ((Context *)context)->root;
    if (!is_context(context)) return NULL;
    Places *buffers = &((Context *)context)->buffers;
    PyObject *found = place_get(buffers, buffer);
    return PyBytes_CheckExact(found) || is_held(found) ? buffers : NULL;
}

/* Whether the number is in the enumeration, whose end depends on the version; for others, the marshaller refuses. */
static bool in_enumeration(Hostcall *self, uint32_t buffer) { return buffer <= self->param[0].top; }

static int make_get(Call *call, PyObject **args, PyObject **result) {
    uint64_t start = call->numbers[1], length = call->numbers[2];
    *args = Py_BuildValue("(KKK)", call->numbers[0], start, length);
    if (!*args) return -1;
    Py_ssize_t size = PyBytes_GET_SIZE(call->first);
    bool cut = call->second;
    Py_ssize_t from = cut ? 0 : (Py_ssize_t)start, to = cut ? size : (Py_ssize_t)(start + length);
    *result = PySequence_GetSlice(call->first, from < size ? from : size, to < size ? to : size);
    if (!*result) Py_CLEAR(*args);
    return *result ? 0 : -1;
}

static int64_t get_bytes(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t buffer = u32(slots, stride, 0);
    size_t start = u32(slots, stride, 1), length = u32(slots, stride, 2);
    Places *buffers = in_enumeration(self, buffer) ? buffers_of(current(self), buffer, false) : NULL;
    if (!buffers) return LEFT;
    Buffer open = buffer_open(buffers, buffer);
    PyObject *found = open.bytes, *why = NULL;
    size_t size = open.size, from = start < size ? start : size;
    size_t count = length < size - from ? length : size - from;
    int state = guest_put_bytes(self->guest, PyBytes_AS_STRING(found) + from, count, u32(slots, stride, 3),
                                u32(slots, stride, 4), false, &why);
    bool cut = open.held || size > RECORDED;
    if (cut && state != FAILED)
        Py_SETREF(found, PyBytes_FromStringAndSize(PyBytes_AS_STRING(found) + from,
                                                   (Py_ssize_t)(count < RECORDED ? count : RECORDED)));
    if (state == FAILED || !found) {
        Py_XDECREF(found);
        Py_XDECREF(why);
        return RAISED;
    }
    Call *call = calls_next(self->guest->calls, self->row);
    call->make = make_get;
    call->numbers[0] = buffer, call->numbers[1] = start, call->numbers[2] = length;
    call->first = found, call->second = cut ? Py_NewRef(Py_None) : NULL;
    return handler_status(self, call, state, OK, why);
}

static int make_set(Call *call, PyObject **args, PyObject **result) {
    *args = Py_BuildValue("(KKKO)", call->numbers[0], call->numbers[1], call->numbers[2], call->first);
    return *args ? 0 : -1;
}

/* found[:start] + data + found[end:] */
static PyObject *spliced(PyObject *found, size_t start, size_t end, PyObject *data) {
    size_t size = (size_t)PyBytes_GET_SIZE(found), more = (size_t)PyBytes_GET_SIZE(data);
    if (end > size) end = size;
    if (start == 0 && end == size) return Py_NewRef(data);
    PyObject *all = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(start + more + (size - end)));
    if (!all) return NULL;
    char *to = PyBytes_AS_STRING(all);
    memcpy(to, PyBytes_AS_STRING(found), start);
    memcpy(to + start, PyBytes_AS_STRING(data), more);
    memcpy(to + start + more, PyBytes_AS_STRING(found) + end, size - end);
    return all;
}

/* The maximum size of the buffer; 0 if it must not be changed, or -1 with an exception. */
static Py_ssize_t writable_size(PyObject *context, uint32_t buffer) {
    PyObject *number = PyLong_FromUnsignedLong(buffer);
    PyObject *most = number ? PyObject_CallMethodOneArg(context, writable_size_name, number) : NULL;
    Py_ssize_t size = most ? PyNumber_AsSsize_t(most, NULL) : -1; /* limited to the range of Py_ssize_t */
    Py_XDECREF(number);
    Py_XDECREF(most);
    return size;
}

static void remember_set(Hostcall *self, uint32_t buffer, size_t start, size_t length, PyObject *data) {
    Call *call = calls_next(self->guest->calls, self->row);
    call->make = make_set;
    call->numbers[0] = buffer, call->numbers[1] = start, call->numbers[2] = length;
    call->first = Py_NewRef(data);
}

/* Replace `length` bytes of a HeldBody from `start` on with `size` bytes at `at` in guest memory. */
static int64_t splice_held(Hostcall *self, PyObject *found, uint32_t buffer, size_t start, size_t length, uint32_t at,
                           uint32_t size) {
    PyObject *kept = Py_NewRef(found), *data = NULL, *why = NULL;
    Memory memory;
    int state = memory_open(self->guest, &memory) ? FAILED : guest_reach(self->guest, &memory, at, size, &why);
    if (state == GOOD) {
        const char *from = (const char *)memory.at + at;
        data = PyBytes_FromStringAndSize(from, size < RECORDED ? size : RECORDED);
        state = data && !held_splice((HeldBody *)kept, start, length, from, size) ? GOOD : FAILED;
        if (state == GOOD) remember_set(self, buffer, start, length, data);
        memory_done(&memory);
    }
    Py_XDECREF(why);
    Py_XDECREF(data);
    Py_DECREF(kept);
    return state == GOOD ? OK : state == FAILED ? RAISED : LEFT;
}

/* The same for a buffer that is bytes. */
static int64_t splice(Hostcall *self, Places *buffers, uint32_t buffer, size_t start, size_t length, uint32_t at,
                      uint32_t size) {
    PyObject *found = Py_NewRef(place_get(buffers, buffer)), *data = NULL;
    size_t held = (size_t)PyBytes_GET_SIZE(found);
    int64_t status = RAISED;
    Memory memory;
    if (!memory_open(self->guest, &memory)) {
        bool good = inside(&memory, at, size);
        if (good) data = PyBytes_FromStringAndSize((const char *)memory.at + at, (Py_ssize_t)size);
        memory_done(&memory);
        if (!good) status = LEFT;
    }
    PyObject *changed = data ? spliced(found, start < held ? start : held, start + length, data) : NULL;
    if (changed && size > RECORDED) Py_SETREF(data, PyBytes_FromStringAndSize(PyBytes_AS_STRING(data), RECORDED));
    if (changed && data && !place_set(buffers, buffer, changed)) {
        remember_set(self, buffer, start, length, data);
        status = OK;
    }
    Py_XDECREF(changed);
    Py_XDECREF(data);
    Py_DECREF(found);
    return status;
}

static int64_t set_bytes(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t buffer = u32(slots, stride, 0), start = u32(slots, stride, 1), length = u32(slots, stride, 2);
    if (!in_enumeration(self, buffer) || !buffers_of(current(self), buffer, true)) return LEFT;
    PyObject *context = Py_NewRef(current(self));
    Py_ssize_t most = writable_size(context, buffer);
    Places *buffers = most > 0 ? buffers_of(context, buffer, true) : NULL;
    int64_t status = most < 0 ? RAISED : LEFT;
    if (buffers) {
        PyObject *found = place_get(buffers, buffer);
        size_t held = is_held(found) ? ((HeldBody *)found)->size : (size_t)PyBytes_GET_SIZE(found);
        size_t more = u32(slots, stride, 4);
        size_t left = start < held ? held - start : 0, size = held - (length < left ? length : left) + more;
        bool inner = start && start < held;
        if ((!inner || self->splice_buffers) && (size <= held || size <= (size_t)most)) {
            uint32_t at = u32(slots, stride, 3);
            status = is_held(found) ? splice_held(self, found, buffer, start, length, at, (uint32_t)more)
                                    : splice(self, buffers, buffer, start, length, at, (uint32_t)more);
        }
    }
    Py_DECREF(context);
    return status;
}

static int make_status(Call *call, PyObject **args, PyObject **result) {
    *args = Py_BuildValue("(K)", call->numbers[0]);
    *result = *args ? Py_BuildValue("(Ki)", call->numbers[1], 0) : NULL;
    if (!*result) Py_CLEAR(*args);
    return *result ? 0 : -1;
}

static int64_t get_status(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t buffer = u32(slots, stride, 0);
    Places *buffers = in_enumeration(self, buffer) ? buffers_of(current(self), buffer, false) : NULL;
    PyObject *why = NULL;
    if (!buffers) return LEFT;
    PyObject *found = place_get(buffers, buffer);
    uint64_t size = is_held(found) ? ((HeldBody *)found)->size : (uint64_t)PyBytes_GET_SIZE(found);
    if (size > UINT32_MAX) return LEFT;
    int state = guest_put(self->guest, u32(slots, stride, 1), size, 4, &why);
    if (state == GOOD) state = guest_put(self->guest, u32(slots, stride, 2), 0, 4, &why);
    if (state == FAILED) return RAISED;
    Call *call = calls_next(self->guest->calls, self->row);
    call->make = make_status;
    call->numbers[0] = buffer, call->numbers[1] = size;
    return handler_status(self, call, state, OK, why);
}

static int make_time(Call *call, PyObject **args, PyObject **result) {
    *args = PyTuple_New(0);
    *result = *args ? PyLong_FromUnsignedLongLong(call->numbers[0]) : NULL;
    if (!*result) Py_CLEAR(*args);
    return *result ? 0 : -1;
}

static int64_t get_time(Hostcall *self, const uint64_t *slots, size_t stride) {
    PyObject *services = PyObject_GetAttr(self->vm, services_name), *why = NULL;
    PyObject *clock = services ? PyObject_GetAttr(services, clock_name) : NULL;
    bool plain = clock && Py_IS_TYPE(clock, (PyTypeObject *)known.system_clock);
    Py_XDECREF(services);
    Py_XDECREF(clock);
    if (!clock) return RAISED;
    struct timespec now;
    if (!plain || clock_gettime(CLOCK_REALTIME, &now)) return LEFT;
    uint64_t time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    int state = guest_put(self->guest, u32(slots, stride, 0), time, 8, &why);
    if (state == FAILED) return RAISED;
    Call *call = calls_next(self->guest->calls, self->row);
    call->make = make_time;
    call->numbers[0] = time;
    return handler_status(self, call, state, OK, why);
}

static const struct {
    const char *name;
    Native_handler native_handler;
} NATIVE_HANDLERS[] = {
    {"proxy_get_buffer_bytes", get_bytes},
    {"proxy_set_buffer_bytes", set_bytes},
    {"proxy_get_buffer_status", get_status},
    {"proxy_get_current_time_nanoseconds", get_time},
};

Native_handler buffer_handler(PyObject *name) {
    for (size_t i = 0; i < sizeof NATIVE_HANDLERS / sizeof *NATIVE_HANDLERS; i++)
        if (PyUnicode_CompareWithASCIIString(name, NATIVE_HANDLERS[i].name) == 0)
            return NATIVE_HANDLERS[i].native_handler;
    return NULL;
}

int buffer_names(void) {
    static const Name NAMES[] = {
        {&writable_size_name, "writable_size"},
        {&services_name, "services"},
        {&clock_name, "clock"},
    };
    return INTERN(NAMES);
}
