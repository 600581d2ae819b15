/* The guest's side of the marshaller: memory and allocator. The rules and their reasons are in abi/marshal.py. */
#include "native.h"

#include <stdio.h>

static PyObject *view_name, *refresh_name;

int memory_open(Guest *guest, Memory *memory) {
    if (guest->range) {
        memory->at = (uint8_t *)(uintptr_t)guest->range->bytes, memory->size = (size_t)guest->range->size;
        memory->owner = NULL;
        return GOOD;
    }
    PyObject *found = PyObject_GetAttr(guest->memory, view_name);
    if (!found) return FAILED;
    if (!PyMemoryView_Check(found)) {
        PyErr_Format(PyExc_TypeError, "the view of a memory is a memoryview, not a %s", Py_TYPE(found)->tp_name);
        Py_DECREF(found);
        return FAILED;
    }
    PyMemoryViewObject *view = (PyMemoryViewObject *)found;
    if (view->flags & _Py_MEMORYVIEW_RELEASED || view->mbuf->flags & _Py_MANAGED_BUFFER_RELEASED) {
        PyErr_SetString(PyExc_ValueError, "operation forbidden on released memoryview object");
        Py_DECREF(found);
        return FAILED;
    }
    Py_buffer *buffer = &view->view;
    if (buffer->readonly || buffer->itemsize != 1 || buffer->ndim != 1 ||
        (buffer->strides && buffer->strides[0] != 1)) {
        PyErr_SetString(PyExc_TypeError, "the view of a memory shows single bytes in a row, and is writable");
        Py_DECREF(found);
        return FAILED;
    }
    memory->at = buffer->buf, memory->size = (size_t)buffer->len, memory->owner = found;
    return GOOD;
}

static PyObject *text(const char *format, uint64_t first, uint64_t second, uint64_t third) {
    char buffer[160];
    snprintf(buffer, sizeof buffer, format, (unsigned long long)first, (unsigned long long)second,
             (unsigned long long)third);
    return PyUnicode_FromString(buffer);
}

static int bad(PyObject **why, PyObject *reason) {
    *why = reason;
    return reason ? BAD : FAILED;
}

int guest_reach(Guest *guest, Memory *memory, uint64_t at, uint64_t size, PyObject **why) {
    if (inside(memory, at, size)) return GOOD;
    memory_done(memory);
    PyObject *grown = PyObject_CallMethodNoArgs(guest->memory, refresh_name);
    if (!grown) return FAILED;
    Py_DECREF(grown);
    if (memory_open(guest, memory)) return FAILED;
    if (inside(memory, at, size)) return GOOD;
    size_t held = memory->size;
    memory_done(memory);
    return bad(why, text("%llu bytes at 0x%llx are outside of the memory of %llu bytes", size, at, held));
}

static void write_number(uint8_t *at, uint64_t number, size_t width) {
    for (size_t i = 0; i < width; i++) at[i] = (uint8_t)(number >> 8 * i);
}

int guest_put(Guest *guest, uint64_t at, uint64_t number, size_t width, PyObject **why) {
    Memory memory;
    if (memory_open(guest, &memory)) return FAILED;
    int state = guest_reach(guest, &memory, at, width, why);
    if (state == GOOD) {
        write_number(memory.at + at, number, width);
        memory_done(&memory);
    }
    return state;
}

int guest_put_at(Guest *guest, const void *from, size_t size, uint64_t at, PyObject **why) {
    if (!size) return GOOD;
    Memory memory;
    if (memory_open(guest, &memory)) return FAILED;
    int state = guest_reach(guest, &memory, at, size, why);
    if (state == GOOD) {
        memcpy(memory.at + at, from, size);
        memory_done(&memory);
    }
    return state;
}

int guest_put_strings(Guest *guest, PyObject *values, uint64_t table, uint64_t buffer, PyObject **why) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(values); i++) {
        PyObject *value = PyList_GET_ITEM(values, i);
        if (!PyBytes_Check(value)) {
            PyErr_SetString(PyExc_TypeError, "a list of bytes was to be returned");
            return FAILED;
        }
        Py_INCREF(value);
        size_t size = (size_t)PyBytes_GET_SIZE(value);
        int state = guest_put(guest, table, buffer, 4, why);
        if (state == GOOD) state = guest_put_at(guest, PyBytes_AS_STRING(value), size, buffer, why);
        Py_DECREF(value);
        if (state != GOOD) return state;
        table += 4, buffer += size;
    }
    return GOOD;
}

