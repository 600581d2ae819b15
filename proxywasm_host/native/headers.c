/* Native handlers of the hostcalls on header maps, for the usual case: an existing map of plain pairs that may be
 * changed. Everything else is left to abi/hostcalls/headers.py, which has the rules. Handlers that leave a call change
 * nothing. */
#include "native.h"

enum { FEW = 8 }; /* up to this number of headers, a linear search comes first */

/* -- Maps and keys -------------------------------------------------------------------------------------------- */

static Context *context_of(Hostcall *self) {
    PyObject *context = ((VmBase *)self->vm)->context;
    return is_context(context) ? (Context *)context : NULL;
}

static PyObject *map_of(Context *context, uint32_t map) {
    PyObject *headers = place_get(&context->maps, map);
    return PyList_CheckExact(headers) ? headers : NULL;
}

/* A map that the guest may read: a borrowed list, or NULL. */
static PyObject *readable(Hostcall *self, uint32_t map) {
    Context *context = context_of(self);
    if (!context || map >= MAPS) return NULL;
    if (map < STREAM_MAPS) return map_of(context, map);
    return is_context(context->root) ? map_of((Context *)context->root, map) : NULL;
}

static PyObject *writable(Hostcall *self, uint32_t map) {
    Context *context = context_of(self);
    return context && map < STREAM_MAPS && !context->read_only ? map_of(context, map) : NULL;
}

/* A key from the guest, and the name that a map uses for it. */
typedef struct {
    char raw[KEY_SIZE], name[KEY_SIZE];
    size_t raw_size, size;
} Key;

static void take_key(Key *key, const uint8_t *from, size_t size, uint32_t map) {
    memcpy(key->raw, from, size);
    key->raw_size = key->size = size;
    for (size_t i = 0; i < size; i++) key->name[i] = Py_TOLOWER(key->raw[i]);
    if (map == 0 && size == 4 && !memcmp(key->name, "host", 4)) {
        memcpy(key->name, ":authority", 10);
        key->size = 10;
    }
}

/* Returns OK, LEFT or RAISED. Maps must be looked up afterwards, because the view of a memory may run Python code. */
static int64_t read_key(Hostcall *self, uint32_t at, uint32_t size, uint32_t map, Key *key) {
    Memory memory;
    if (size > KEY_SIZE) return LEFT;
    if (memory_open(self->guest, &memory)) return RAISED;
    bool good = inside(&memory, at, size);
    if (good) take_key(key, memory.at + at, size, map);
    memory_done(&memory);
    return good ? OK : LEFT;
}

static bool is_named(const Key *key, PyObject *name) {
    return (size_t)PyBytes_GET_SIZE(name) == key->size && !memcmp(PyBytes_AS_STRING(name), key->name, key->size);
}

static bool is_pseudo(PyObject *name) { return PyBytes_GET_SIZE(name) && PyBytes_AS_STRING(name)[0] == ':'; }

/* Make the raw bytes of a key, and its name, which is the same object if they are equal. */
static bool key_objects(const Key *key, PyObject **raw, PyObject **name) {
    *raw = PyBytes_FromStringAndSize(key->raw, (Py_ssize_t)key->raw_size);
    if (!*raw) return false;
    if (is_named(key, *raw)) *name = Py_NewRef(*raw);
    else *name = PyBytes_FromStringAndSize(key->name, (Py_ssize_t)key->size);
    if (!*name) Py_CLEAR(*raw);
    return *name;
}

/* -- Recorded calls ------------------------------------------------------------------------------------------- */

static Call *remember(Hostcall *self, int (*make)(Call *, PyObject **, PyObject **), uint32_t map) {
    Call *call = calls_next(self->guest->calls, self->row);
    call->make = make;
    call->numbers[0] = map;
    return call;
}

static void remember_key(Call *call, const Key *key) {
    memcpy(call->key, key->raw, key->raw_size);
    call->key_size = key->raw_size;
}

static int make_get(Call *call, PyObject **args, PyObject **result) {
    *args = Py_BuildValue("(Ky#)", call->numbers[0], call->key, (Py_ssize_t)call->key_size);
    if (*args)
        *result = call->numbers[1] ? PyObject_CallObject(known.not_found, *args)
                  : call->first    ? Py_NewRef(call->first)
                                   : PyBytes_FromStringAndSize(NULL, 0);
    if (!*result) Py_CLEAR(*args);
    return *result ? 0 : -1;
}

