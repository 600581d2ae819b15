/* Finds code that V8 does not interrupt in time, and replaces it: the C form of bulk.py, which explains it. */
#include "native.h"

typedef struct {
    const uint8_t *at, *end;
} Place;

static bool number(Place *place, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; place->at < place->end && shift < MAX_BITS; shift += 7) {
        uint8_t byte = *place->at++;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return true;
    }
    return false;
}

static bool skip_number(Place *place) {
    uint64_t unused;
    return number(place, &unused);
}

static bool skip_numbers(Place *place, uint64_t count) {
    while (count--)
        if (!skip_number(place)) return false;
    return true;
}

static bool skip(Place *place, size_t size) {
    bool there = (size_t)(place->end - place->at) >= size;
    if (there) place->at += size;
    return there;
}

static bool is_reference(const Place *place) {
    return place->at < place->end && (*place->at == 0x63 || *place->at == 0x64);
}

/* The type of a value: one byte, or a reference to a heap type. */
static bool skip_type(Place *place) {
    bool longer = is_reference(place);
    return skip(place, 1) && (!longer || skip_number(place));
}

/* The type of a block: the type of a value, or the number of a type. */
static bool skip_block_type(Place *place) {
    if (is_reference(place)) place->at++;
    return skip_number(place);
}

static bool skip_types(Place *place) {
    uint64_t count;
    if (!number(place, &count)) return false;
    while (count--)
        if (!skip_type(place)) return false;
    return true;
}

static bool skip_memory_argument(Place *place) {
    uint64_t flags;
    return number(place, &flags) && (!(flags & 0x40) || skip_number(place)) && skip_number(place);
}

static bool skip_catches(Place *place) {
    uint64_t count, kind;
    if (!skip_block_type(place) || !number(place, &count)) return false;
    while (count--)
        if (!number(place, &kind) || !skip_numbers(place, kind < 2 ? 2 : 1)) return false;
    return true;
}

static bool skip_vector_operands(Place *place) {
    uint64_t kind;
    if (!number(place, &kind)) return false;
    if (kind <= 0x0B || kind == 0x5C || kind == 0x5D) return skip_memory_argument(place);
    if (kind == 0x0C || kind == 0x0D) return skip(place, 16);
    if (kind >= 0x15 && kind <= 0x22) return skip(place, 1);
    if (kind >= 0x54 && kind <= 0x5B) return skip_memory_argument(place) && skip(place, 1);
    return true;
}

static bool skip_atomic_operands(Place *place) {
    uint64_t kind;
    return number(place, &kind) && (kind == 3 ? skip(place, 1) : skip_memory_argument(place));
}

typedef enum { OTHER, BULK, UNKNOWN } Found;

/* Skip an instruction with the prefix 0xFC. */
/* clang-format off */
static Found skip_numbered(Place *place) {
    uint64_t kind;
    if (!number(place, &kind)) return UNKNOWN;
    switch (kind) {
    case 0: case 1: case 2: case 3: case 4: case 5: case 6: case 7: return OTHER;
    case 9: case 13: case 15: case 16: return skip_number(place) ? OTHER : UNKNOWN;
    case 11: case 17: return skip_number(place) ? BULK : UNKNOWN;
    case 8: case 10: case 12: case 14: return skip_numbers(place, 2) ? BULK : UNKNOWN;
    default: return UNKNOWN;
    }
}

