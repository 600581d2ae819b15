/* The imports of guests: a single callback of V8, which calls the host function whose number is in the page. */
#include "native.h"

/* Call the host function and write its answer to the page. Returns 0, or -1 with an exception. */
static int call_host(const Host *host, Page *page) {
    uint64_t few[FEW], answer = 0;
    if (host->native.call) { /* a copy, because nested calls overwrite the page */
        memcpy(few, page->arguments, host->count * sizeof *few);
        int64_t result = host->native.call(host->native.self, few, 1);
        if (result < 0) return -1;
        page->answer = (uint32_t)result;
        return 0;
    }
    char kind = host->result;
    PyObject *result = proxywasm_call(host->call, host->params, host->count, page->arguments, 1);
    if (!result) return -1;
    int failed = kind ? proxywasm_to_word(kind, result, &answer) : 0;
    Py_DECREF(result);
    if (failed) return -1;
    if (kind == 'I' || kind == 'F') page->arguments[0] = answer, answer = 0;
    page->answer = answer;
    return 0;
}

/* v8::FunctionCallback */
void host_called(const void *info) {
    Trampolines *self = here.current;
    Page *page = self->page;
    retake(self);
    self->depth = -self->depth;
    uint32_t index = page->index;
    if (PyErr_CheckSignals() || index >= self->hosts || call_host(&self->host[index], page)) {
        keep_exception(self);
        page->answer = UNANSWERED;
    }
    self->depth = -self->depth;
}

/* Use the `native_entry` of a host function, if it has one and its type allows it. */
static int find_entry(Host *host) {
    void *entry;
    if (proxywasm_find(host->call, "native_entry", PROXYWASM_HOSTCALL, &entry)) return -1;
    if (!entry) return 0;
    if (!proxywasm_are_integers(host->params, host->count)) return 0;
    if (host->count > FEW || (host->result && host->result != 'i')) return 0;
    host->native = *(Proxywasm_hostcall *)entry;
    return 0;
}

int host_init(Host *self, PyObject *call, PyObject *type) {
    Py_ssize_t count;
    if (parse_type(type, &self->params, &count, &self->result)) return -1;
    self->call = Py_NewRef(call);
    self->count = (size_t)count;
    return find_entry(self);
}

void host_clear(Host *self) {
    self->native.call = NULL;
    Py_CLEAR(self->call);
}
