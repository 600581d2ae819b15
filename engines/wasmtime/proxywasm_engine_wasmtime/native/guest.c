/* Guest functions as Python callables, which C code may call without Python's numbers. */
#include "native.h"

/* Call the guest with arguments in `slots`, which receive the result. Returns 0, or -1 with an exception. */
static int run(Guest *self, Slot *slots) {
    Trampolines *trampolines = self->trampolines;
    if (!trampolines) return PyErr_SetString(PyExc_RuntimeError, "the instance is gone"), -1;
    Py_INCREF(trampolines); /* before the GIL may be released */
    int failed = -1;
    if (trampolines_enter(trampolines)) {
        void *trap = NULL;
        size_t held = (size_t)(self->count ? self->count : self->result != 0);
        void *error = api.func_call_unchecked(trampolines->context, &self->function, slots, held, &trap);
        failed = trampolines_leave(trampolines, error, trap);
    }
    Py_DECREF(trampolines);
    return failed;
}

static void wrong_number(const Guest *self, Py_ssize_t count) {
    PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", self->count, count);
}

static PyObject *guest_call(PyObject *guest, PyObject *const *args, size_t flags, PyObject *keywords) {
    Guest *self = (Guest *)guest;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    if (count != self->count || (keywords && PyTuple_GET_SIZE(keywords))) return wrong_number(self, count), NULL;
    Slot few[FEW], *slots = count <= FEW ? few : PyMem_Malloc((size_t)count * sizeof(Slot));
    if (!slots) return PyErr_NoMemory();
    int failed = 0;
    for (Py_ssize_t i = 0; i < count && !failed; i++)
        failed = proxywasm_to_word(self->params[i], args[i], &slots[i].i64);
    PyObject *result = failed || run(self, slots) ? NULL : proxywasm_from_word(self->result, slots->words);
    if (slots != few) PyMem_Free(slots);
    return result;
}

/* The function behind the attribute `native_call`, see the engine protocol. */
static int native_call(void *guest, uint64_t *words, size_t count) {
    Guest *self = guest;
    Slot slots[FEW];
    if ((Py_ssize_t)count != self->count) return wrong_number(self, (Py_ssize_t)count), -1;
    for (size_t i = 0; i < count; i++) slots[i].i64 = words[i];
    if (run(self, slots)) return -1;
    words[0] = self->result == 'i' ? slots[0].i32 : self->result ? slots[0].i64 : 0;
    return 0;
}

static PyObject *guest_native_call(PyObject *guest, void *closure) {
    const Guest *self = (Guest *)guest;
    bool fits = self->count <= FEW && proxywasm_are_integers(self->params, (size_t)self->count) &&
                proxywasm_are_integers(&self->result, 1);
    if (!fits) return PyErr_Format(PyExc_AttributeError, "a function of floats, or of many values");
    return PyCapsule_New((void *)&self->native, PROXYWASM_CALLBACK, NULL);
}

/* -- The type ------------------------------------------------------------------------------------------------- */

PyObject *guest_new(Trampolines *trampolines, PyObject *args) {
    const char *params, *result;
    Py_ssize_t count, results;
    if (!PyArg_ParseTuple(args, "s#s#", &params, &count, &result, &results)) return NULL;
    if (!proxywasm_are_types(params, count) || !proxywasm_are_types(result, results) || results > 1)
        return PyErr_SetString(PyExc_ValueError, "an unknown kind"), NULL;
    Guest *guest = PyObject_GC_New(Guest, &GuestType);
    if (!guest) return NULL;
    guest->vectorcall = guest_call;
    guest->native = (Proxywasm_callback){native_call, guest};
    guest->trampolines = (Trampolines *)Py_NewRef(trampolines);
    guest->function = (Function){{0, 0}};
    guest->result = *result;
    guest->count = count;
    guest->params = PyMem_Malloc((size_t)count + 1);
    PyObject_GC_Track(guest);
    if (!guest->params) {
        Py_DECREF(guest);
        return PyErr_NoMemory();
    }
    memcpy(guest->params, params, (size_t)count);
    return Py_BuildValue("(NK)", guest, (unsigned long long)(uintptr_t)&guest->function);
}

static int guest_traverse(Guest *self, visitproc visit, void *arg) {
    Py_VISIT(self->trampolines);
    return 0;
}

static int guest_clear(Guest *self) {
    Py_CLEAR(self->trampolines);
    return 0;
}

static void guest_dealloc(Guest *self) {
    PyObject_GC_UnTrack(self);
    guest_clear(self);
    PyMem_Free(self->params);
    PyObject_GC_Del(self);
}

static PyGetSetDef guest_getset[] = {
    {"native_call", guest_native_call, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject GuestType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_engine_wasmtime._native.Guest",
    .tp_basicsize = sizeof(Guest),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Guest, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dealloc = (destructor)guest_dealloc,
    .tp_traverse = (traverseproc)guest_traverse,
    .tp_clear = (inquiry)guest_clear,
    .tp_getset = guest_getset,
};