static Found skip_instruction(Place *place) {
    uint64_t count;
    uint8_t opcode = *place->at++;
    bool good = false;
    switch (opcode) {
    case 0x00: case 0x01: case 0x05: case 0x0A: case 0x0B: case 0x0F: case 0x19: case 0x1A: case 0x1B:
    case 0x45 ... 0xC4: case 0xD1: case 0xD3: case 0xD4: return OTHER;
    case 0x02 ... 0x04: case 0x06: good = skip_block_type(place); break;
    case 0x07 ... 0x09: case 0x0C: case 0x0D: case 0x10: case 0x14: case 0x18: case 0x20 ... 0x25:
    case 0x3F: case 0x41: case 0x42: case 0xD0: case 0xD2: case 0xD5: case 0xD6: good = skip_number(place); break;
    case 0x11: good = skip_numbers(place, 2); break;
    case 0x0E: good = number(place, &count) && skip_numbers(place, count + 1); break;
    case 0x1C: good = skip_types(place); break;
    case 0x1F: good = skip_catches(place); break;
    case 0x28 ... 0x3E: good = skip_memory_argument(place); break;
    case 0x43: good = skip(place, 4); break;
    case 0x44: good = skip(place, 8); break;
    case 0x26: case 0x40: return skip_number(place) ? BULK : UNKNOWN;
    case 0xFC: return skip_numbered(place);
    case 0xFD: good = skip_vector_operands(place); break;
    case 0xFE: good = skip_atomic_operands(place); break;
    }
    return good ? OTHER : UNKNOWN;
}
/* clang-format on */

/* Size in bytes of a plain instruction whose numbers have one byte each; 0 for other instructions. */
static const uint8_t WIDTH[256] = {
    [0x00 ... 0x01] = 1, [0x05] = 1, [0x0A ... 0x0B] = 1, [0x0F] = 1,          [0x19 ... 0x1B] = 1,
    [0x45 ... 0xC4] = 1, [0xD1] = 1, [0xD3 ... 0xD4] = 1, [0x07 ... 0x09] = 2, [0x0C ... 0x0D] = 2,
    [0x10] = 2,          [0x14] = 2, [0x18] = 2,          [0x20 ... 0x25] = 2, [0x3F] = 2,
    [0x41 ... 0x42] = 2, [0xD0] = 2, [0xD2] = 2,          [0xD5 ... 0xD6] = 2, [0x28 ... 0x3E] = 3,
    [0x43] = 5,          [0x44] = 9,
};
/* For each size: bits that are clear in the bytes after the opcode if each number has one byte, and the flags of a
 * memory argument name no memory. */
static const uint16_t LONGER[] = {[2] = 0x80, [3] = 0x80C0, [9] = 0};

/* Skip plain instructions, which are most of the code, with one branch for each. */
static void skip_simple(Place *place) {
    const uint8_t *at = place->at;
    while (place->end - at > 9) {
        uint8_t width = WIDTH[*at];
        if (!width || (at[1] | at[2] << 8) & LONGER[width]) break;
        at += width;
    }
    place->at = at;
}

static bool skip_locals(Place *place) {
    uint64_t count;
    if (!number(place, &count)) return false;
    while (count--)
        if (!skip_number(place) || !skip_type(place)) return false;
    return true;
}

/* A growing array of 64-bit numbers. */
typedef struct {
    int64_t *items;
    size_t count, room;
} Numbers;

static bool push(Numbers *numbers, int64_t value) {
    if (numbers->count == numbers->room) {
        size_t room = numbers->room ? 2 * numbers->room : 1024;
        int64_t *items = PyMem_RawRealloc(numbers->items, room * sizeof *items);
        if (!items) return PyErr_NoMemory(), false;
        numbers->items = items, numbers->room = room;
    }
    numbers->items[numbers->count++] = value;
    return true;
}

static bool push_three(Numbers *numbers, int64_t here, int64_t behind, int64_t which) {
    return push(numbers, here) && push(numbers, behind) && push(numbers, which);
}

static PyObject *as_bytes(const Numbers *numbers) {
    return PyBytes_FromStringAndSize((const char *)numbers->items,
                                     (Py_ssize_t)(numbers->count * sizeof *numbers->items));
}

/* Collect the ranges of one body, until there are too many. Returns the position of unreadable code; otherwise NULL,
 * which may come with an exception. */
static const uint8_t *read_body(Place *place, const uint8_t *code, Numbers *ranges) {
    const uint8_t *here = place->at;
    if (!skip_locals(place)) return here;
    while (skip_simple(place), place->at < place->end) {
        here = place->at;
        Found found = skip_instruction(place);
        if (found == UNKNOWN) return here;
        if (found == OTHER || ranges->count > 2 * MOST) continue;
        if (!push(ranges, here - code) || !push(ranges, place->at - code)) return NULL;
    }
    return NULL;
}

