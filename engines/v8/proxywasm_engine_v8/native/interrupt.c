/* A guest holds the GIL until it is interrupted: it checks its deadline and signals, and releases the GIL. */
#include "native.h"

static void let_go(Trampolines *self) { self->thread = PyEval_SaveThread(); }

void retake(Trampolines *self) {
    PyThreadState *thread = self->thread;
    if (!thread) return;
    PyEval_RestoreThread(thread);
    self->thread = NULL;
}

/* V8 calls this when the guest has run for some time. The request may also arrive later, while the host runs JavaScript
 * after releasing the GIL itself: then there is nothing to do. */
void trampolines_interrupt(void *isolate, void *unused) {
    ticker_answered(isolate);
    Trampolines *self = here.current;
    if (!self || self->affinity->isolate != isolate || self->depth <= 0 || self->is_interrupted) return;
    retake(self);
    self->is_interrupted = true;
    bool ends = false;
    if (PyErr_CheckSignals()) {
        keep_exception(self);
        self->page->failed = 1; /* so that it is noticed even if the guest returns at this moment */
        api.terminate(isolate);
        ends = true;
    } else if (self->until && self->until[0] && now() >= self->until[0]) {
        PyObject *done = PyObject_CallMethod(self->watch, "expire", NULL);
        Py_XDECREF(done);
        if (!done) keep_exception(self);
        ends = true;
    }
    self->is_interrupted = false;
    if (!ends) let_go(self);
}
