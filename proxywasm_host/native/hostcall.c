/* The marshaller: abi/marshal.py has the rules, in the order in which this file applies them. */
#include "native.h"

static const uint8_t SLOTS[KINDS] = {1, 1, 1, 1, 2, 2, 2, 1, 1, 2, 2, 1, 2};

static PyObject *status_name;

PyObject *refusal(int64_t status, PyObject *reason) {
    return PyObject_CallFunction(known.refusal, "LO", (long long)status, reason);
}

/* Record a call. Takes over `result`. Returns 0, or -1 with an exception. */
static int record(Hostcall *self, PyObject *args, PyObject *result) {
    if (!result) return -1;
    Guest *guest = self->guest;
    if (guest->is_quiet) {
        int joined = calls_join(guest->calls, self->row, args, result);
        if (joined) {
            Py_DECREF(result);
            return joined < 0 ? -1 : 0;
        }
        Call *call = calls_next(guest->calls, self->row);
        call->args = Py_XNewRef(args);
        call->result = result;
        return 0;
    }
    PyObject *call = Py_BuildValue("(OON)", self->row, args ? args : Py_None, result);
    PyObject *done = call ? PyObject_CallOneArg(guest->record, call) : NULL;
    Py_XDECREF(call);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static int64_t status_of(PyObject *result) {
    PyObject *status = PyObject_GetAttr(result, status_name);
    if (!status) return -1;
    unsigned long long number = PyLong_AsUnsignedLongLongMask(status);
    Py_DECREF(status);
    return number == (unsigned long long)-1 && PyErr_Occurred() ? -1 : (int64_t)(uint32_t)number;
}

/* -- Inputs --------------------------------------------------------------------------------------------------- */

static int beyond_enumeration(Hostcall *self, const Param *param, uint32_t value) {
    PyObject *reason = PyUnicode_FromFormat("%U is {}, at most %d is known", param->name, (int)param->top);
    PyObject *found = reason ? PyObject_CallFunction(known.refusal, "iOI", BAD_ARGUMENT, reason, value) : NULL;
    Py_XDECREF(reason);
    return record(self, NULL, found);
}

/* Set the refusal of a parameter with too many bytes. */
static int beyond_most(Hostcall *self, const Param *param, uint32_t size) {
    PyObject *reason = PyUnicode_FromFormat("the %U has {} bytes, at most {} are taken", param->name);
    PyObject *found = reason ? PyObject_CallFunction(known.refusal, "iOIK", BAD_ARGUMENT, reason, size,
                                                     (unsigned long long)param->most)
                             : NULL;
    Py_XDECREF(reason);
    return record(self, NULL, found);
}

/* How many bytes of a parameter are read. */
static uint64_t taken(const Param *param, uint64_t size) {
    if (!param->most || size <= param->most) return size;
    return param->kind == PAIRS ? param->most + 1 : param->most; /* one byte too many, so that pairs are refused */
}

static int read_bytes(Guest *guest, const Param *param, uint64_t at, uint64_t size, PyObject **bytes, PyObject **why) {
    Memory memory;
    if (memory_open(guest, &memory)) return FAILED;
    int state = guest_reach(guest, &memory, at, size, why);
    if (state != GOOD) return state;
    if (taken(param, size) < size && param->kind == BYTES && !param->cut) {
        memory_done(&memory);
        return BEYOND;
    }
    *bytes = PyBytes_FromStringAndSize((const char *)memory.at + at, (Py_ssize_t)taken(param, size));
    memory_done(&memory);
    return *bytes ? GOOD : FAILED;
}

static int read_input(Guest *guest, const Param *param, const uint64_t *slots, size_t stride, PyObject **value,
                      PyObject **why) {
    uint64_t at = u32(slots, stride, 0), size = param->slots == 2 ? u32(slots, stride, 1) : 0;
    int state = GOOD;
    switch (param->kind) {
    case U32: *value = PyLong_FromUnsignedLong((uint32_t)at); break;
    case I32: *value = PyLong_FromLong((int32_t)(uint32_t)at); break;
    case U64: *value = PyLong_FromUnsignedLongLong(slots[0]); break;
    case I64: *value = PyLong_FromLongLong((int64_t)slots[0]); break;
    case BYTES: state = read_bytes(guest, param, at, size, value, why); break;
    case IOVECS: state = guest_gather(guest, at, size, param->most ? param->most : UINT64_MAX, value, why); break;
    case PAIRS: {
        PyObject *bytes = NULL;
        state = read_bytes(guest, param, at, size, &bytes, why);
        if (state != GOOD) break;
        *value = pairs_decode(bytes);
        if (!*value && !PyErr_Occurred()) *value = PyObject_CallOneArg(known.read_pairs, bytes);
        Py_DECREF(bytes);
    }
    }
    return state != GOOD ? state : *value ? GOOD : FAILED;
}

/* Shorten large arguments before they are recorded: a guest must not make the host store them. */
static PyObject *shortened(PyObject *args) {
    PyObject *cut = PyTuple_New(PyTuple_GET_SIZE(args));
    for (Py_ssize_t i = 0; cut && i < PyTuple_GET_SIZE(args); i++) {
        PyObject *value = PyTuple_GET_ITEM(args, i);
        PyObject *kept =
            PyBytes_Check(value) || PyList_Check(value) ? PySequence_GetSlice(value, 0, RECORDED) : Py_NewRef(value);
        PyTuple_SET_ITEM(cut, i, kept);
        if (!kept) Py_CLEAR(cut);
    }
    return cut;
}

/* -- Outputs -------------------------------------------------------------------------------------------------- */

static int put_number(Guest *guest, uint64_t at, PyObject *value, size_t width, PyObject **why) {
    unsigned long long number = PyLong_AsUnsignedLongLong(value);
    if (number == (unsigned long long)-1 && PyErr_Occurred()) return FAILED;
    if (width == 4 && number > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "a result of 32 bits is greater than that");
        return FAILED;
    }
    return guest_put(guest, at, number, width, why);
}