static bool is_within(Py_ssize_t start, Py_ssize_t end, Py_ssize_t size) {
    if (start >= 0 && start <= end && end <= size) return true;
    PyErr_Format(PyExc_ValueError, "there are %zd bytes", size);
    return false;
}

/* ranges_of(code, start, end) -> (begins and ends, or None, -1), or (b"", position of unreadable code) */
PyObject *ranges_of(PyObject *module, PyObject *args) {
    const char *bytes;
    Py_ssize_t size, start, end;
    uint64_t count, length;
    if (!PyArg_ParseTuple(args, "y#nn:ranges_of", &bytes, &size, &start, &end) || !is_within(start, end, size))
        return NULL;
    const uint8_t *code = (const uint8_t *)bytes, *stopped = NULL;
    Place section = {code + start, code + end};
    Numbers ranges = {0};
    if (!number(&section, &count)) stopped = code + start;
    for (uint64_t index = 0; !stopped && index < count; index++) {
        const uint8_t *before = section.at;
        if (!number(&section, &length) || length > (uint64_t)(section.end - section.at)) {
            stopped = before;
            break;
        }
        Place body = {section.at, section.at + length};
        section.at = body.end;
        stopped = read_body(&body, code, &ranges);
        if (PyErr_Occurred()) break;
    }
    PyObject *result = NULL;
    if (PyErr_Occurred()) result = NULL;
    else if (stopped) result = Py_BuildValue("(y#n)", "", (Py_ssize_t)0, (Py_ssize_t)(stopped - code));
    else if (ranges.count > 2 * MOST) result = Py_BuildValue("(On)", Py_None, (Py_ssize_t)-1);
    else {
        PyObject *found = as_bytes(&ranges);
        if (found) result = Py_BuildValue("(Nn)", found, (Py_ssize_t)-1);
    }
    PyMem_RawFree(ranges.items);
    return result;
}

static int leb_size(uint64_t value) {
    int size = 1;
    while (value >>= 7) size++;
    return size;
}

/* The number of an instruction in `calls`, which is new for a new instruction; or -1 with an exception. */
static Py_ssize_t number_of(PyObject *calls, const uint8_t *instruction, Py_ssize_t size) {
    PyObject *key = PyBytes_FromStringAndSize((const char *)instruction, size);
    if (!key) return -1;
    Py_ssize_t which = -1;
    PyObject *known = PyDict_GetItemWithError(calls, key);
    if (known) which = PyLong_AsSsize_t(known);
    else if (!PyErr_Occurred()) {
        PyObject *value = PyLong_FromSsize_t(PyDict_Size(calls));
        if (value && !PyDict_SetItem(calls, key, value)) which = PyLong_AsSsize_t(value);
        Py_XDECREF(value);
    }
    Py_DECREF(key);
    return which;
}

enum { NEVER = 7 }; /* bytes of the call that is never made, without the number of its function */

static PyObject *malformed(const char *what, Py_ssize_t at) {
    PyObject *reader = PyImport_ImportModule("proxywasm_engine_v8.reader");
    PyObject *error = reader ? PyObject_GetAttrString(reader, "Malformed") : NULL;
    if (error) PyErr_Format(error, what, at);
    Py_XDECREF(reader);
    Py_XDECREF(error);
    return NULL;
}

typedef struct {
    const uint8_t *code;
    const uint64_t *range, *ranges_end;
    uint64_t first;
    bool has_memory;
    Numbers edits;
    PyObject *calls, *large;
} Plan;

