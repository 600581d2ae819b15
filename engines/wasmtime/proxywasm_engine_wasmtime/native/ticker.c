/* Advances the epoch of one engine while its guests run, in a thread unknown to Python. The thread ends after a second
 * without a call, and the next call starts another one. */
#include "native.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum { TICK = 5 * 1000 * 1000, QUIET_TICKS = 200 }; /* nanoseconds; ticks */

struct Ticker {
    PyObject_HEAD
    PyObject *engine; /* keeps `pointer` alive */
    void *pointer;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    pthread_t thread;
    bool made, stop; /* the thread exists and must be joined; it must end */
    atomic_bool running, used;
    unsigned generation;
};

static unsigned generation; /* incremented in a child process, which has no threads and locks in any state */
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER; /* guests that run without the GIL may start threads too */

static void in_child(void) {
    generation++;
    pthread_mutex_init(&starting, NULL);
}

int ticker_ready(void) {
    if (!pthread_atfork(NULL, NULL, in_child)) return 0;
    PyErr_NoMemory();
    return -1;
}

uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *run(void *ticker) {
    Ticker *self = ticker;
    int quiet = 0;
    pthread_mutex_lock(&self->lock);
    while (!self->stop && quiet < QUIET_TICKS) {
        uint64_t until = now() + TICK;
        struct timespec time = {.tv_sec = (time_t)(until / 1000000000u), .tv_nsec = (long)(until % 1000000000u)};
        while (!self->stop && pthread_cond_timedwait(&self->stopped, &self->lock, &time) != ETIMEDOUT) continue;
        api.engine_increment_epoch(self->pointer);
        quiet = atomic_exchange(&self->used, false) ? 0 : quiet + 1;
    }
    atomic_store(&self->running, false);
    pthread_mutex_unlock(&self->lock);
    /* A call that saw `running` before it was reset reaches this last epoch, and starts another thread. */
    api.engine_increment_epoch(self->pointer);
    return NULL;
}

static void prepare(Ticker *self) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    self->made = self->stop = false;
    atomic_store(&self->running, false);
    self->generation = generation;
}

static void start(Ticker *self) {
    pthread_mutex_lock(&starting);
    if (self->generation != generation) prepare(self);
    if (atomic_load(&self->running)) {
        pthread_mutex_unlock(&starting);
        return;
    }
    if (self->made) pthread_join(self->thread, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for Python's threads */
    atomic_store(&self->running, true);
    self->made = !pthread_create(&self->thread, NULL, run, self);
    if (!self->made) atomic_store(&self->running, false); /* the next call tries again */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_mutex_unlock(&starting);
}

void ticker_used(Ticker *self) {
    atomic_store_explicit(&self->used, true, memory_order_relaxed);
    if (!atomic_load_explicit(&self->running, memory_order_relaxed) || self->generation != generation) start(self);
}

static PyObject *ticker_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    PyObject *engine;
    unsigned long long pointer;
    if (!PyArg_ParseTuple(args, "OK:Ticker", &engine, &pointer)) return NULL;
    Ticker *self = (Ticker *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    self->engine = Py_NewRef(engine);
    self->pointer = (void *)(uintptr_t)pointer;
    prepare(self);
    return (PyObject *)self;
}

static void ticker_dealloc(Ticker *self) {
    if (self->made && self->generation == generation) {
        pthread_mutex_lock(&self->lock);
        self->stop = true;
        pthread_cond_signal(&self->stopped);
        pthread_mutex_unlock(&self->lock);
        pthread_join(self->thread, NULL);
    }
    Py_CLEAR(self->engine);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *ticker_running(Ticker *self, void *closure) {
    return PyBool_FromLong(self->generation == generation && atomic_load(&self->running));
}

static PyGetSetDef ticker_getset[] = {
    {"running", (getter)ticker_running, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject TickerType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_wasmtime._native.Ticker",
    .tp_basicsize = sizeof(Ticker),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = ticker_new,
    .tp_dealloc = (destructor)ticker_dealloc,
    .tp_getset = ticker_getset,
};