static int write_output(Guest *guest, const Param *param, PyObject *value, const uint64_t *slots, size_t stride,
                        PyObject **why) {
    uint64_t at = u32(slots, stride, 0), second = param->slots == 2 ? u32(slots, stride, 1) : 0;
    if (param->kind == U32_OUT) return put_number(guest, at, value, 4, why);
    if (param->kind == U64_OUT) return put_number(guest, at, value, 8, why);
    if (param->kind == STRINGS_AT) {
        if (PyList_Check(value)) return guest_put_strings(guest, value, at, second, why);
        PyErr_SetString(PyExc_TypeError, "a list of bytes was to be returned");
        return FAILED;
    }
    PyObject *bytes = NULL;
    if (param->kind == PAIRS_OUT) {
        bytes = pairs_encode(value);
        if (!bytes && !PyErr_Occurred()) bytes = PyObject_CallOneArg(known.encode, value);
        if (!bytes) return FAILED;
        value = bytes;
    }
    Py_buffer content;
    int state = FAILED;
    if (!PyObject_GetBuffer(value, &content, PyBUF_SIMPLE)) {
        state = param->kind == BYTES_AT
                    ? guest_put_at(guest, content.buf, (size_t)content.len, at, why)
                    : guest_put_bytes(guest, content.buf, (size_t)content.len, at, second, param->optional, why);
        PyBuffer_Release(&content);
    }
    Py_XDECREF(bytes);
    return state;
}

static int write_outputs(Hostcall *self, PyObject *result, int outputs, const uint64_t *slots, size_t stride,
                         PyObject **why) {
    const uint64_t *slot = slots;
    int index = 0, state = GOOD;
    for (int i = 0; i < self->params && state == GOOD; i++) {
        const Param *param = &self->param[i];
        if (param->result) {
            PyObject *value = outputs == 1 ? Py_NewRef(result) : PySequence_GetItem(result, index++);
            if (!value) return FAILED;
            state = write_output(self->guest, param, value, slot, stride, why);
            Py_DECREF(value);
        }
        slot += param->slots * stride;
    }
    return state;
}