static int make_change(Call *call, PyObject **args, PyObject **result) {
    *args = call->second  ? Py_BuildValue("(KOO)", call->numbers[0], call->first, call->second)
            : call->first ? Py_BuildValue("(KO)", call->numbers[0], call->first)
                          : Py_BuildValue("(Ky#)", call->numbers[0], call->key, (Py_ssize_t)call->key_size);
    return *args ? 0 : -1;
}

static int make_pairs(Call *call, PyObject **args, PyObject **result) {
    *args = Py_BuildValue("(K)", call->numbers[0]);
    *result = PyBytes_Check(call->first) ? pairs_decode(call->first) : Py_NewRef(call->first);
    if (!*args || !*result) {
        Py_CLEAR(*args);
        Py_CLEAR(*result);
        return -1;
    }
    return 0;
}

static int make_size(Call *call, PyObject **args, PyObject **result) {
    *args = Py_BuildValue("(K)", call->numbers[0]);
    *result = *args ? PyLong_FromUnsignedLongLong(call->numbers[1]) : NULL;
    if (!*result) Py_CLEAR(*args);
    return *result ? 0 : -1;
}

/* See native.h. Takes over `why`. */
int64_t handler_status(Hostcall *self, Call *call, int state, int64_t status, PyObject *why) {
    if (state == GOOD) return status;
    call->result = refusal(self->memory_error, why);
    Py_DECREF(why);
    return call->result ? self->memory_error : RAISED;
}

/* -- Reading -------------------------------------------------------------------------------------------------- */

static int64_t get_value(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t map = u32(slots, stride, 0), at = u32(slots, stride, 1), size = u32(slots, stride, 2);
    PyObject *value = NULL, *why = NULL;
    Key key;
    int64_t taken = read_key(self, at, size, map, &key);
    if (taken != OK) return taken;
    PyObject *headers = readable(self, map);
    if (!headers) return LEFT;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *name, *found;
        if (!pair_of(headers, i, &name, &found)) return LEFT;
        if (is_named(&key, name)) {
            value = Py_NewRef(found);
            break;
        }
    }
    bool missing = !value && !self->none_is_empty;
    int state = GOOD;
    if (!missing)
        state = guest_put_bytes(self->guest, value ? PyBytes_AS_STRING(value) : "",
                                value ? (size_t)PyBytes_GET_SIZE(value) : 0, u32(slots, stride, 3),
                                u32(slots, stride, 4), false, &why);
    if (state == FAILED) {
        Py_XDECREF(value);
        return RAISED;
    }
    if (value && PyBytes_GET_SIZE(value) > RECORDED) {
        Py_SETREF(value, PySequence_GetSlice(value, 0, RECORDED));
        if (!value) {
            Py_XDECREF(why);
            return RAISED;
        }
    }
    Call *call = remember(self, make_get, map);
    remember_key(call, &key);
    call->numbers[1] = missing;
    call->first = value;
    return handler_status(self, call, state, missing ? NOT_FOUND : OK, why);
}

static int64_t get_pairs(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t map = u32(slots, stride, 0);
    PyObject *headers = readable(self, map), *why = NULL;
    if (!headers) return LEFT;
    PyObject *bytes = pairs_encode(headers);
    if (!bytes) return PyErr_Occurred() ? RAISED : LEFT;
    PyObject *held = Py_NewRef(bytes);
    if (PyBytes_GET_SIZE(bytes) > RECORDED) Py_SETREF(held, PyList_GetSlice(headers, 0, PyList_GET_SIZE(headers)));
    int state = held ? guest_put_bytes(self->guest, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes),
                                       u32(slots, stride, 1), u32(slots, stride, 2), false, &why)
                     : FAILED;
    Py_DECREF(bytes);
    if (state == FAILED) {
        Py_XDECREF(held);
        return RAISED;
    }
    Call *call = remember(self, make_pairs, map);
    call->first = held;
    return handler_status(self, call, state, OK, why);
}

static int64_t get_size(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t map = u32(slots, stride, 0);
    PyObject *headers = writable(self, map), *name, *value, *why = NULL; /* writable, as in Envoy: see headers.py */
    if (!headers) return LEFT;
    uint64_t size = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        if (!pair_of(headers, i, &name, &value)) return LEFT;
        size += (uint64_t)(PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value));
    }
    if (size > UINT32_MAX) return LEFT;
    int state = guest_put(self->guest, u32(slots, stride, 1), size, 4, &why);
    if (state == FAILED) return RAISED;
    Call *call = remember(self, make_size, map);
    call->numbers[1] = size;
    return handler_status(self, call, state, OK, why);
}

