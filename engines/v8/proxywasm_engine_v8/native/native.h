/* The trampolines of the route in the calling thread: the C form of trampolines.py and in_thread/calls.py.
 *
 * Rules:
 *   - A guest runs with the GIL held: most calls last microseconds, and to release and retake the GIL at each crossing
 *     would be slow, above all while other threads wait for it. V8 interrupts a guest that runs longer every few
 *     milliseconds (ticker.c): the guest checks its deadline and signals, and releases the GIL until it next calls the
 *     host or returns.
 *   - `depth` is 0 while no thread is in the guest, n > 0 while guest code runs n calls deep, -n while a host function
 *     runs that the guest called at depth n: only the thread that owns the isolate may enter it (thread_affinity.c).
 *   - All imports of all guests share one callback. `here.current` is the instance that calls, and the page has the
 *     number of the import.
 */
#ifndef PROXYWASM_V8_NATIVE_H
#define PROXYWASM_V8_NATIVE_H

#include <proxywasm_values.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Functions of V8. Python finds them in the wheel's library. */
typedef struct {
    void *(*call)(void *isolate, void *function, void *receiver, void **arguments, size_t count); /* NULL: failed */
    void (*interrupt)(void *isolate, void (*callback)(void *isolate, void *data), void *data);
    void (*terminate)(void *isolate);
    void (*lock)(void *locker, void *isolate);
    void (*unlock)(void *locker);
    void (*enter)(void *isolate);
    void (*leave)(void *isolate);
    void (*enter_context)(void *context);
    void (*leave_context)(void *context);
    void (*set_stack_limit)(void *isolate, uintptr_t lowest);
    void *(*extend)(void *isolate); /* returns the handle scope's next slot, in a new block if necessary */
    void (*drop_handles)(void *isolate, void *same);
    void *(*current)(void);
    void (*be_in)(void *isolate, void *data); /* without recording the previous isolate */
    void *(*thread_data)(void *isolate);      /* V8's data of this thread in the isolate */
} Api;

extern Api api;

/* The page, as in bridge.py. */
enum { PAGE = 65536, ARGUMENTS = 16 };
#define UNANSWERED UINT64_C(0x7FF40B57A6E19D3C) /* as in bridge.py */
enum { MAX_ARGUMENTS = 1000 };
typedef struct {
    uint32_t failed, index;
    uint64_t answer;
    uint64_t arguments[(PAGE - ARGUMENTS) / 8];
} Page;

/* An isolate's handle scope. */
typedef struct {
    uint64_t next, limit;
    int level, sealed;
} Scope;

/* -- The thread of an isolate (thread_affinity.c) --------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    void *isolate, *context; /* `isolate` is NULL after end() */
    Scope *scope;
    unsigned long thread; /* `Thread.number` of the thread that has V8's lock and has entered the isolate, or 0 */
    void *data;           /* V8's data of this thread */
    int inside;           /* depth of nested uses of the isolate */
    _Alignas(16) char locker[64];
} Affinity;

typedef struct {
    struct Trampolines *current; /* the instance whose guest runs, or has called the host */
    unsigned long number;        /* unique among all threads so far; 0 until assigned */
    uintptr_t limit;             /* the lowest address that V8 may use on its stack */
} Thread;

extern _Thread_local Thread here;
extern PyTypeObject AffinityType;

void affinity_use(PyObject *callable); /* returns the stack limit of the calling thread */
bool affinity_move(Affinity *self);    /* makes this thread the owner; or sets an exception */
void *affinity_enter(Affinity *self);  /* enters the isolate; returns the argument of affinity_leave */
void affinity_leave(Affinity *self, void *outer);
PyObject *another_thread(void); /* sets the exception: another thread is inside */

static inline bool affinity_take(Affinity *self) {
    return (self->thread && self->thread == here.number) || affinity_move(self);
}

static inline bool affinity_is_elsewhere(const Affinity *self) { return self->inside && self->thread != here.number; }

/* -- The trampolines of an instance (trampolines.c, guest.c, host.c) ---------------------------------------------- */

enum { MAX_NESTED = 64 }; /* as in errors.py */
enum { FEW = 16 };        /* up to this number, arguments need no allocation */

typedef struct {
    PyObject *call;
    Proxywasm_hostcall native; /* call without Python, or NULL */
    char result;               /* i I f F (i32 i64 f32 f64), or 0 */
    size_t count;
    char *params;
} Host;

typedef struct Trampolines {
    PyObject_HEAD
    Affinity *affinity;
    void *undefined;
    Page *page;
    int depth;
    bool closed, is_interrupted;
    PyThreadState *thread; /* while the guest runs without the GIL: the state to restore */
    PyObject *owner;       /* keeps everything the pointers refer to alive */
    PyObject *raised;      /* called with the exception of a host function */
    PyObject *problem;     /* (result or None, nested) -> exception */
    PyObject *watch;       /* `Watch` of in_thread/deadline.py, or NULL */
    double *until;         /* `Watch.numbers`: when the call must end, whether nested calls are refused */
    double seconds;
    size_t hosts;
    Host *host;
    /* For the ticker: */
    struct Trampolines *next, **before;
    atomic_bool is_inside, is_asked; /* an outermost call is active; its interrupt has been requested */
    atomic_uint calls;               /* number of outermost calls so far */
    unsigned seen;                   /* `calls` at the last tick */
} Trampolines;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Proxywasm_callback native; /* call without Python */
    Trampolines *trampolines;
    void *function;
    char result;
    Py_ssize_t count;
    char *params;
} Guest;

extern PyTypeObject TrampolinesType, GuestType;

/* Whether another thread is inside. */
static inline bool trampolines_are_elsewhere(const Trampolines *self) {
    return self->depth > 0 || affinity_is_elsewhere(self->affinity);
}

PyObject *guest_new(Trampolines *trampolines, PyObject *type);
int host_init(Host *self, PyObject *call, PyObject *type);
void host_clear(Host *self);
void host_called(const void *info); /* a v8::FunctionCallback */

/* -- Types and exceptions (types.c, exceptions.c) ----------------------------------------------------------- */

int parse_type(PyObject *type, char **params, Py_ssize_t *count, char *result);
void keep_exception(Trampolines *self); /* takes the current exception; the outermost call will raise it */

/* -- Interrupting running guests (interrupt.c, ticker.c) ------------------------------------------------------ */

void retake(Trampolines *self);                          /* retakes the GIL, if the guest has released it */
void trampolines_interrupt(void *isolate, void *unused); /* called by V8 on the guest's thread */
int ticker_ready(void);
void ticker_add(Trampolines *self);
void ticker_remove(Trampolines *self); /* afterwards the isolate may be freed */
void ticker_needed(void);              /* must be called at each outermost call */
bool ticker_runs(void);
void ticker_answered(const void *isolate); /* its interrupt has arrived */
double now(void);                          /* seconds, as Python's monotonic() */

/* -- Reading code (bulk.c) ---------------------------------------------------------------------------------- */

enum { MAX_BITS = 70 };                   /* in 10 bytes, as in reader.py */
enum { LARGE = 2 << 10, MOST = 1 << 20 }; /* as in bulk.py */

PyObject *ranges_of(PyObject *module, PyObject *args);
PyObject *planned(PyObject *module, PyObject *args);
PyObject *joined(PyObject *module, PyObject *args);

#endif