/* A result in the form in which it is recorded. */
static PyObject *kept(const Param *output, int outputs, PyObject *result) {
    if (output->kind == PAIRS_OUT) return PySequence_List(result);
    if (output->kind == BYTES_OUT && outputs == 1 && PyObject_Size(result) > RECORDED)
        return PySequence_GetSlice(result, 0, RECORDED);
    return PyErr_Occurred() ? NULL : Py_NewRef(result);
}

/* -- A call --------------------------------------------------------------------------------------------------- */

/* Convert an exception of `known.not_done` that a handler has raised to a refusal; NULL for other exceptions. */
static PyObject *not_done(void) {
    if (!PyErr_ExceptionMatches(known.not_done)) return NULL;
    PyObject *error = proxywasm_take_exception(), *why = PyObject_Str(error);
    PyObject *found = why ? refusal(INTERNAL_FAILURE, why) : NULL;
    Py_XDECREF(why);
    Py_DECREF(error);
    return found;
}

/* Call the handler and write its results. `values` are its arguments, beginning with the VM; `args` is their recorded
 * form. */
static int64_t answer(Hostcall *self, PyObject *args, PyObject *const *values, size_t count, const uint64_t *slots,
                      size_t stride, PyObject **why, int *state) {
    const Param *output = NULL;
    int outputs = 0;
    const uint64_t *slot = slots;
    for (int i = 0; i < self->params; i++) {
        const Param *param = &self->param[i];
        if (param->result) {
            if (!outputs++) output = param;
            if (param->early && (*state = guest_put(self->guest, u32(slot, stride, 0), 0, 4, why)) != GOOD) return -1;
        }
        slot += param->slots * stride;
    }
    PyObject *result = PyObject_Vectorcall(self->handler, values, count, NULL);
    if (!result) result = not_done();
    int64_t status = -1;
    if (!result) {
        *state = FAILED;
    } else if (!outputs || Py_IS_TYPE(result, (PyTypeObject *)known.refusal)) {
        status = result == Py_None ? 0 : status_of(result);
        if (status < 0 || record(self, args, Py_NewRef(result))) *state = FAILED;
    } else if ((*state = write_outputs(self, result, outputs, slots, stride, why)) == GOOD) {
        if (record(self, args, kept(output, outputs, result))) *state = FAILED;
        status = 0;
    }
    Py_XDECREF(result);
    return *state == GOOD ? status : -1;
}

static int64_t marshal(Hostcall *self, const uint64_t *slots, size_t stride) {
    PyObject *values[MAX_PARAMS + 1], *args = NULL, *why = NULL;
    const uint64_t *slot = slots;
    for (int i = 0; i < self->params; slot += self->param[i++].slots * stride) {
        const Param *param = &self->param[i];
        if (param->top >= 0 && (uint32_t)slot[0] > param->top)
            return beyond_enumeration(self, param, (uint32_t)slot[0]) ? -1 : BAD_ARGUMENT;
    }
    int count = 1, state = GOOD;
    uint64_t total = 0;
    values[0] = self->vm;
    slot = slots;
    for (int i = 0; i < self->params && state == GOOD; slot += self->param[i++].slots * stride) {
        const Param *param = &self->param[i];
        if (param->result) continue;
        values[count] = NULL;
        state = read_input(self->guest, param, slot, stride, &values[count], &why);
        if (state == BEYOND && beyond_most(self, param, u32(slot, stride, 1))) state = FAILED;
        if (state != GOOD) break;
        if (param->kind == IOVECS) total += (uint64_t)PyBytes_GET_SIZE(values[count]);
        else if (param->slots == 2) total += u32(slot, stride, 1);
        count++;
    }
    int64_t status = state == BEYOND ? BAD_ARGUMENT : -1;
    if (state == GOOD) {
        args = PyTuple_New(count - 1);
        for (int i = 1; args && i < count; i++) PyTuple_SET_ITEM(args, i - 1, Py_NewRef(values[i]));
        if (args && total > RECORDED) Py_SETREF(args, shortened(args));
        if (args) status = answer(self, args, values, (size_t)count, slots, stride, &why, &state);
    }
    if (state == BAD) {
        status = self->memory_error;
        if (record(self, args, refusal(status, why))) status = -1;
    }
    for (int i = 1; i < count; i++) Py_DECREF(values[i]);
    Py_XDECREF(args);
    Py_XDECREF(why);
    return status;
}