/* -- Changing ------------------------------------------------------------------------------------------------- */

/* Whether headers are plain pairs, with capacity for `more` bytes. */
static bool is_plain(PyObject *headers, size_t more) {
    PyObject *name, *value;
    if (PyList_GET_SIZE(headers) >= MAX_PAIRS) return false;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        if (!pair_of(headers, i, &name, &value)) return false;
        more += (size_t)PyBytes_GET_SIZE(name) + (size_t)PyBytes_GET_SIZE(value);
    }
    return more <= MAX_PAIRS_SIZE;
}

/* Insert a pair at the end of its group: pseudo-headers, or other headers. Returns 0, or -1 with an exception. */
static int put_last(PyObject *headers, PyObject *name, PyObject *value) {
    PyObject *pair = PyTuple_New(2), *other, *unused;
    if (!pair) return -1;
    PyTuple_SET_ITEM(pair, 0, Py_NewRef(name));
    PyTuple_SET_ITEM(pair, 1, Py_NewRef(value));
    int failed;
    if (is_pseudo(name)) {
        Py_ssize_t at = 0;
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++)
            at += pair_of(headers, i, &other, &unused) && is_pseudo(other);
        failed = PyList_Insert(headers, at, pair);
    } else {
        failed = PyList_Append(headers, pair);
    }
    Py_DECREF(pair);
    return failed;
}

static PyObject *joined(PyObject *name, PyObject *old, PyObject *value) {
    Py_ssize_t size = PyBytes_GET_SIZE(old), more = PyBytes_GET_SIZE(value);
    PyObject *both = PyBytes_FromStringAndSize(NULL, size + 1 + more);
    if (!both) return NULL;
    char *to = PyBytes_AS_STRING(both);
    memcpy(to, PyBytes_AS_STRING(old), (size_t)size);
    to[size] = ',';
    memcpy(to + size + 1, PyBytes_AS_STRING(value), (size_t)more);
    PyObject *pair = PyTuple_Pack(2, name, both);
    Py_DECREF(both);
    return pair;
}

/* Add a header to a map of plain pairs. */
static int add_pair(Hostcall *self, PyObject *headers, uint32_t map, PyObject *name, PyObject *value) {
    PyObject *joinable = PyTuple_GET_ITEM(known.inline_headers, map);
    /* In a short list, to search for the name is faster than to check first whether it may occur only once. */
    bool are_few = PyList_GET_SIZE(headers) <= FEW;
    int one_only = !self->inline_headers ? 0 : are_few ? 1 : PySet_Contains(joinable, name);
    for (Py_ssize_t i = 0; one_only > 0 && i < PyList_GET_SIZE(headers); i++) {
        PyObject *other, *old;
        if (!pair_of(headers, i, &other, &old) || !same_bytes(other, name)) continue;
        if (are_few && (one_only = PySet_Contains(joinable, name)) <= 0) break;
        PyObject *pair = joined(name, old, value);
        return pair ? PyList_SetItem(headers, i, pair) : -1;
    }
    return one_only < 0 ? -1 : put_last(headers, name, value);
}

static void remove_pairs(PyObject *headers, const Key *key) {
    PyObject *name, *value;
    for (Py_ssize_t i = PyList_GET_SIZE(headers) - 1; i >= 0; i--)
        if (pair_of(headers, i, &name, &value) && is_named(key, name)) PyList_SetSlice(headers, i, i + 1, NULL);
}

static int64_t change(Hostcall *self, const uint64_t *slots, size_t stride, bool replace) {
    uint32_t map = u32(slots, stride, 0), at = u32(slots, stride, 1), size = u32(slots, stride, 2);
    uint32_t value_at = u32(slots, stride, 3), value_size = u32(slots, stride, 4);
    PyObject *raw, *name, *value = NULL;
    Memory memory;
    Key key;
    if (size > KEY_SIZE || value_size > RECORDED - KEY_SIZE) return LEFT;
    if (memory_open(self->guest, &memory)) return RAISED;
    bool good = inside(&memory, at, size) && inside(&memory, value_at, value_size);
    if (good) {
        take_key(&key, memory.at + at, size, map);
        value = PyBytes_FromStringAndSize((const char *)memory.at + value_at, (Py_ssize_t)value_size);
    }
    memory_done(&memory);
    if (!good) return LEFT;
    if (!value || !key_objects(&key, &raw, &name)) {
        Py_XDECREF(value);
        return RAISED;
    }
    PyObject *headers = writable(self, map);
    if (!headers || !is_plain(headers, size + (size_t)value_size)) {
        Py_DECREF(raw);
        Py_DECREF(name);
        Py_DECREF(value);
        return LEFT;
    }
    Py_INCREF(headers);
    if (replace) remove_pairs(headers, &key);
    int failed = replace ? put_last(headers, name, value) : add_pair(self, headers, map, name, value);
    Py_DECREF(headers);
    Py_DECREF(name);
    Call *call = remember(self, make_change, map);
    call->first = raw, call->second = value;
    return failed ? RAISED : OK;
}

