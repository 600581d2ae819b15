/* Makes V8 interrupt running guests. A single thread, unknown to Python, serves all of them. It ends after a second
 * without a call, and the next call starts another one. */
#include "native.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

enum { TICK = 5 * 1000 * 1000, QUIET_TICKS = 200 }; /* nanoseconds; ticks */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list, and the start and end of the thread */
static Trampolines *first;
static atomic_bool running, needed;

/* No process forks while the thread requests an interrupt: the child would not have the thread, and a lock of V8 or the
 * allocator would remain taken. */
static void before_fork(void) { pthread_mutex_lock(&lock); }

static void in_parent(void) { pthread_mutex_unlock(&lock); }

static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    atomic_store(&running, false);
}

int ticker_ready(void) {
    if (!pthread_atfork(before_fork, in_parent, in_child)) return 0;
    PyErr_NoMemory();
    return -1;
}

double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Request an interrupt of each guest that has been in the same call since the last tick. */
static void tick(void) {
    for (Trampolines *each = first; each; each = each->next) {
        unsigned calls = atomic_load(&each->calls);
        if (atomic_load(&each->is_inside) && calls == each->seen && !atomic_exchange(&each->is_asked, true))
            api.interrupt(each->affinity->isolate, trampolines_interrupt, NULL);
        each->seen = calls;
    }
}

void ticker_answered(const void *isolate) {
    pthread_mutex_lock(&lock);
    for (Trampolines *each = first; each; each = each->next)
        if (each->affinity->isolate == isolate) atomic_store(&each->is_asked, false);
    pthread_mutex_unlock(&lock);
}

static void *run(void *unused) {
    const struct timespec pause = {.tv_nsec = TICK};
    for (int quiet = 0;;) {
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
        bool busy = atomic_exchange(&needed, false);
        for (Trampolines *each = first; each && !busy; each = each->next) busy = atomic_load(&each->is_inside);
        quiet = busy ? 0 : quiet + 1;
        if (quiet == QUIET_TICKS) break;
        tick();
        pthread_mutex_unlock(&lock);
    }
    atomic_store(&running, false);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void start(void) {
    pthread_mutex_lock(&lock);
    if (!atomic_load(&running)) {
        pthread_t thread;
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);     /* signals are for Python's threads */
        if (!pthread_create(&thread, NULL, run, NULL)) { /* otherwise the next call tries again */
            pthread_detach(thread);
            atomic_store(&running, true);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    pthread_mutex_unlock(&lock);
}

void ticker_needed(void) {
    atomic_store_explicit(&needed, true, memory_order_relaxed);
    if (!atomic_load(&running)) start();
}

bool ticker_runs(void) { return atomic_load(&running); }

void ticker_add(Trampolines *self) {
    pthread_mutex_lock(&lock);
    self->next = first;
    if (first) first->before = &self->next;
    self->before = &first;
    first = self;
    pthread_mutex_unlock(&lock);
}

void ticker_remove(Trampolines *self) {
    pthread_mutex_lock(&lock);
    if (self->before) {
        *self->before = self->next;
        if (self->next) self->next->before = self->before;
        self->before = NULL;
    }
    pthread_mutex_unlock(&lock);
}
