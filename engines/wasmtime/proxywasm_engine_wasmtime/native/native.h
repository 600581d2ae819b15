/* The trampolines of the `native` route: the C form of trampolines.py and deadline.py.
 *
 * Rules:
 *   - A guest runs with the GIL held: most calls last microseconds, and to release and retake the GIL at each crossing
 *     takes a tenth of a request, and more while other threads wait for it. When the epoch advances while a guest runs
 *     (every 5 ms, the switch interval of CPython), the guest releases the GIL until it next calls the host or returns.
 *     Code that does not check the epoch runs without the GIL from the start.
 *   - `depth` is 0 while no thread is in the guest, n > 0 while guest code runs n calls deep, -n while a host function
 *     runs that the guest called at depth n: only the thread `owner_thread` may enter the guest.
 */
#ifndef PROXYWASM_WASMTIME_NATIVE_H
#define PROXYWASM_WASMTIME_NATIVE_H

#include <proxywasm_values.h>
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

/* Functions of Wasmtime's C API. Python finds them in the wheel's library. */
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

/* -- Advancing the epoch (ticker.c) --------------------------------------------------------------------------- */

typedef struct Ticker Ticker;

extern PyTypeObject TickerType;

void ticker_used(Ticker *ticker); /* keeps the ticker running; must be called at each outermost call */
int ticker_ready(void);
uint64_t now(void); /* nanoseconds, monotonic */

/* -- The trampolines of an instance (trampolines.c, guest.c, host.c, epoch.c) ------------------------------------- */

enum { MAX_NESTED = 64 }; /* as in errors.py */
enum { FEW = 16 };        /* up to this number, arguments need no allocation */

typedef struct Host {
    struct Host *next;
    struct Trampolines *trampolines;
    PyObject *call;
    Proxywasm_hostcall native; /* call without Python, or NULL */
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
    uint64_t allowed, until; /* nanoseconds for each outermost call, or 0; the deadline of the active call */
    PyThreadState *thread;   /* while the guest runs without the GIL: the state to restore */
    PyObject *error;         /* the exception of a host function */
    PyObject *starting;      /* called with the caller at the first call of a host function */
    PyObject *failed;        /* (error, trap, expired) -> exception */
    PyObject *store;         /* kept alive */
    Ticker *ticker;
    Host *hosts;
} Trampolines;

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Proxywasm_callback native; /* call without Python */
    Trampolines *trampolines;
    Function function;
    char result;
    Py_ssize_t count;
    char *params;
} Guest;

extern PyTypeObject TrampolinesType, GuestType;

/* Set the functions to call before a guest is entered: of faulthandler, signals.py and stack.py. */
void trampolines_prepare(PyObject *is_enabled, PyObject *bring_forward, PyObject *check_stack);
bool trampolines_enter(Trampolines *self); /* false with an exception */
/* Return from the guest. Returns 0, or -1 with the exception of a failed call. */
int trampolines_leave(Trampolines *self, void *error, void *trap);
/* guest(params, result) -> (callable, address of its function) */
PyObject *guest_new(Trampolines *trampolines, PyObject *args);
/* host(call, params, result) -> address of the environment of its callback */
PyObject *host_new(Trampolines *trampolines, PyObject *args);
/* Callbacks for Wasmtime: a guest calls the host; the epoch has advanced while guest code runs. */
void *host_called(void *environment, void *caller, Slot *slots, size_t count);
void *epoch_reached(void *context, void *environment, uint64_t *ticks, uint8_t *kind);

static inline void let_go(Trampolines *self) { self->thread = PyEval_SaveThread(); }

static inline void retake(Trampolines *self) {
    PyThreadState *thread = self->thread;
    if (!thread) return;
    PyEval_RestoreThread(thread);
    self->thread = NULL;
}

#endif