static int64_t add_value(Hostcall *self, const uint64_t *slots, size_t stride) {
    return change(self, slots, stride, false);
}

static int64_t replace_value(Hostcall *self, const uint64_t *slots, size_t stride) {
    return change(self, slots, stride, true);
}

static int64_t remove_value(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t map = u32(slots, stride, 0), at = u32(slots, stride, 1), size = u32(slots, stride, 2);
    Key key;
    int64_t taken = read_key(self, at, size, map, &key);
    if (taken != OK) return taken;
    PyObject *headers = writable(self, map);
    if (!headers || !is_plain(headers, 0)) return LEFT;
    Py_INCREF(headers);
    remove_pairs(headers, &key);
    Py_DECREF(headers);
    remember_key(remember(self, make_change, map), &key);
    return OK;
}

static PyObject *lower(PyObject *name, uint32_t map) {
    Py_ssize_t size = PyBytes_GET_SIZE(name);
    PyObject *lowered = PyBytes_FromStringAndSize(NULL, size);
    if (!lowered) return NULL;
    for (Py_ssize_t i = 0; i < size; i++) PyBytes_AS_STRING(lowered)[i] = Py_TOLOWER(PyBytes_AS_STRING(name)[i]);
    if (map == 0 && size == 4 && !memcmp(PyBytes_AS_STRING(lowered), "host", 4))
        Py_SETREF(lowered, PyBytes_FromStringAndSize(":authority", 10));
    return lowered;
}

static int64_t set_pairs(Hostcall *self, const uint64_t *slots, size_t stride) {
    uint32_t map = u32(slots, stride, 0), at = u32(slots, stride, 1), size = u32(slots, stride, 2);
    PyObject *bytes = NULL;
    Memory memory;
    if (size > RECORDED) return LEFT;
    if (memory_open(self->guest, &memory)) return RAISED;
    bool good = inside(&memory, at, size);
    if (good) bytes = PyBytes_FromStringAndSize((const char *)memory.at + at, (Py_ssize_t)size);
    memory_done(&memory);
    if (!good) return LEFT;
    PyObject *pairs = bytes ? pairs_decode(bytes) : NULL;
    Py_XDECREF(bytes);
    if (!pairs) return PyErr_Occurred() ? RAISED : LEFT;
    PyObject *headers = writable(self, map);
    if (!headers) {
        Py_DECREF(pairs);
        return LEFT;
    }
    Py_INCREF(headers);
    int failed = PyList_SetSlice(headers, 0, PyList_GET_SIZE(headers), NULL);
    for (Py_ssize_t i = 0; !failed && i < PyList_GET_SIZE(pairs); i++) {
        PyObject *key, *value;
        if (!pair_of(pairs, i, &key, &value)) continue; /* never: `pairs` has only pairs that C code has made */
        PyObject *name = lower(key, map);
        failed = name ? add_pair(self, headers, map, name, value) : -1;
        Py_XDECREF(name);
    }
    Py_DECREF(headers);
    remember(self, make_change, map)->first = pairs;
    return failed ? RAISED : OK;
}

/* -- The table ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    Native_handler native_handler;
} NATIVE_HANDLERS[] = {
    {"proxy_get_header_map_value", get_value},         {"proxy_add_header_map_value", add_value},
    {"proxy_replace_header_map_value", replace_value}, {"proxy_remove_header_map_value", remove_value},
    {"proxy_get_header_map_pairs", get_pairs},         {"proxy_set_header_map_pairs", set_pairs},
    {"proxy_get_header_map_size", get_size},
};

Native_handler header_handler(PyObject *name) {
    for (size_t i = 0; i < sizeof NATIVE_HANDLERS / sizeof *NATIVE_HANDLERS; i++)
        if (PyUnicode_CompareWithASCIIString(name, NATIVE_HANDLERS[i].name) == 0)
            return NATIVE_HANDLERS[i].native_handler;
    return NULL;
}
