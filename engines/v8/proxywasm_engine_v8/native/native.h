/* The crossings of the route in the calling thread: the same as crossings.py and in_thread/calls.py, in C.
 *
 * Rules:
 *   - A guest runs with the GIL held, for most calls last microseconds, and to let go and take it again at each
 *     crossing would cost much, and far more while other threads want it. One that is at work for longer is interrupted
 *     by V8 every few milliseconds (ticker.c): it looks at its deadline and at signals, and lets go of the GIL until it
 *     next calls the host or returns.
 *   - `depth` is 0 while nobody is in the guest, n > 0 while guest code runs n calls deep, -n while a host function
 *     runs that was called by the guest n deep: only the thread `home` may go in.
 *   - All imports of all guests are one callback. Whose it is, `current` tells, and which import, the page.
 */
#ifndef PROXYWASM_V8_NATIVE_H
#define PROXYWASM_V8_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define REVISION 2 /* as in in_thread/native.py */

/* Functions of V8's, found by Python code in the library of the wheel. */
typedef struct {
    void *(*call)(void *function, void *isolate, void *context, void *receiver, int count, void **arguments);
    void (*lock)(void *locker, void *isolate);
    void (*unlock)(void *locker);
    void (*enter)(void *isolate);
    void (*leave)(void *isolate);
    void (*drop_handles)(void *isolate, void *same);
    void (*interrupt)(void *isolate, void (*callback)(void *isolate, void *data), void *data);
    void (*terminate)(void *isolate);
} Api;

extern Api api;

/* Of the page of bridge.py. */
enum { PAGE = 65536, ARGUMENTS = 16, MOST_ARGUMENTS = 1000 };
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

/* What a hostcall's `native_entry` points at, see the engine protocol. */
typedef int64_t (*Entry)(void *self, const uint64_t *slots, size_t stride);

typedef struct {
    PyObject *call;
    Entry entry;
    void *self;
    char result; /* i I f F (i32 i64 f32 f64), or 0 */
    size_t count;
    char *params;
} Host;

typedef struct Crossings {
    PyObject_HEAD
    void *isolate, *locker, *context, *undefined;
    Scope *scope;
    Page *page;
    int depth;
    unsigned long home;
    bool closed, is_interrupted;
    int *visitors;         /* how many others are in the isolate or wait for it: they need the GIL to leave */
    PyThreadState *thread; /* while the guest runs without the GIL: whose it will be */
    PyObject *owner;       /* keeps all of that alive */
    PyObject *raised;      /* told what a host function raised */
    PyObject *problem;     /* (whether there is a result, nested) -> exception */
    PyObject *adopt;       /* called when another thread comes */
    PyObject *watch;       /* of in_thread/deadline.py, or NULL */
    double *until;         /* its two numbers: when to end, whether no further call may begin */
    double seconds;
    size_t hosts;
    Host *host;
    /* For the ticker: */
    struct Crossings *next, **before;
    atomic_bool is_inside, is_asked; /* an outermost call is under way; V8 has been asked to interrupt it */
    atomic_uint calls;               /* how many there were */
    unsigned seen;                   /* of these, at the last tick */
} Crossings;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Crossings *crossings;
    void *function;
    char result;
    Py_ssize_t count;
    char *params;
} Guest;

/* -- Interrupting guests at work (ticker.c) ------------------------------------------------------------------- */

int ticker_ready(void);
void ticker_add(Crossings *self);
void ticker_remove(Crossings *self); /* the isolate may be freed from then on */
void ticker_needed(void);            /* to be called at each outermost call */
bool ticker_runs(void);
void crossings_interrupt(void *isolate, void *unused); /* called by V8 on the guest's thread */
void ticker_answered(const void *isolate);             /* it has done so */
double now(void);                                      /* seconds, as Python's monotonic() */

#endif