/* Whether no argument of the guest is larger than allowed. */
static bool is_within(const Hostcall *self, const uint64_t *slots, size_t stride) {
    for (int i = 0; i < self->params; slots += self->param[i++].slots * stride)
        if (self->param[i].most && u32(slots, stride, 1) > self->param[i].most) return false;
    return true;
}

/* Pass the call that a native handler has recorded to the listener. Returns 0, or -1 with an exception. */
static int tell_listener(Guest *guest) {
    PyObject *call = calls_take_newest(guest->calls);
    PyObject *done = call ? PyObject_CallOneArg(guest->record, call) : NULL;
    Py_XDECREF(call);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

int64_t hostcall_entry(void *hostcall, const uint64_t *slots, size_t stride) {
    Hostcall *self = hostcall;
    Guest *guest = self->guest;
    if (!guest || !guest->allowed || !guest->memory || !guest->record || !guest->allocator_may_call) {
        PyErr_SetString(PyExc_RuntimeError, "the guest was never made, or is gone");
        return -1;
    }
    if (guest->allowed != Py_None && guest_check_allowed(guest, self->name)) return -1;
    if (self->native_handler && guest->calls && is_within(self, slots, stride)) {
        int64_t status = self->native_handler(self, slots, stride);
        if (status != LEFT) return status == RAISED || guest->is_quiet || !tell_listener(guest) ? status : RAISED;
    }
    return marshal(self, slots, stride);
}

static PyObject *hostcall_call(PyObject *hostcall, PyObject *const *args, size_t flags, PyObject *keywords) {
    Hostcall *self = (Hostcall *)hostcall;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    uint64_t slots[2 * MAX_PARAMS];
    if (count != self->slots || (keywords && PyTuple_GET_SIZE(keywords))) {
        PyErr_Format(PyExc_TypeError, "%U() takes %d numbers", self->name, self->slots);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        slots[i] = PyLong_AsUnsignedLongLongMask(args[i]);
        if (slots[i] == (uint64_t)-1 && PyErr_Occurred()) return NULL;
    }
    int64_t status = hostcall_entry(self, slots, 1);
    return status < 0 ? NULL : PyLong_FromLongLong(status);
}

/* -- The type ------------------------------------------------------------------------------------------------- */

static bool flag(PyObject *profile, const char *name) {
    PyObject *value = PyObject_GetAttrString(profile, name);
    bool set = value && PyObject_IsTrue(value) > 0;
    Py_XDECREF(value);
    return set;
}

/* Find a native handler. It replaces only our Python handler of the same name. */
static int find_native_handler(Hostcall *self) {
    if (!known.handlers || !PyObject_TypeCheck(self->vm, &VmBaseType)) return 0;
    if (PyDict_GetItemWithError(known.handlers, self->name) != self->handler) return PyErr_Occurred() ? -1 : 0;
    self->native_handler = header_handler(self->name);
    if (!self->native_handler) self->native_handler = buffer_handler(self->name);
    if (!self->native_handler) return 0;
    PyObject *profile = PyObject_GetAttrString(self->vm, "profile");
    if (!profile) return -1;
    self->inline_headers = flag(profile, "inline_headers");
    self->splice_buffers = flag(profile, "splice_buffers");
    Py_DECREF(profile);
    return PyErr_Occurred() ? -1 : 0;
}

static int fill(Hostcall *self, PyObject *args) {
    PyObject *row, *name, *plan, *handler, *vm, *guest;
    long long memory_error;
    int none_is_empty;
    self->vectorcall = hostcall_call;
    self->native = (Proxywasm_hostcall){hostcall_entry, self};
    if (!PyArg_ParseTuple(args, "OUO!LpOOO!:Hostcall", &row, &name, &PyTuple_Type, &plan, &memory_error, &none_is_empty,
                          &handler, &vm, &GuestType, &guest))
        return -1;
    if (PyTuple_GET_SIZE(plan) > MAX_PARAMS) return PyErr_SetString(PyExc_ValueError, "too many parameters"), -1;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(plan); i++) {
        Param *param = &self->param[i];
        PyObject *parameter;
        int kind, result, early, optional, cut;
        long long top;
        unsigned long long most;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(plan, i), "UipppLKp", &parameter, &kind, &result, &early, &optional,
                              &top, &most, &cut))
            return -1;
        if (kind < 0 || kind >= KINDS) return PyErr_SetString(PyExc_ValueError, "an unknown kind"), -1;
        param->name = Py_NewRef(parameter);
        param->kind = (uint8_t)kind, param->slots = SLOTS[kind], param->top = top;
        param->result = result, param->early = early, param->optional = optional, param->most = most, param->cut = cut;
        self->params++;
        self->slots += param->slots;
    }
    self->row = Py_NewRef(row), self->name = Py_NewRef(name), self->handler = Py_NewRef(handler);
    self->vm = Py_NewRef(vm), self->guest = (Guest *)Py_NewRef(guest);
    self->memory_error = memory_error, self->none_is_empty = none_is_empty;
    return find_native_handler(self);
}

