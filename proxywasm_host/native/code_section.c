/* Measures the code of a module: the C form of abi/code_section.py, which documents everything. */
#include "native.h"

/* As in code_section.py, in the same order. */
/* clang-format off */
enum {
    UNKNOWN, NOTHING, NUMBER, FOUR_BYTES, EIGHT_BYTES, SIXTEEN_BYTES, LANE, MEMORY, MEMORY_AND_LANE,
    BLOCK, LOOP, IF, ELSE, END, BRANCH, BRANCH_IF, BRANCH_TABLE, LEAVE, LEAVE_TO, SELECT, CALL, CALL_INDIRECT,
    GROW_TABLE, MORE, MORE_VECTOR, TRY_TABLE, DELEGATE, SPLIT, REFERENCE, DROP_SEGMENT, DIVIDE, RANGE, RANGE_OF_TWO
};
/* clang-format on */
enum { PLAIN = 256, FIGURES = 8, NOT_SIMPLE = 255 };
enum { END_OPCODE = 0x0B, GET_LOCAL = 0x20, TEE_LOCAL = 0x22, IS_ZERO = 0x45, OF_ANOTHER_MEMORY = 0x40 };
#define MOST (1ull << 32)                                     /* as in code_section.py */
#define MAX_MERGES (1ull << 62)                               /* as in code_section.py */
enum { VECTORS = 276, INDIRECT = 10, MOST_RANGES = 1 << 20 }; /* as in code_section.py */

const Proxywasm_constant CODE_CONSTANTS[] = {
    PROXYWASM_CONSTANT(UNKNOWN),       PROXYWASM_CONSTANT(NOTHING),      PROXYWASM_CONSTANT(NUMBER),
    PROXYWASM_CONSTANT(FOUR_BYTES),    PROXYWASM_CONSTANT(EIGHT_BYTES),  PROXYWASM_CONSTANT(SIXTEEN_BYTES),
    PROXYWASM_CONSTANT(LANE),          PROXYWASM_CONSTANT(MEMORY),       PROXYWASM_CONSTANT(MEMORY_AND_LANE),
    PROXYWASM_CONSTANT(BLOCK),         PROXYWASM_CONSTANT(LOOP),         PROXYWASM_CONSTANT(IF),
    PROXYWASM_CONSTANT(ELSE),          PROXYWASM_CONSTANT(END),          PROXYWASM_CONSTANT(BRANCH),
    PROXYWASM_CONSTANT(BRANCH_IF),     PROXYWASM_CONSTANT(BRANCH_TABLE), PROXYWASM_CONSTANT(LEAVE),
    PROXYWASM_CONSTANT(LEAVE_TO),      PROXYWASM_CONSTANT(SELECT),       PROXYWASM_CONSTANT(CALL),
    PROXYWASM_CONSTANT(CALL_INDIRECT), PROXYWASM_CONSTANT(GROW_TABLE),   PROXYWASM_CONSTANT(MORE),
    PROXYWASM_CONSTANT(MORE_VECTOR),   PROXYWASM_CONSTANT(TRY_TABLE),    PROXYWASM_CONSTANT(DELEGATE),
    PROXYWASM_CONSTANT(SPLIT),         PROXYWASM_CONSTANT(REFERENCE),    PROXYWASM_CONSTANT(DROP_SEGMENT),
    PROXYWASM_CONSTANT(DIVIDE),        PROXYWASM_CONSTANT(RANGE),        PROXYWASM_CONSTANT(RANGE_OF_TWO),
    PROXYWASM_CONSTANT(VECTORS),       PROXYWASM_CONSTANT(INDIRECT),     PROXYWASM_CONSTANT(MOST_RANGES),
    PROXYWASM_CONSTANT(MOST),          PROXYWASM_CONSTANT(MAX_MERGES),   {NULL, 0},
};

typedef struct {
    uint64_t below, params, results, backs;
    const uint8_t *loop_at; /* NULL for other blocks */
} Block;

/* The cost of each figure, in microseconds, and the limit: OPTIMISING and SLOW of code_section.py. */
typedef struct {
    double bytes, merges, calls, locals_squared, phis, phis_squared, splits, splits_squared, targets_squared,
        choices_squared, slow;
} Weights;

typedef struct {
    const uint8_t *start, *at, *end;
    bool stopped; /* a read would have gone beyond the end */
} Reader;

