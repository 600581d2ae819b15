/* Where the code of functions has what V8 does not interrupt in time: the same as `_edited` of bulk.py, which says more. */
#include "native.h"

typedef struct {
    const uint8_t *at, *end;
} Place;

enum { MAX_BITS = 70 }; /* of 10 bytes, as in reader.py */

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

/* A type of values: one byte, or a reference to a heap type. */
static bool skip_type(Place *place) {
    bool longer = is_reference(place);
    return skip(place, 1) && (!longer || skip_number(place));
}

/* The type of a block: one of values, or a number. */
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

enum { LARGE = 2 << 10 };
typedef enum { OTHER, BULK, UNKNOWN } Found;

/* Of the instructions whose number stands behind 0xFC. */
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

/* Bytes of an instruction whose numbers have one byte each, which nothing has to be done about; else 0. */
static const uint8_t WIDTH[256] = {
    [0x00 ... 0x01] = 1, [0x05] = 1, [0x0A ... 0x0B] = 1, [0x0F] = 1,          [0x19 ... 0x1B] = 1,
    [0x45 ... 0xC4] = 1, [0xD1] = 1, [0xD3 ... 0xD4] = 1, [0x07 ... 0x09] = 2, [0x0C ... 0x0D] = 2,
    [0x10] = 2,          [0x14] = 2, [0x18] = 2,          [0x20 ... 0x25] = 2, [0x3F] = 2,
    [0x41 ... 0x42] = 2, [0xD0] = 2, [0xD2] = 2,          [0xD5 ... 0xD6] = 2, [0x28 ... 0x3E] = 3,
    [0x43] = 5,          [0x44] = 9,
};
/* By that width: what the bytes behind the opcode do not have in it if they are such numbers (flags that name no memory). */
static const uint16_t LONGER[] = {[2] = 0x80, [3] = 0x80C0, [9] = 0};

/* Skip the most of the instructions, with one branch for each. */
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

static int append(PyObject *edits, Py_ssize_t here, Py_ssize_t behind) {
    PyObject *edit = Py_BuildValue("(nn)", here, behind);
    int failed = edit ? PyList_Append(edits, edit) : -1;
    Py_XDECREF(edit);
    return failed;
}

/* Append to `edits` what is in one body. Where it cannot be read, or NULL at its end, or with an exception. */
static const uint8_t *read_body(Place *place, const uint8_t *code, PyObject *edits) {
    const uint8_t *here = place->at;
    bool large = place->end - here >= LARGE;
    if (!skip_locals(place)) return here;
    if (large && append(edits, place->at - code, place->at - code)) return NULL;
    while (skip_simple(place), place->at < place->end) {
        here = place->at;
        Found found = skip_instruction(place);
        if (found == UNKNOWN) return here;
        if (found == OTHER) continue;
        if (append(edits, here - code, place->at - code)) return NULL;
    }
    return NULL;
}

/* edited(code, start, end) -> ([(number, before, body, end, [(here, behind), …]), …], -1), or ([], where it cannot be
 * read) */
PyObject *edited(PyObject *module, PyObject *args) {
    const char *bytes;
    Py_ssize_t size, start, end;
    uint64_t count, length;
    if (!PyArg_ParseTuple(args, "y#nn:edited", &bytes, &size, &start, &end)) return NULL;
    if (start < 0 || start > end || end > size) return PyErr_Format(PyExc_ValueError, "there are %zd bytes", size);
    const uint8_t *code = (const uint8_t *)bytes, *stopped = NULL;
    Place section = {code + start, code + end};
    PyObject *found = PyList_New(0);
    if (!found) return NULL;
    if (!number(&section, &count)) stopped = code + start;
    for (uint64_t index = 0; !stopped && index < count; index++) {
        const uint8_t *before = section.at;
        if (!number(&section, &length) || length > (uint64_t)(section.end - section.at)) {
            stopped = before;
            break;
        }
        Place body = {section.at, section.at + length};
        const uint8_t *begins = section.at;
        section.at = body.end;
        PyObject *edits = PyList_New(0);
        stopped = edits ? read_body(&body, code, edits) : NULL;
        if (edits && !PyErr_Occurred() && PyList_GET_SIZE(edits)) {
            PyObject *item = Py_BuildValue("(KnnnO)", (unsigned long long)index, (Py_ssize_t)(before - code),
                                           (Py_ssize_t)(begins - code), (Py_ssize_t)(body.end - code), edits);
            if (item) PyList_Append(found, item);
            Py_XDECREF(item);
        }
        Py_XDECREF(edits);
        if (PyErr_Occurred()) {
            Py_DECREF(found);
            return NULL;
        }
    }
    if (stopped && PyList_SetSlice(found, 0, PyList_GET_SIZE(found), NULL)) return Py_DECREF(found), NULL;
    return Py_BuildValue("(Nn)", found, stopped ? (Py_ssize_t)(stopped - code) : (Py_ssize_t)-1);
}
