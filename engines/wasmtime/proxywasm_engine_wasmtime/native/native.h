/* The trampolines of the `native` route: the same as trampolines.py and deadline.py, in C.
 *
 * Rules:
 *   - A guest runs with the GIL held: most calls last microseconds, and to let go of it and take it again at each
 *     crossing costs a tenth of a request, and more while other threads want it. When the epoch moves on
 *     while a guest runs (every 5 ms, as long as CPython lets a thread run), it lets go of the GIL until it next
 *     calls the host or returns. Code that does not look at the epoch runs without the GIL from the start.
 *   - `depth` is 0 while nobody is in the guest, n > 0 while guest code runs n calls deep, -n while a host function
 *     runs that was called by the guest n deep: only the thread `owner_thread` may go in.
 */
#ifndef PROXYWASM_WASMTIME_NATIVE_H
#define PROXYWASM_WASMTIME_NATIVE_H

#include <proxywasm_host.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

/* wasmtime_val_raw_t: one value, little endian */
typedef union {
    uint32_t i32;
    uint64_t i64;
    float f32;
    double f64;
    uint64_t words[2];
} Slot;

/* wasmtime_func_t, of which only the size is known */
typedef struct {
    uint64_t words[2];
} Function;

/* Functions of Wasmtime's C API, found by Python code in the library of the wheel. */
typedef struct {
    void *(*func_call_unchecked)(void *context, const Function *function, Slot *slots, size_t count, void **trap);
    void *(*instance_new)(void *context, void *module, const void *imports, size_t count, void *instance, void **trap);
    void *(*trap_new)(const char *message, size_t size);
    void (*trap_delete)(void *trap);
    void *(*error_new)(const char *message);
    void (*error_delete)(void *error);
    void (*engine_increment_epoch)(void *engine);
} Api;

extern Api api;

/* -- Moving the epoch on (ticker.c) --------------------------------------------------------------------------- */

typedef struct Ticker Ticker;

extern PyTypeObject TickerType;

void ticker_used(Ticker *ticker); /* have it run; to be called at each outermost call */
int ticker_ready(void);
uint64_t now(void); /* nanoseconds, monotonic */

/* -- The trampolines of an instance (trampolines.c, guest.c, host.c, epoch.c) ------------------------------------- */

enum { FEW = 16 }; /* arguments that need no memory of their own */

typedef struct Host {
    struct Host *next;
    struct Trampolines *trampolines;
    PyObject *call;
    Proxywasm_hostcall native; /* the way past Python, or NULL */
    char result;               /* i I f F (i32 i64 f32 f64), or 0 */
    size_t count;
    char params[];
} Host;

typedef struct Trampolines {
    PyObject_HEAD
    void *context;
    int depth;
    unsigned long owner_thread;
    bool closed, holds, expired;
    unsigned epochs;
    uint64_t allowed, until; /* nanoseconds for each outermost call, or 0; and when this one's are over */
    PyThreadState *thread;   /* while the guest runs without the GIL: whose it will be */
    PyObject *error;         /* what a host function raised */
    PyObject *starting;      /* called with the caller when the first host function is called */
    PyObject *failed;        /* (error, trap, expired) -> exception */
    PyObject *store;         /* what has to live as long */
    Ticker *ticker;
    Host *hosts;
} Trampolines;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Proxywasm_callback native; /* the way past Python */
    Trampolines *trampolines;
    Function function;
    char result;
    Py_ssize_t count;
    char *params;
} Guest;

extern PyTypeObject TrampolinesType, GuestType;

/* What is called before a guest is entered: faulthandler.is_enabled, and functions of signals.py and stack.py. */
void trampolines_prepare(PyObject *is_enabled, PyObject *bring_forward, PyObject *check_stack);
bool trampolines_enter(Trampolines *self); /* or an exception is set */
/* Back from the guest. 0, or -1 with the exception of what went wrong. */
int trampolines_leave(Trampolines *self, void *error, void *trap);
/* guest(params, result) -> (callable, address of its function) */
PyObject *guest_new(Trampolines *trampolines, PyObject *args);
/* host(call, params, result) -> address of the environment of its callback */
PyObject *host_new(Trampolines *trampolines, PyObject *args);
/* Wasmtime's callbacks: a guest calls the host; the epoch has moved on while guest code runs. */
void *host_called(void *environment, void *caller, Slot *slots, size_t count);
void *epoch_reached(void *context, void *environment, uint64_t *ticks, uint8_t *kind);

static inline void let_go(Trampolines *self) { self->thread = PyEval_SaveThread(); }

static inline void retake(Trampolines *self) {
    PyThreadState *thread = self->thread;
    if (!thread) return;
    PyEval_RestoreThread(thread);
    self->thread = NULL;
}

/* -- Values (values.c) ---------------------------------------------------------------------------------------- */

int to_slot(char kind, PyObject *value, Slot *slot); /* 0, or -1 with an exception */
PyObject *from_slot(char kind, const Slot *slot);
bool are_kinds(const char *kinds, Py_ssize_t size); /* a string of the letters of kinds */

#endif