/* The begin and end of each instruction on ranges. */
typedef struct {
    uint64_t *places;
    size_t count, room;
} Ranges;

typedef struct {
    const uint8_t *kinds;
    const int8_t *effects;
    /* For each opcode without a prefix that only needs skipping: the number of bytes after the opcode, if the bits of
     * `longer` are clear in them, so that each number has one byte. NOT_SIMPLE for others. */
    uint8_t width[PLAIN];
    uint16_t longer[PLAIN];
    const uint64_t *types, *functions;
    uint64_t type_count, function_count;
    Block *blocks;
    size_t room;
    bool no_memory;
    /* The figures of the current function. */
    uint64_t locals, depth, loops, targets, merges, calls, phis, splits, all_targets, choices;
    uint8_t last, before; /* the last two instructions */
    bool grows;
    Py_ssize_t unknown;
    Ranges ranges;
} Scan;

static inline uint8_t byte_(Reader *reader) {
    if (reader->at < reader->end) return *reader->at++;
    reader->stopped = true;
    return 0;
}

static inline uint64_t number(Reader *reader) {
    if (reader->at < reader->end && *reader->at < 0x80) return *reader->at++;
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        uint8_t byte = byte_(reader);
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    reader->stopped = true;
    return 0;
}

static inline void skip(Reader *reader, uint64_t size) {
    if (size > (uint64_t)(reader->end - reader->at)) reader->stopped = true;
    else reader->at += size;
}