/* Plan the edits of one function; its size is encoded between `before` and `begin`. */
static bool plan_body(Plan *plan, uint64_t index, const uint8_t *before, const uint8_t *begin, const uint8_t *end) {
    int64_t size = end - begin;
    size_t head = plan->edits.count; /* the edit of its size, which is known at the end */
    if (!push_three(&plan->edits, before - plan->code, begin - plan->code, 0)) return false;
    if (size >= LARGE) {
        PyObject *item = Py_BuildValue("(KL)", (unsigned long long)index, (long long)size);
        int failed = item ? PyList_Append(plan->large, item) : -1;
        Py_XDECREF(item);
        if (failed) return false;
        if (plan->has_memory) {
            Place body = {begin, end};
            if (!skip_locals(&body)) return malformed("locals that end too early, at %#zx", begin - plan->code), false;
            Py_ssize_t which = number_of(plan->calls, NULL, 0), at = body.at - plan->code;
            if (which < 0 || !push_three(&plan->edits, at, at, which)) return false;
            size += NEVER + leb_size(plan->first + (uint64_t)which);
        }
    }
    for (; plan->range < plan->ranges_end && plan->range[0] < (uint64_t)(end - plan->code); plan->range += 2) {
        Py_ssize_t here = (Py_ssize_t)plan->range[0], behind = (Py_ssize_t)plan->range[1];
        Py_ssize_t which = number_of(plan->calls, plan->code + here, behind - here);
        if (which < 0 || !push_three(&plan->edits, here, behind, which)) return false;
        size += 1 + leb_size(plan->first + (uint64_t)which) - (behind - here);
    }
    if (plan->edits.count == head + 3) plan->edits.count = head;
    else plan->edits.items[head + 2] = -1 - size;
    return true;
}

/* Whether all ranges are in the code, in order and without overlap. */
static bool are_in_order(const uint64_t *range, const uint64_t *end, uint64_t from, uint64_t to) {
    for (; range < end; range += 2) {
        if (range[0] < from || range[1] <= range[0] || range[1] > to) return false;
        from = range[1];
    }
    return true;
}

static bool plan_all(Plan *plan, Py_ssize_t start, Py_ssize_t end) {
    uint64_t count, length;
    Place section = {plan->code + start, plan->code + end};
    if (!number(&section, &count)) return malformed("the bytes end too early, at %#zx", start), false;
    Py_ssize_t first_body = section.at - plan->code;
    if (!push_three(&plan->edits, start, first_body, 0)) return false;
    for (uint64_t index = 0; index < count; index++) {
        const uint8_t *before = section.at;
        if (!number(&section, &length) || length > (uint64_t)(section.end - section.at))
            return malformed("the bytes end too early, at %#zx", before - plan->code), false;
        const uint8_t *begin = section.at;
        section.at += length;
        if (!plan_body(plan, index, before, begin, section.at)) return false;
    }
    if (plan->edits.count == 3) plan->edits.count = 0;
    else plan->edits.items[2] = -1 - (int64_t)count - (int64_t)PyDict_Size(plan->calls);
    return true;
}

/* planned(code, start, end, ranges, first, has_memory) -> (edits, instructions, large) */
PyObject *planned(PyObject *module, PyObject *args) {
    const char *bytes, *ranges;
    Py_ssize_t size, start, end, ranges_size;
    unsigned long long first;
    int has_memory;
    if (!PyArg_ParseTuple(args, "y#nny#Kp:planned", &bytes, &size, &start, &end, &ranges, &ranges_size, &first,
                          &has_memory) ||
        !is_within(start, end, size))
        return NULL;
    Plan plan = {.code = (const uint8_t *)bytes,
                 .range = (const uint64_t *)ranges,
                 .ranges_end = (const uint64_t *)ranges + ranges_size / 16 * 2,
                 .first = first,
                 .has_memory = has_memory};
    if (!are_in_order(plan.range, plan.ranges_end, (uint64_t)start, (uint64_t)end))
        return PyErr_Format(PyExc_ValueError, "these are not ranges of this code");
    PyObject *result = NULL;
    plan.calls = PyDict_New(), plan.large = PyList_New(0);
    if (plan.calls && plan.large && plan_all(&plan, start, end)) {
        PyObject *edits = as_bytes(&plan.edits), *instructions = PyDict_Keys(plan.calls);
        if (edits && instructions) result = Py_BuildValue("(OOO)", edits, instructions, plan.large);
        Py_XDECREF(edits);
        Py_XDECREF(instructions);
    }
    Py_XDECREF(plan.calls);
    Py_XDECREF(plan.large);
    PyMem_RawFree(plan.edits.items);
    return result;
}

