/* The interface between the files of this extension. The Python forms document the meaning of everything:
 * abi/marshal.py (Guest, Hostcall, Calls), abi/pairs.py, abi/context.py (ContextState), runtime/vm_base.py (VmBase).
 *
 * Rules:
 *   - The GIL is held throughout. Guest memory is looked up again after anything that may have run Python code or the
 *     guest: either may close the instance.
 *   - Python code may run when an object is called, compared or released, and (before CPython 3.12) when an object that
 *     the garbage collector tracks is made. Objects in fields or lists are held meanwhile, or looked up again.
 *   - A field is NULL if __init__ has not run, if it was deleted, or after the garbage collector has cleared it.
 *   - The Python form handles all unusual cases: only the Python form refuses calls, and has the reasons.
 */
#ifndef PROXYWASM_NATIVE_H
#define PROXYWASM_NATIVE_H

#include "../include/proxywasm_host.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

enum { MAX_PARAMS = 16 }; /* of a hostcall or a callback */

/* Constants that Python has too. Their lists are in module.c and where these are; Python compares them on import. */
extern const Proxywasm_constant BUFFER_CONSTANTS[], CODE_CONSTANTS[], EXCHANGE_CONSTANTS[];
int add_pseudo_headers(PyObject *module); /* checked_headers.c */
enum { OK = 0, NOT_FOUND = 1, BAD_ARGUMENT = 2, INTERNAL_FAILURE = 10 };
enum { RECORDED = 64 * 1024, TEXT = 1024, FDS = 2, MAX_RANGES = 1024 };
enum { MAX_PAIRS_SIZE = 1024 * 1024, MAX_PAIRS = 1024 };
enum { U32, I32, U64, I64, BYTES, PAIRS, IOVECS, U32_OUT, U64_OUT, BYTES_OUT, PAIRS_OUT, BYTES_AT, STRINGS_AT, KINDS };

#define STOPPED 0xFFFFFFFFu

/* -- Objects that Python passes to this extension (module.c) -------------------------------------------------- */

typedef struct {
    PyObject *refusal;          /* marshal.Refusal */
    PyObject *restricted_call;  /* marshal.RestrictedCall */
    PyObject *read_pairs;       /* marshal.read_pairs */
    PyObject *encode;           /* pairs.encode */
    PyObject *no_memory;        /* a marshal.NoMemory */
    PyObject *not_done;         /* marshal.NOT_DONE */
    PyObject *handlers;         /* name → Python handler, which a native handler may replace */
    PyObject *inline_headers;   /* headers.INLINE */
    PyObject *not_found;        /* headers.not_found */
    PyObject *system_clock;     /* services.SystemClock */
    PyObject *http_context;     /* http_context.HttpContext */
    PyObject *filter_chain;     /* filter_chain.FilterChain */
    PyObject *http_stream;      /* http.HttpStream */
    PyObject *plugin;           /* plugin.Plugin */
    PyObject *headers_out[2];   /* effects.RequestHeaders, effects.ResponseHeaders */
    PyObject *body_out[2];      /* effects.RequestBody, effects.ResponseBody */
    PyObject *check_properties; /* values.check_properties */
    PyObject *header_limits;    /* fast_path.HEADER_LIMITS */
    PyObject *states;           /* the members of exchange_base.State */
    PyObject *request_head;     /* heads.RequestHead */
    PyObject *response_head;    /* heads.ResponseHead */
    PyObject *exchange_log;     /* exchange_base.logger */
} Known;

extern Known known;

/* -- Guest functions (callback.c) ------------------------------------------------------------------------------- */

typedef struct {
    PyObject *function;
    Proxywasm_callback native; /* call without Python, or NULL */
} Callback;

/* Returns 0, or -1 with an exception. `function` may be NULL. */
int callback_set(Callback *self, PyObject *function);
/* Call the function with arguments in `slots`, at least one, which receive the result. `function` is not NULL, and the
 * caller keeps it alive. Returns 0, or -1 with an exception. */
int callback_call(const Callback *self, uint64_t *slots, size_t count);

/* -- State (context.c, vm_base.c) --------------------------------------------------------------------------------- */

enum { STREAM_MAPS = 4, MAPS = 8, BUFFERS = 10 };

typedef struct {
    PyObject *list; /* has the items; if NULL, `item` has them, with NULL for None */
    PyObject *item[BUFFERS];
    uint8_t count;
} Places;

