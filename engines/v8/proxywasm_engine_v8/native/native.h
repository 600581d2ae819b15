/* The trampolines of the route in the calling thread: the same as trampolines.py and in_thread/calls.py, in C.
 *
 * Rules:
 *   - A guest runs with the GIL held, for most calls last microseconds, and to let go and take it again at each
 *     crossing would cost much, and far more while other threads want it. One that is at work for longer is interrupted
 *     by V8 every few milliseconds (ticker.c): it looks at its deadline and at signals, and lets go of the GIL until it
 *     next calls the host or returns.
 *   - `depth` is 0 while nobody is in the guest, n > 0 while guest code runs n calls deep, -n while a host function
 *     runs that was called by the guest n deep: only the thread that the isolate belongs to may go in (thread_affinity.c).
 *   - All imports of all guests are one callback. Whose it is, `here.current` tells, and which import, the page.
 */
#ifndef PROXYWASM_V8_NATIVE_H
#define PROXYWASM_V8_NATIVE_H

#include <proxywasm_host.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Functions of V8's, found by Python code in the library of the wheel. */
typedef struct {
    void *(*call)(void *isolate, void *function, void *receiver, void **arguments, size_t count); /* NULL: it failed */
    void (*interrupt)(void *isolate, void (*callback)(void *isolate, void *data), void *data);
    void (*terminate)(void *isolate);
    void (*lock)(void *locker, void *isolate);
    void (*unlock)(void *locker);
    void (*enter)(void *isolate);
    void (*leave)(void *isolate);
    void (*enter_context)(void *context);
    void (*leave_context)(void *context);
    void (*set_stack_limit)(void *isolate, uintptr_t lowest);
    void *(*extend)(void *isolate); /* the handle scope's next place, in a new block if need be */
    void (*drop_handles)(void *isolate, void *same);
    void *(*current)(void);
    void (*be_in)(void *isolate, void *data); /* without noting where to come back to */
    void *(*thread_data)(void *isolate);      /* what it keeps for this thread */
} Api;

extern Api api;

/* Of the page of bridge.py. */
enum { PAGE = 65536, ARGUMENTS = 16, MAX_ARGUMENTS = 1000 };
static const uint64_t UNANSWERED = 0x7FF40B57A6E19D3C;
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

/* -- Which thread an isolate belongs to (thread_affinity.c) --------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    void *isolate, *context; /* the first is NULL when it is to be freed */
    Scope *scope;
    unsigned long thread; /* the number of the thread that has V8's lock and has entered the isolate, or 0 */
    void *data;           /* what V8 keeps for it */
    int inside;           /* how many uses of the isolate are under way within each other */
    _Alignas(16) char locker[64];
} Affinity;

typedef struct {
    struct Trampolines *current; /* whose guest runs, or has called the host */
    unsigned long number;        /* no other thread ever has it; or 0 */
    uintptr_t limit;             /* how far down V8 may go on its stack */
} Thread;

extern _Thread_local Thread here;
extern PyTypeObject AffinityType;

void affinity_use(PyObject *callable); /* what tells the limit of the thread that asks */
bool affinity_move(Affinity *self);    /* have it belong to this thread; or an exception is set */
void *affinity_enter(Affinity *self);  /* be in it; what it returns is for affinity_leave */
void affinity_leave(Affinity *self, void *outer);
PyObject *another_thread(void); /* sets the exception that says that one is inside */

static inline bool affinity_take(Affinity *self) {
    return (self->thread && self->thread == here.number) || affinity_move(self);
}

static inline bool affinity_is_elsewhere(const Affinity *self) { return self->inside && self->thread != here.number; }

/* -- The trampolines of an instance (trampolines.c, guest.c, host.c) ---------------------------------------------- */

enum { FEW = 16 }; /* arguments that need no memory of their own */

typedef struct {
    PyObject *call;
    Proxywasm_hostcall native; /* the way past Python, or NULL */
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
    PyThreadState *thread; /* while the guest runs without the GIL: whose it will be */
    PyObject *owner;       /* keeps all of that alive */
    PyObject *raised;      /* told what a host function raised */
    PyObject *problem;     /* (whether there is a result, nested) -> exception */
    PyObject *watch;       /* of in_thread/deadline.py, or NULL */
    double *until;         /* its two numbers: when to end, whether no further call may begin */
    double seconds;
    size_t hosts;
    Host *host;
    /* For the ticker: */
    struct Trampolines *next, **before;
    atomic_bool is_inside, is_asked; /* an outermost call is under way; V8 has been asked to interrupt it */
    atomic_uint calls;               /* how many there were */
    unsigned seen;                   /* of these, at the last tick */
} Trampolines;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Proxywasm_callback native; /* the way past Python */
    Trampolines *trampolines;
    void *function;
    char result;
    Py_ssize_t count;
    char *params;
} Guest;

extern PyTypeObject TrampolinesType, GuestType;

/* Another thread is inside. */
static inline bool trampolines_are_elsewhere(const Trampolines *self) {
    return self->depth > 0 || affinity_is_elsewhere(self->affinity);
}

PyObject *guest_new(Trampolines *trampolines, PyObject *type);
int host_init(Host *self, PyObject *call, PyObject *type);
void host_clear(Host *self);
void host_called(const void *info); /* a v8::FunctionCallback */

/* -- Values and exceptions (values.c, exceptions.c) ----------------------------------------------------------- */

int to_slot(char kind, PyObject *value, uint64_t *slot);
PyObject *from_slot(char kind, const uint64_t *slot);
int parse_type(PyObject *type, char **params, Py_ssize_t *count, char *result);
void keep_exception(Trampolines *self); /* the one that is set: the outermost call will raise it */

/* -- Interrupting guests at work (interrupt.c, ticker.c) ------------------------------------------------------ */

void retake(Trampolines *self);                          /* the GIL, if the guest has let go of it */
void trampolines_interrupt(void *isolate, void *unused); /* called by V8 on the guest's thread */
int ticker_ready(void);
void ticker_add(Trampolines *self);
void ticker_remove(Trampolines *self); /* the isolate may be freed from then on */
void ticker_needed(void);              /* to be called at each outermost call */
bool ticker_runs(void);
void ticker_answered(const void *isolate); /* its interrupt has come */
double now(void);                          /* seconds, as Python's monotonic() */

/* -- Reading code (bulk.c) ---------------------------------------------------------------------------------- */

PyObject *ranges_of(PyObject *module, PyObject *args);
PyObject *planned(PyObject *module, PyObject *args);
PyObject *joined(PyObject *module, PyObject *args);

#endif