static inline uint64_t less(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t more(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void arity(const Scan *scan, uint64_t type, uint64_t *params, uint64_t *results) {
    uint64_t packed = type < scan->type_count ? scan->types[type] : 0;
    *params = packed & (MOST - 1), *results = packed >> 32;
}

static void block_type(const Scan *scan, Reader *reader, uint64_t *params, uint64_t *results) {
    uint8_t first = reader->at < reader->end ? *reader->at : 0;
    uint64_t type = number(reader);
    *params = *results = 0;
    if (first == 0x40) return;
    if ((first & 0xC0) != 0x40) {
        arity(scan, type, params, results);
        return;
    }
    if (first == 0x63 || first == 0x64) number(reader);
    *results = 1;
}

static inline void merge(Scan *scan, uint64_t height, uint64_t targets) {
    scan->merges = less(scan->merges + (scan->locals + height) * targets, MAX_MERGES);
}

/* Count a branch to a loop. */
static void branch(Scan *scan, size_t count, uint64_t depth) {
    if (depth >= count || !scan->blocks[count - 1 - depth].loop_at) return;
    scan->blocks[count - 1 - depth].backs++;
    scan->splits++;
}

/* Count a condition that is the value of a local or a block, or compares this value with zero. */
static void choose(Scan *scan, uint64_t weight) {
    uint8_t from = scan->last == IS_ZERO ? scan->before : scan->last;
    if (from == GET_LOCAL || from == TEE_LOCAL || from == END_OPCODE) scan->choices += weight;
}

static uint64_t optimising(const Scan *scan, uint64_t size, const Weights *each) {
    double needed = (double)size * each->bytes + (double)scan->merges * each->merges +
                    (double)scan->calls * each->calls + (double)scan->phis * each->phis +
                    (double)scan->locals * (double)scan->locals * each->locals_squared;
    double phis = (double)scan->phis, splits = (double)scan->splits;
    double targets = (double)scan->all_targets, choices = (double)scan->choices;
    needed += phis * phis * each->phis_squared + splits * each->splits + splits * splits * each->splits_squared;
    needed += targets * targets * each->targets_squared + choices * choices * each->choices_squared;
    return needed < (double)MAX_MERGES ? (uint64_t)needed : MAX_MERGES;
}

static bool deeper(Scan *scan, size_t count) {
    if (count < scan->room) return true;
    size_t room = 2 * scan->room;
    Block *blocks = PyMem_RawRealloc(scan->blocks, room * sizeof *blocks);
    if (!blocks) return !(scan->no_memory = true);
    scan->blocks = blocks, scan->room = room;
    return true;
}

/* Record the position of an instruction on a range, until there are too many. */
static void note_range(Scan *scan, uint64_t from, uint64_t to) {
    Ranges *ranges = &scan->ranges;
    if (ranges->count > 2 * MOST_RANGES) return;
    if (ranges->count == ranges->room) {
        size_t room = ranges->room ? 2 * ranges->room : 1024;
        uint64_t *places = PyMem_RawRealloc(ranges->places, room * sizeof *places);
        if (!places) {
            scan->no_memory = true;
            return;
        }
        ranges->places = places, ranges->room = room;
    }
    ranges->places[ranges->count++] = from, ranges->places[ranges->count++] = to;
}

static inline uint64_t popped(uint64_t height, uint64_t count, uint64_t below) {
    return height < below + count ? below : height - count;
}

static void find_simple(Scan *scan) {
    for (int code = 0; code < PLAIN; code++) {
        switch (scan->kinds[code]) {
        case NOTHING: scan->width[code] = 0, scan->longer[code] = 0; break;
        case NUMBER: scan->width[code] = 1, scan->longer[code] = 0x80; break;
        case MEMORY: scan->width[code] = 2, scan->longer[code] = 0x80C0; break; /* only if the flags name no memory */
        case FOUR_BYTES: scan->width[code] = 4, scan->longer[code] = 0; break;
        case EIGHT_BYTES: scan->width[code] = 8, scan->longer[code] = 0; break;
        default: scan->width[code] = NOT_SIMPLE, scan->longer[code] = 0;
        }
    }
}

/* Skip simple instructions, which are most of the code, with one branch for each. Returns the height of the stack. */
static uint64_t past_simple(Scan *scan, Reader *reader, uint64_t height, uint64_t below) {
    const uint8_t *at = reader->at;
    int64_t now = (int64_t)height, least = (int64_t)below;
    uint8_t last = scan->last, before = scan->before;
    while (reader->end - at > 9) {
        uint8_t code = at[0];
        if ((at[1] | at[2] << 8) & scan->longer[code] || scan->width[code] == NOT_SIMPLE) break;
        now += scan->effects[code];
        if (now < least) now = least;
        at += 1 + scan->width[code];
        before = last, last = code;
    }
    scan->last = last, scan->before = before;
    reader->at = at;
    return (uint64_t)now;
}

static void read_body(Scan *scan, Reader *reader, uint64_t index) {
    uint64_t params, results, height = 0, loops = 0;
    arity(scan, index < scan->function_count ? scan->functions[index] : scan->type_count, &params, &results);
    scan->locals = params;
    for (uint64_t groups = number(reader); groups && !reader->stopped; groups--) {
        uint64_t count = number(reader);
        if (reader->stopped) return;
        scan->locals = less(scan->locals + less(count, MOST), MOST);
        uint64_t type = number(reader);
        if (type == 0x63 || type == 0x64) number(reader);
    }
    size_t count = 1;
    scan->blocks[0] = (Block){.results = results};
    while (!reader->stopped) {
        height = past_simple(scan, reader, height, scan->blocks[count - 1].below);
        const uint8_t *at = reader->at;
        uint64_t code = byte_(reader);
        if (reader->stopped) return;
        uint8_t kind = scan->kinds[code];
        if (kind == MORE || kind == MORE_VECTOR) {
            uint64_t sub = number(reader);
            if (reader->stopped) return;
            if (sub < (kind == MORE ? PLAIN : VECTORS)) {
                code = (kind == MORE ? PLAIN : 2 * PLAIN) + sub;
                kind = scan->kinds[code];
            } else kind = UNKNOWN;
        }
        if (kind == UNKNOWN) {
            if (scan->unknown < 0) scan->unknown = at - reader->start;
            return;
        }
        if (kind == IF || kind == BRANCH_IF) choose(scan, 1);
        else if (kind == BRANCH_TABLE) choose(scan, 2);
        scan->before = scan->last, scan->last = at[0];
        Block *inner = &scan->blocks[count - 1];
        int effect = scan->effects[code];
        height = effect < 0 ? popped(height, -effect, inner->below) : height + effect;
        switch (kind) {
        case NUMBER: number(reader); break;
        case RANGE:
        case RANGE_OF_TWO:
            number(reader);
            if (kind == RANGE_OF_TWO) number(reader);
            if (!reader->stopped) note_range(scan, at - reader->start, reader->at - reader->start);
            break;
        case MEMORY:
        case MEMORY_AND_LANE:
            if (number(reader) >= OF_ANOTHER_MEMORY) {
                if (scan->unknown < 0 && !reader->stopped) scan->unknown = at - reader->start;
                return;
            }
            number(reader);
            if (kind == MEMORY_AND_LANE) skip(reader, 1);
            break;
        case FOUR_BYTES: skip(reader, 4); break;
        case EIGHT_BYTES: skip(reader, 8); break;
        case SIXTEEN_BYTES: skip(reader, 16); break;
        case LANE: skip(reader, 1); break;
        case BLOCK:
        case LOOP:
        case IF:
        case TRY_TABLE:
            block_type(scan, reader, &params, &results);
            for (uint64_t left = kind == TRY_TABLE ? number(reader) : 0; left && !reader->stopped; left--) {
                if (byte_(reader) < 2) number(reader);
                number(reader);
                if (!reader->stopped) merge(scan, height, 1), scan->splits++;
            }
            if (reader->stopped) return;
            merge(scan, height, 1);
            if (!deeper(scan, count)) return;
            scan->blocks[count] = (Block){.below = popped(height, params, scan->blocks[count - 1].below),
                                          .params = params,
                                          .results = results,
                                          .loop_at = kind == LOOP ? reader->at : NULL};
            count++;
            loops += kind == LOOP, scan->splits += kind == LOOP;
            scan->depth = more(scan->depth, count - 1), scan->loops = more(scan->loops, loops);
            break;
        case ELSE:
            merge(scan, height, 1);
            height = inner->below + inner->params;
            if (code == 0x07) number(reader);
            break;
        case END:
        case DELEGATE:
            count--;
            if (kind == DELEGATE) number(reader);
            if (!count || reader->stopped) return;
            height = inner->below + inner->results;
            if (!inner->loop_at) break;
            loops--; /* an instruction that sets a local has at least two bytes */
            scan->phis += less(scan->locals, (uint64_t)(reader->at - inner->loop_at) / 2) * (3 + inner->backs);
            break;
        case BRANCH_IF:
        case BRANCH: {
            uint64_t depth = number(reader);
            if (reader->stopped) return;
            branch(scan, count, depth);
            merge(scan, height, 1);
            if (kind == BRANCH) height = inner->below;
            break;
        }
        case BRANCH_TABLE: {
            uint64_t targets = number(reader);
            if (reader->stopped) return;
            scan->targets = more(scan->targets, targets);
            uint64_t most = less(targets, reader->end - reader->at) + 1;
            scan->all_targets += most;
            merge(scan, height, most);
            for (uint64_t left = most; left; left--) {
                uint64_t depth = number(reader);
                if (reader->stopped) return;
                branch(scan, count, depth);
            }
            height = inner->below;
            break;
        }
        case LEAVE_TO: scan->splits += 2; number(reader); /* fall through */
        case LEAVE: height = inner->below; break;
        case SELECT:
            for (uint64_t left = number(reader); left && !reader->stopped; left--) {
                uint64_t type = number(reader);
                if (type == 0x63 || type == 0x64) number(reader);
            }
            break;
        case CALL:
        case CALL_INDIRECT: {
            uint64_t type = number(reader);
            if (reader->stopped) return;
            if (kind == CALL) type = type < scan->function_count ? scan->functions[type] : scan->type_count;
            arity(scan, type, &params, &results);
            scan->calls += (kind == CALL ? 1 : INDIRECT) + (results ? results - 1 : 0);
            scan->splits += kind == CALL_INDIRECT;
            if (kind == CALL_INDIRECT) number(reader);
            height = popped(height, params, inner->below) + results;
            break;
        }
        case SPLIT: scan->splits += 2; break;
        case DIVIDE: scan->splits++; break;
        case DROP_SEGMENT:
            scan->calls++;
            number(reader);
            break;
        case REFERENCE:
            scan->splits += 3;
            number(reader);
            break;
        case GROW_TABLE:
            scan->calls++;
            number(reader);
            if (!reader->stopped) scan->grows = true;
            break;
        default: break;
        }
    }
}

/* The results for all functions. */
typedef struct {
    uint64_t best[FIGURES][2], all_merges, all_optimising;
    bool grows;
    uint64_t *slow;
    size_t slow_count;
} Findings;

static bool is_slow(Findings *found, uint64_t index, uint64_t optimising) {
    if (!(found->slow_count & (found->slow_count + 1))) { /* full: one less than a power of two */
        uint64_t *slow = PyMem_RawRealloc(found->slow, (2 * found->slow_count + 1) * sizeof *slow);
        if (!slow) return false;
        found->slow = slow;
    }
    found->slow[found->slow_count++] = index;
    found->all_optimising = less(found->all_optimising + optimising, MAX_MERGES);
    return true;
}

static bool read_bodies(Scan *scan, Reader *reader, uint64_t imported, const Weights *each, Findings *found) {
    uint64_t count = number(reader);
    for (uint64_t index = 0; index < count && !reader->stopped; index++) {
        uint64_t size = number(reader);
        if (reader->stopped) break;
        Reader body = {reader->start, reader->at, reader->at + less(size, reader->end - reader->at), false};
        scan->locals = scan->depth = scan->loops = scan->targets = scan->merges = scan->calls = 0;
        scan->phis = scan->splits = scan->all_targets = scan->choices = 0;
        scan->last = scan->before = 0;
        read_body(scan, &body, imported + index);
        if (scan->no_memory) return false;
        const uint64_t figures[FIGURES] = {size,          scan->locals, scan->depth, scan->loops,
                                           scan->targets, scan->merges, scan->calls, optimising(scan, size, each)};
        for (int i = 0; i < FIGURES; i++)
            if (figures[i] > found->best[i][0]) found->best[i][0] = figures[i], found->best[i][1] = index;
        if ((double)figures[FIGURES - 1] > each->slow && !is_slow(found, index, figures[FIGURES - 1])) return false;
        found->all_merges = less(found->all_merges + scan->merges, MAX_MERGES);
        found->grows = found->grows || scan->grows;
        skip(reader, size);
    }
    return true;
}

static PyObject *numbers(const uint64_t *values, size_t count) {
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(values[i]);
        if (value) PyList_SET_ITEM(list, (Py_ssize_t)i, value);
        else Py_CLEAR(list);
    }
    return list;
}

static PyObject *told(const Findings *found, const Scan *scan) {
    PyObject *slow = numbers(found->slow, found->slow_count), *list = numbers(found->best[0], 2 * FIGURES);
    PyObject *figures = list ? PyList_AsTuple(list) : NULL, *all = NULL;
    const Ranges *ranges = &scan->ranges;
    const char *places = ranges->count ? (const char *)ranges->places : "";
    if (slow && figures) {
        Py_ssize_t size = (Py_ssize_t)(ranges->count * sizeof *ranges->places);
        all = Py_BuildValue("OKKOnOy#", figures, found->all_merges, found->all_optimising,
                            found->grows ? Py_True : Py_False, scan->unknown, slow,
                            ranges->count > 2 * MOST_RANGES ? NULL : places, size);
    }
    Py_XDECREF(slow);
    Py_XDECREF(list);
    Py_XDECREF(figures);
    return all;
}

/* read_code(data, start, end, kinds, effects, types, functions, imported, weights) */
PyObject *read_code(PyObject *module, PyObject *args) {
    Py_buffer data, kinds, effects, types, functions, weights;
    Py_ssize_t start, end;
    unsigned long long imported;
    if (!PyArg_ParseTuple(args, "y*nny*y*y*y*Ky*", &data, &start, &end, &kinds, &effects, &types, &functions, &imported,
                          &weights))
        return NULL;
    Scan scan = {.kinds = kinds.buf,
                 .effects = effects.buf,
                 .types = types.buf,
                 .functions = functions.buf,
                 .type_count = types.len / 8,
                 .function_count = functions.len / 8};
    Findings found = {0};
    bool done = false;
    scan.room = 64, scan.unknown = -1;
    if (start >= 0 && start <= end && end <= data.len && kinds.len == 2 * PLAIN + VECTORS && effects.len == kinds.len &&
        weights.len == sizeof(Weights))
        scan.blocks = PyMem_RawMalloc(scan.room * sizeof *scan.blocks);
    if (scan.blocks) {
        Reader reader = {data.buf, (const uint8_t *)data.buf + start, (const uint8_t *)data.buf + end, false};
        Py_BEGIN_ALLOW_THREADS
        find_simple(&scan);
        done = read_bodies(&scan, &reader, imported, weights.buf, &found);
        Py_END_ALLOW_THREADS
        PyMem_RawFree(scan.blocks);
    }
    Py_buffer *const buffers[] = {&data, &kinds, &effects, &types, &functions, &weights};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) PyBuffer_Release(buffers[i]);
    PyObject *all = done ? told(&found, &scan) : PyErr_NoMemory();
    PyMem_RawFree(found.slow);
    PyMem_RawFree(scan.ranges.places);
    return all;
}