typedef struct {
    PyObject_HEAD
    PyObject *id, *root;
    Places maps, buffers;
    bool read_only;
} Context;

typedef enum {
    ON_CONTEXT_CREATE,
    ON_REQUEST_HEADERS,
    ON_RESPONSE_HEADERS,
    ON_REQUEST_BODY,
    ON_RESPONSE_BODY,
    ON_LOG,
    ON_DONE,
    ON_DELETE,
    KNOWN_CALLBACKS,
} Known_callback;

typedef struct {
    PyObject_HEAD
    PyObject *context, *idle, *deferred, *failure, *contexts, *callbacks;
    lenfunc length;                  /* returns the length of `deferred` */
    Callback known[KNOWN_CALLBACKS]; /* the elements of `callbacks` that C code calls */
    uint32_t next_context;
    bool stop_iteration, tells_end, changes_bodies, log_before_done, await_done;
} VmBase;

extern PyTypeObject ContextType, VmBaseType;

/* Initialise `self` as the context `id`, below `root` if that is not NULL. */
void context_begin(Context *self, PyObject *id, PyObject *root);
int context_traverse(Context *self, visitproc visit, void *arg);
int context_clear(Context *self);
/* A map or a buffer, borrowed; None if it does not exist. */
PyObject *place_get(const Places *places, size_t index);
int place_set(Places *places, size_t index, PyObject *value); /* returns 0, or -1 with an exception */
/* Use the items of a list, or none if it is NULL. The previous list remains unchanged for its other owners. */
void places_replace(Places *places, PyObject *list);

PyObject *vm_new_context_id(VmBase *self, PyObject *none);
/* Whether the guest has this callback and has not failed. */
bool vm_has(const VmBase *self, Known_callback which);
/* VmBase.enter with a callback for which `vm_has` is true: the first slot receives the result. Returns 0, or -1 with an
 * exception. */
int vm_tell(VmBase *self, PyObject *context, Known_callback which, uint64_t *slots, size_t count);

/* Whether `object` is a `type`; usually its class is `exactly`. */
static inline bool is_a(PyObject *object, PyObject *exactly, PyTypeObject *type) {
    return (PyObject *)Py_TYPE(object) == exactly || PyObject_TypeCheck(object, type);
}

static inline bool is_context(PyObject *object) { return object && is_a(object, known.http_context, &ContextType); }

/* -- Held bodies (held_body.c) --------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *bytes; /* NULL if there are none */
    size_t size;     /* number of bytes in use; the rest is spare capacity */
    bool is_shared;  /* other code has a reference to `bytes` */
} HeldBody;

extern PyTypeObject HeldBodyType;

/* The held bytes, a new reference; NULL with an exception. */
PyObject *held_share(HeldBody *self);
/* Replace `length` bytes from `start` on with `more` bytes of `data`, which is not in the body. Returns 0, or -1 with
 * an exception. */
int held_splice(HeldBody *self, size_t start, size_t length, const void *data, size_t more);

/* -- Functions for all types (module.c) ------------------------------------------------------------------------- */

/* Make the strings of a table of names. Returns 0, or -1 with an exception. */
typedef struct {
    PyObject **at;
    const char *text;
} Name;
int intern(const Name *names, size_t count);
#define INTERN(names) intern(names, sizeof(names) / sizeof *(names))

/* The parameters of a method. `take` fills `values`, one for each of `names`, with the arguments. Returns false with an
 * exception if they do not match. */
enum { MAX_NAMES = 6 };
typedef struct {
    const char *name;
    int by_position, required;
    const char *names[MAX_NAMES];
} Signature;
bool take(const Signature *function, PyObject *const *args, Py_ssize_t count, PyObject *keywords, PyObject **values);
/* The same for tp_init: CPython's function for it takes as long as everything else that makes an object. */
bool take_for_init(const Signature *function, PyObject *args, PyObject *keywords, PyObject **values);

/* A method that subclasses must override. */
PyObject *to_override(PyObject *self, PyObject *args);

/* A bool attribute that accepts any object; `at` is its offset. */
PyObject *get_flag(PyObject *self, void *at);
int set_flag(PyObject *self, PyObject *value, void *at);
#define PUBLIC_FLAG(type, name, doc) {#name, get_flag, set_flag, doc, (void *)offsetof(type, name)}
#define FLAG(type, name) PUBLIC_FLAG(type, name, NULL)

