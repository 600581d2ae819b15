/* Keeps an isolate in one thread.
 *
 * To take V8's lock of an isolate, enter it, leave it and release the lock takes three times as long as a call. Threads
 * rarely take turns with one instance, so the lock stays taken and the isolate entered until another thread calls, or
 * the isolate is freed. Only V8's record of the thread's current isolate is set for each call and restored after it,
 * because a thread may have many isolates and may end without notice.
 *
 * The GIL, which all callers hold, and `inside` serialise the threads. So no thread ever waits for V8's lock, and one
 * thread may release it after another one has taken it.
 */
#include "native.h"

_Thread_local Thread here;
static PyObject *stack_limit; /* returns the lowest address that V8 may use on the calling thread's stack */

void affinity_use(PyObject *callable) { Py_XSETREF(stack_limit, Py_NewRef(callable)); }

/* Assign a number to this thread. Returns 0, or -1 with an exception. */
static int thread_arrives(void) {
    static unsigned long last;
    PyObject *limit = PyObject_CallNoArgs(stack_limit);
    if (!limit) return -1;
    here.limit = PyLong_AsSize_t(limit);
    Py_DECREF(limit);
    if (PyErr_Occurred()) return -1;
    here.number = ++last;
    return 0;
}

static void be_in(void *isolate) { api.be_in(isolate, isolate ? api.thread_data(isolate) : NULL); }

static void move_in(Affinity *self) {
    api.lock(self->locker, self->isolate);
    api.be_in(NULL, NULL); /* so that V8 does not record a previous isolate */
    api.enter(self->isolate);
    api.set_stack_limit(self->isolate, here.limit);
    self->data = api.thread_data(self->isolate);
    self->scope->level = 1;
    self->scope->next = (uint64_t)(uintptr_t)api.extend(self->isolate); /* a first block, for all later calls */
    api.enter_context(self->context);
    self->thread = here.number;
}

static void move_out(Affinity *self) {
    be_in(self->isolate);
    api.leave_context(self->context);
    self->scope->level = 0;
    self->scope->next = self->scope->limit = 0;
    api.drop_handles(self->isolate, self->isolate);
    api.leave(self->isolate);
    api.unlock(self->locker);
    self->thread = 0;
}

bool affinity_move(Affinity *self) {
    if (self->isolate && !here.number && thread_arrives()) return false;
    if (!self->isolate) return PyErr_SetString(PyExc_RuntimeError, "the instance is closed"), false;
    if (self->inside) return another_thread(), false;
    void *outer = api.current();
    if (self->thread) move_out(self);
    move_in(self);
    be_in(outer);
    return true;
}

void *affinity_enter(Affinity *self) {
    void *outer = api.current();
    if (outer != self->isolate) api.be_in(self->isolate, self->data);
    self->inside++;
    return outer;
}

void affinity_leave(Affinity *self, void *outer) {
    self->inside--;
    if (outer != self->isolate) be_in(outer);
}

PyObject *another_thread(void) {
    PyErr_SetString(PyExc_RuntimeError,
                    "another thread is inside this instance: one instance serves one thread at a time");
    return NULL;
}

/* -- The type ------------------------------------------------------------------------------------------------- */

/* Affinity(isolate, context, address of its handle scope) */
static int init(Affinity *self, PyObject *args, PyObject *keywords) {
    unsigned long long isolate, context, scope;
    if (self->isolate) return PyErr_SetString(PyExc_RuntimeError, "an affinity is made once"), -1;
    if (!PyArg_ParseTuple(args, "KKK:Affinity", &isolate, &context, &scope)) return -1;
    self->isolate = (void *)(uintptr_t)isolate, self->context = (void *)(uintptr_t)context;
    self->scope = (Scope *)(uintptr_t)scope;
    return 0;
}

/* enter(): enter the isolate in this thread. Returns the argument of leave(). Raises: RuntimeError if another thread is
 * inside. */
static PyObject *enter(Affinity *self, PyObject *unused) {
    return affinity_take(self) ? PyLong_FromVoidPtr(affinity_enter(self)) : NULL;
}

static PyObject *leave(Affinity *self, PyObject *outer) {
    void *isolate = PyLong_AsVoidPtr(outer);
    if (!isolate && PyErr_Occurred()) return NULL;
    if (!self->inside) return PyErr_SetString(PyExc_RuntimeError, "no thread is inside"), NULL;
    affinity_leave(self, isolate);
    Py_RETURN_NONE;
}

/* end(): leave the isolate for ever, before it is freed. */
static PyObject *end(Affinity *self, PyObject *unused) {
    if (self->thread) {
        void *outer = api.current();
        move_out(self);
        be_in(outer);
    }
    self->isolate = NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"enter", (PyCFunction)enter, METH_NOARGS, NULL},
    {"leave", (PyCFunction)leave, METH_O, NULL},
    {"end", (PyCFunction)end, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyTypeObject AffinityType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_v8._native.Affinity",
    .tp_basicsize = sizeof(Affinity),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)init,
    .tp_methods = methods,
};