int guest_gather(Guest *guest, uint64_t at, uint64_t count, uint64_t most, PyObject **bytes, PyObject **why) {
    Memory memory;
    if (memory_open(guest, &memory)) return FAILED;
    int state = guest_reach(guest, &memory, at, 8 * count, why);
    if (state != GOOD) return state;
    uint64_t ranges = count < MAX_RANGES ? count : MAX_RANGES, total = 0;
    for (uint64_t i = 0; i < ranges; i++) { /* memory only grows, so a checked range remains valid */
        const uint8_t *range = memory.at + at + 8 * i;
        uint32_t address = read_u32(range), size = read_u32(range + 4);
        state = guest_reach(guest, &memory, address, size, why);
        if (state != GOOD) return state;
        total += size;
        if (total > memory.size) {
            size_t held = memory.size;
            memory_done(&memory);
            return bad(why, text("the ranges have more bytes than the memory, which has %llu", held, 0, 0));
        }
    }
    uint64_t left = total < most ? total : most;
    *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)left);
    char *to = *bytes ? PyBytes_AS_STRING(*bytes) : NULL;
    for (uint64_t i = 0; to && i < ranges; i++) {
        const uint8_t *range = memory.at + at + 8 * i;
        uint64_t size = read_u32(range + 4);
        if (size > left) size = left;
        memcpy(to, memory.at + read_u32(range), size);
        to += size;
        left -= size;
    }
    memory_done(&memory);
    return *bytes ? GOOD : FAILED;
}

/* Allocate guest memory for a result of `size` bytes, at `*address`; `memory` is open afterwards. */
static int allocate(Guest *guest, size_t size, uint64_t *address, Memory *memory, PyObject **why) {
    Callback allocator = guest->allocator;
    if (!allocator.function) return bad(why, text("the guest has no allocator yet", 0, 0, 0));
    PyObject *outer = guest->allowed;
    Py_INCREF(allocator.function);
    guest->allowed = Py_XNewRef(guest->allocator_may_call);
    uint64_t slot = size;
    int failed = callback_call(&allocator, &slot, 1);
    Py_XSETREF(guest->allowed, outer);
    Py_DECREF(allocator.function);
    if (failed) return FAILED;
    *address = slot;
    if (!*address) return bad(why, text("the guest's allocator returned no memory for %llu bytes", size, 0, 0));
    if (memory_open(guest, memory)) return FAILED;
    return guest_reach(guest, memory, *address, size, why);
}

int guest_put_bytes(Guest *guest, const void *from, size_t size, uint64_t address_slot, uint64_t size_slot,
                    bool optional, PyObject **why) {
    if (optional && !address_slot && !size_slot) return GOOD;
    Memory memory;
    uint64_t address = 0;
    int state;
    if (size) {
        state = allocate(guest, size, &address, &memory, why);
        if (state != GOOD) return state;
        memcpy(memory.at + address, from, size);
    } else if (memory_open(guest, &memory)) {
        return FAILED;
    }
    uint64_t slots[2] = {address_slot, size_slot}, numbers[2] = {address, size};
    for (int i = 0; i < 2; i++) {
        if (optional && !slots[i]) continue;
        state = guest_reach(guest, &memory, slots[i], 4, why);
        if (state != GOOD) return state;
        write_number(memory.at + slots[i], numbers[i], 4);
    }
    memory_done(&memory);
    return GOOD;
}

int guest_check_allowed(Guest *guest, PyObject *name) {
    PyObject *allowed = Py_NewRef(guest->allowed);
    int may = PySequence_Contains(allowed, name);
    Py_DECREF(allowed);
    if (!may)
        PyErr_Format(known.restricted_call,
                     "%U was called where it may not be (in the allocator, or while the module starts)", name);
    return may > 0 ? GOOD : FAILED;
}