/* -- The common path of a request (fast_path.h) -------------------------------------------------------------------- */

extern PyTypeObject HttpContextBaseType, HostBaseType, FilterChainBaseType, PluginBaseType, HttpStreamBaseType;

/* -- Effects (outbox.c) ---------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *effects, *notified;
    unsigned long long drained;
} Outbox;

extern PyTypeObject OutboxType;

PyObject *outbox_drain(Outbox *self, PyObject *none);

/* -- Recorded calls (calls.c) --------------------------------------------------------------------------------- */

enum { KEY_SIZE = 104 }; /* longest key that is recorded without an object */

/* One hostcall. Calls of Python handlers are recorded as row, args and result. Calls of native handlers are recorded as
 * numbers and references; `make` converts them to args and result when they are read. */
typedef struct Call {
    PyObject *row, *args, *result;
    int (*make)(struct Call *call, PyObject **args, PyObject **result);
    uint64_t numbers[3];
    PyObject *first, *second;
    size_t key_size;
    char key[KEY_SIZE];
} Call;

typedef struct {
    PyObject_HEAD
    Py_ssize_t size, next;
    Call *ring;
} Calls;

extern PyTypeObject CallsType;

/* The oldest entry, emptied, for `row`. */
Call *calls_next(Calls *calls, PyObject *row);
/* (row, args, result) of the newest entry, which is removed; NULL with an exception. */
PyObject *calls_take_newest(Calls *calls);
/* Merge a call into the previous one, by the rules of marshal.Calls. Returns 1 if this was possible, 0 if not, or -1
 * with an exception. */
int calls_join(Calls *calls, PyObject *row, PyObject *args, PyObject *result);

/* -- Guest memory (guest.c) ----------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *memory, *record, *allowed, *allocator_may_call;
    Callback allocator;
    const Proxywasm_memory *range; /* `native_range` of the memory, or NULL */
    Calls *calls;  /* the last object whose `append` was `record`; never removed while a call may be active */
    bool is_quiet; /* `record` is its `append`: there is no listener */
} Guest;

extern PyTypeObject GuestType;

/* The current memory. `owner` keeps the view alive; `memory_done` releases it. */
typedef struct {
    uint8_t *at;
    size_t size;
    PyObject *owner;
} Memory;

int memory_open(Guest *guest, Memory *memory); /* returns 0, or -1 with an exception */
static inline void memory_done(Memory *memory) { Py_CLEAR(memory->owner); }

static inline uint32_t read_u32(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline bool inside(const Memory *memory, uint64_t at, uint64_t size) {
    return size <= memory->size && at <= memory->size - size;
}

/* Each returns GOOD; BAD, with the reason as a new string in `*why`; or FAILED, with an exception. Functions that read
 * a parameter may also return BEYOND: it is larger than allowed. */
enum { GOOD = 0, FAILED = -1, BAD = 1, BEYOND = 2 };

/* Check that a range is inside `memory`, which is open and is opened again if the guest's memory has grown. */
int guest_reach(Guest *guest, Memory *memory, uint64_t at, uint64_t size, PyObject **why);
int guest_put(Guest *guest, uint64_t at, uint64_t number, size_t width, PyObject **why);
int guest_put_at(Guest *guest, const void *from, size_t size, uint64_t at, PyObject **why);
int guest_put_strings(Guest *guest, PyObject *values, uint64_t table, uint64_t buffer, PyObject **why);
/* `from` is not in guest memory. */
int guest_put_bytes(Guest *guest, const void *from, size_t size, uint64_t address_slot, uint64_t size_slot,
                    bool optional, PyObject **why);
int guest_gather(Guest *guest, uint64_t at, uint64_t count, uint64_t most, PyObject **bytes, PyObject **why);
/* Raise RestrictedCall for a hostcall that is not in `allowed`. Returns 0, or -1 with an exception. */
int guest_check_allowed(Guest *guest, PyObject *name);

/* -- Header pairs (pairs.c) ----------------------------------------------------------------------------------- */

/* Decode bytes to a list. Returns NULL without an exception if they are malformed. */
PyObject *pairs_decode(PyObject *bytes);
/* Encode a list. Returns NULL without an exception if it is not a plain list of pairs of bytes. */
PyObject *pairs_encode(PyObject *list);
/* Get name and value of an entry of a list, borrowed. Returns false if it is not a plain pair of bytes. */
static inline bool pair_of(PyObject *list, Py_ssize_t index, PyObject **name, PyObject **value) {
    PyObject *pair = PyList_GET_ITEM(list, index);
    if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) return false;
    *name = PyTuple_GET_ITEM(pair, 0), *value = PyTuple_GET_ITEM(pair, 1);
    return PyBytes_CheckExact(*name) && PyBytes_CheckExact(*value);
}