/* Writes bytes one after the other; without `to`, only counts them. */
typedef struct {
    uint8_t *to;
    Py_ssize_t size;
} Output;

static void put(Output *output, const void *bytes, Py_ssize_t size) {
    if (output->to) memcpy(output->to + output->size, bytes, (size_t)size);
    output->size += size;
}

static bool put_pieces(Output *output, PyObject *pieces) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pieces); i++) {
        Py_buffer piece;
        if (PyObject_GetBuffer(PyList_GET_ITEM(pieces, i), &piece, PyBUF_SIMPLE)) return false;
        put(output, piece.buf, piece.len);
        PyBuffer_Release(&piece);
    }
    return true;
}

static void put_code(Output *output, const char *code, Py_ssize_t at, Py_ssize_t end, const int64_t *edits,
                     size_t count, PyObject *calls) {
    for (size_t i = 0; i < count; i += 3) {
        put(output, code + at, (Py_ssize_t)edits[i] - at);
        at = (Py_ssize_t)edits[i + 1];
        int64_t which = edits[i + 2];
        if (which >= 0) {
            PyObject *call = PyTuple_GET_ITEM(calls, (Py_ssize_t)which);
            put(output, PyBytes_AS_STRING(call), PyBytes_GET_SIZE(call));
            continue;
        }
        uint8_t leb[10];
        Py_ssize_t size = 0;
        for (uint64_t value = (uint64_t)(-1 - which);; value >>= 7) {
            leb[size++] = (uint8_t)((value & 0x7F) | (value > 0x7F ? 0x80 : 0));
            if (value <= 0x7F) break;
        }
        put(output, leb, size);
    }
    put(output, code + at, end - at);
}

static bool are_edits(const int64_t *edits, size_t count, int64_t at, int64_t end, Py_ssize_t calls) {
    for (size_t i = 0; i < count; i += 3) {
        if (edits[i] < at || edits[i + 1] < edits[i] || edits[i + 1] > end || edits[i + 2] >= calls) return false;
        at = edits[i + 1];
    }
    return true;
}

/* joined(before, code, (start, end, edits, calls), after) -> bytes */
PyObject *joined(PyObject *module, PyObject *args) {
    PyObject *before, *after, *given;
    const char *code, *edits;
    Py_ssize_t size, start, end, edits_size;
    if (!PyArg_ParseTuple(args, "O!y#(nny#O)O!:joined", &PyList_Type, &before, &code, &size, &start, &end, &edits,
                          &edits_size, &given, &PyList_Type, &after) ||
        !is_within(start, end, size))
        return NULL;
    PyObject *calls = PySequence_Tuple(given), *result = NULL;
    if (!calls) return NULL;
    const int64_t *numbers = (const int64_t *)edits;
    size_t count = (size_t)edits_size / 24 * 3;
    bool good = are_edits(numbers, count, start, end, PyTuple_GET_SIZE(calls));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(calls); i++) good = good && PyBytes_Check(PyTuple_GET_ITEM(calls, i));
    if (!good) PyErr_SetString(PyExc_ValueError, "these are not edits of this code");
    Output output = {NULL, 0};
    for (int pass = 0; good && pass < 2; pass++) {
        if (pass) {
            result = PyBytes_FromStringAndSize(NULL, output.size);
            if (!result) break;
            output = (Output){(uint8_t *)PyBytes_AS_STRING(result), 0};
        }
        if (!put_pieces(&output, before)) good = false;
        put_code(&output, code, start, end, numbers, count, calls);
        if (!put_pieces(&output, after)) good = false;
    }
    if (!good) Py_CLEAR(result);
    Py_DECREF(calls);
    return result;
}