/* -- The type ------------------------------------------------------------------------------------------------- */

static int guest_set_memory(Guest *self, PyObject *memory, void *closure) {
    if (!memory) return PyErr_SetString(PyExc_AttributeError, "a guest has a memory"), -1;
    void *range;
    if (proxywasm_find(memory, "native_range", PROXYWASM_MEMORY, &range)) return -1;
    self->range = range;
    Py_XSETREF(self->memory, Py_NewRef(memory));
    return 0;
}

static PyObject *guest_get_memory(Guest *self, void *closure) {
    return Py_NewRef(self->memory ? self->memory : Py_None);
}

static int guest_set_record(Guest *self, PyObject *record, void *closure) {
    if (!record) return PyErr_SetString(PyExc_AttributeError, "a guest has a record"), -1;
    PyObject *owner = PyCFunction_Check(record) ? PyCFunction_GET_SELF(record) : NULL;
    self->is_quiet = owner && Py_IS_TYPE(owner, &CallsType);
    if (self->is_quiet) Py_XSETREF(self->calls, (Calls *)Py_NewRef(owner));
    Py_XSETREF(self->record, Py_NewRef(record));
    return 0;
}

static PyObject *guest_get_record(Guest *self, void *closure) {
    return Py_NewRef(self->record ? self->record : Py_None);
}

static int guest_init(Guest *self, PyObject *args, PyObject *keywords) {
    static char *names[] = {"record", "allocator_may_call", NULL};
    PyObject *record, *allocator_may_call;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "OO:Guest", names, &record, &allocator_may_call)) return -1;
    guest_set_record(self, record, NULL);
    Py_XSETREF(self->allocator_may_call, Py_NewRef(allocator_may_call));
    Py_XSETREF(self->allowed, Py_NewRef(Py_None));
    return guest_set_memory(self, known.no_memory, NULL);
}

static int guest_traverse(Guest *self, visitproc visit, void *arg) {
    Py_VISIT(self->memory);
    Py_VISIT(self->record);
    Py_VISIT(self->allowed);
    Py_VISIT(self->allocator_may_call);
    Py_VISIT(self->allocator.function);
    Py_VISIT(self->calls);
    return 0;
}

static int guest_clear(Guest *self) {
    self->range = NULL;
    Py_CLEAR(self->memory);
    Py_CLEAR(self->record);
    Py_CLEAR(self->allowed);
    Py_CLEAR(self->allocator_may_call);
    callback_set(&self->allocator, NULL);
    Py_CLEAR(self->calls);
    return 0;
}

static void guest_dealloc(Guest *self) {
    PyObject_GC_UnTrack(self);
    guest_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *guest_use_allocator(Guest *self, PyObject *allocator) {
    if (callback_set(&self->allocator, allocator)) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef guest_methods[] = {
    {"use_allocator", (PyCFunction)guest_use_allocator, METH_O,
     "use_allocator($self, allocator, /)\n--\n\n"
     "Set the allocator, which is needed to return results."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef guest_members[] = {
    {"allowed", T_OBJECT_EX, offsetof(Guest, allowed), 0, NULL},
    {"allocator_may_call", T_OBJECT_EX, offsetof(Guest, allocator_may_call), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef guest_getset[] = {
    {"memory", (getter)guest_get_memory, (setter)guest_set_memory, NULL, NULL},
    {"record", (getter)guest_get_record, (setter)guest_set_record, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject GuestType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "proxywasm_host._native.Guest",
    .tp_doc = "The guest's side of the marshaller: its memory, its allocator, and the hostcalls that it may make now.",
    .tp_basicsize = sizeof(Guest),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)guest_init,
    .tp_dealloc = (destructor)guest_dealloc,
    .tp_traverse = (traverseproc)guest_traverse,
    .tp_clear = (inquiry)guest_clear,
    .tp_methods = guest_methods,
    .tp_members = guest_members,
    .tp_getset = guest_getset,
};

int guest_names(void) {
    static const Name NAMES[] = {
        {&view_name, "view"},
        {&refresh_name, "refresh"},
    };
    return INTERN(NAMES);
}