static inline bool same_bytes(PyObject *a, PyObject *b) {
    return a == b || (PyBytes_GET_SIZE(a) == PyBytes_GET_SIZE(b) &&
                      !memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)PyBytes_GET_SIZE(a)));
}

/* -- Objects of Python classes with slots, made without a call of the class (record.c) --------------------------- */

enum { MAX_FIELDS = 6 };

/* The offsets of a class's fields; found at the first use. */
typedef struct {
    PyObject *class;
    Py_ssize_t at[MAX_FIELDS];
    bool found;
} Layout;

/* Make an object with these values in the fields of these names, in the order of the class's parameters. */
PyObject *make_record(Layout *layout, PyObject *class, PyObject *const *names, PyObject *const *values, int count);
/* A field of an object: by its index if the object has this class, otherwise by its name. */
PyObject *record_field(const Layout *layout, PyObject *object, int which, PyObject *name);

/* Make a function that sets slots of an object. The arguments are a class and its slot descriptors. */
PyObject *slot_setter(PyObject *module, PyObject *const *args, Py_ssize_t count);

/* -- Headers between HTTP libraries and filters (wire.c) ------------------------------------------------------- */

/* Each converts plain headers, or returns None if Python must do the work. */
PyObject *wire_received_request(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *wire_received_response(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *wire_sent_request(PyObject *module, PyObject *headers);
PyObject *wire_sent_response(PyObject *module, PyObject *headers);

/* -- Hostcalls (hostcall.c) ----------------------------------------------------------------------------------- */

typedef struct {
    uint8_t kind, slots;
    bool result, early, optional;
    bool cut;      /* bytes beyond `most` are cut off, and not refused */
    int64_t top;   /* the highest value of its enumeration, or -1 */
    uint64_t most; /* maximum number of bytes; 0 for no limit */
    PyObject *name;
} Param;

struct Hostcall;

/* Handles a hostcall. Returns its status; LEFT if the Python handler must handle it; or RAISED. `slots` is as in
 * `hostcall_entry`. */
typedef int64_t (*Native_handler)(struct Hostcall *call, const uint64_t *slots, size_t stride);
enum { LEFT = -2, RAISED = -1 };

typedef struct Hostcall {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Proxywasm_hostcall native; /* call without Python, for engines */
    PyObject *row, *name, *handler, *vm;
    Guest *guest;
    Native_handler native_handler;
    int64_t memory_error;
    bool inline_headers, splice_buffers, none_is_empty; /* flags of the profile; the last is ABI 0.1.0's quirk */
    int slots, params;
    Param param[MAX_PARAMS];
} Hostcall;

extern PyTypeObject HostcallType;

/* The entry for engines: `slots` has one value in every `stride` words. The caller holds the GIL and keeps `self`
 * alive. Returns the i32 result, or -1 with an exception set. */
int64_t hostcall_entry(void *self, const uint64_t *slots, size_t stride);

static inline uint32_t u32(const uint64_t *slots, size_t stride, size_t index) {
    return (uint32_t)slots[index * stride];
}

PyObject *refusal(int64_t status, PyObject *reason); /* makes a Refusal without values */

/* The status of a call of a native handler, after its result was written (`state` is GOOD) or refused. Takes over
 * `why`. */
int64_t handler_status(Hostcall *self, Call *call, int state, int64_t status, PyObject *why);

Native_handler header_handler(PyObject *name); /* headers.c; NULL if it does not exist */
Native_handler buffer_handler(PyObject *name); /* buffers.c */

/* Each makes the strings of its file. Returns 0, or -1 with an exception. */
int asgi_names(void);
int buffer_names(void);
int calls_names(void);
int context_names(void);
int vm_names(void);
int guest_names(void);
int headers_names(void);
int host_names(void);
int hostcall_names(void);
int chain_names(void);
int exchange_names(void);
int stream_names(void);
int wire_names(void);

/* -- Measuring a module's code (code_section.c) ------------------------------------------------------------------ */

PyObject *read_code(PyObject *module, PyObject *args);

#endif