static PyObject *hostcall_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    Hostcall *self = (Hostcall *)type->tp_alloc(type, 0);
    if (self && fill(self, args)) Py_CLEAR(self);
    return (PyObject *)self;
}

static int hostcall_traverse(Hostcall *self, visitproc visit, void *arg) {
    Py_VISIT(self->row);
    Py_VISIT(self->handler);
    Py_VISIT(self->vm);
    Py_VISIT(self->guest);
    return 0;
}

static int hostcall_clear(Hostcall *self) {
    self->native_handler = NULL;
    Py_CLEAR(self->guest);
    Py_CLEAR(self->vm);
    Py_CLEAR(self->handler);
    Py_CLEAR(self->row);
    return 0;
}

static void hostcall_dealloc(Hostcall *self) {
    PyObject_GC_UnTrack(self);
    hostcall_clear(self);
    Py_CLEAR(self->name);
    for (int i = 0; i < self->params; i++) Py_CLEAR(self->param[i].name);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *hostcall_repr(Hostcall *self) { return PyUnicode_FromFormat("<hostcall %U>", self->name); }

static PyObject *hostcall_native_entry(Hostcall *self, void *closure) {
    return PyCapsule_New(&self->native, PROXYWASM_HOSTCALL, NULL);
}

static PyGetSetDef hostcall_getset[] = {
    {"native_entry", (getter)hostcall_native_entry, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef hostcall_members[] = {
    {"__name__", T_OBJECT, offsetof(Hostcall, name), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject HostcallType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.Hostcall",
    .tp_basicsize = sizeof(Hostcall),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Hostcall, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_new = hostcall_new,
    .tp_dealloc = (destructor)hostcall_dealloc,
    .tp_traverse = (traverseproc)hostcall_traverse,
    .tp_clear = (inquiry)hostcall_clear,
    .tp_repr = (reprfunc)hostcall_repr,
    .tp_getset = hostcall_getset,
    .tp_members = hostcall_members,
};

int hostcall_names(void) {
    static const Name NAMES[] = {{&status_name, "status"}};
    return INTERN(NAMES);
}
