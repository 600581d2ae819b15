/* A guest that has run for some time checks its deadline and signals, and releases the GIL. */
#include "native.h"

enum { LOOKS = 10 }; /* epochs between two checks of signals, which need the GIL */

void *epoch_reached(void *context, void *environment, uint64_t *ticks, uint8_t *kind) {
    Trampolines *self = environment;
    ticker_used(self->ticker);
    if (self->allowed && now() >= self->until) {
        self->expired = true;
        return api.error_new("stopped by the host");
    }
    *ticks = 1;
    if (self->thread && ++self->epochs % LOOKS) return NULL;
    retake(self);
    if (PyErr_CheckSignals()) {
        Py_XSETREF(self->error, proxywasm_take_exception());
        return api.error_new("stopped by the host");
    }
    let_go(self);
    return NULL;
}
