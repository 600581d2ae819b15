// The module `_re`: matches what library/re.py has compiled to numbers. Positions are in bytes; text is UTF-8.
//
// A program is an array of 32-bit words: the number of slots that it uses (two for each group, one for each loop that may
// match nothing), 1 to match text or 0 for bytes, then instructions. A failed match returns to the latest choice.
// Choices are on a separate stack, so no pattern and no text can exhaust C's.
#include <stdlib.h>
#include <string.h>

#include "py/objstr.h"
#include "py/runtime.h"
#include "py/unicode.h"

#include "word_characters.h"

enum { MATCH, CHAR, ANY, ALL, SET, SPLIT, JUMP, SAVE, AT, LOOK, BACK, REPEAT, MARK, LOOP };
enum { BEGIN, BEGIN_OF_LINE, END, END_OF_LINE, END_OF_TEXT, BOUNDARY, NO_BOUNDARY, BOUNDARY_ASCII, NO_BOUNDARY_ASCII };
enum { AHEAD, NOT_AHEAD, BEHIND, NOT_BEHIND, ATOMIC };
enum { CHOICE, GREEDY, LAZY, RESTORE };
enum { NEGATED = 1, WORD = 2, NOT_WORD = 4 };  // of a set; the last two: it contains, beyond ASCII, all of \w, or of \W
enum { SEARCH = 1, FULL = 2, NOT_EMPTY = 4 };  // modes of matching
#define MAX_CHOICES (1 << 18)
#define NONE 0xffffffff

typedef struct {
    uint32_t kind, code, at, more;
} choice;

static choice *choices;
static uint32_t top, room;
static int overflow;

// The current match: its program, its text, its mode and its slots.
static struct {
    const uint32_t *code;
    const uint8_t *text;
    uint32_t end, start, mode, *slots;
    int unicode;
} m;

static void push(uint32_t kind, uint32_t code, uint32_t at, uint32_t more) {
    if (top == room) {
        uint32_t wanted = room ? 2 * room : 64;
        choice *new = wanted > MAX_CHOICES ? NULL : realloc(choices, wanted * sizeof *choices);
        if (!new) {
            overflow = 1;
            return;
        }
        choices = new;
        room = wanted;
    }
    choices[top++] = (choice){kind, code, at, more};
}

static int continues(uint32_t at) { return m.unicode && at < m.end && (m.text[at] & 0xc0) == 0x80; }

static uint32_t character(uint32_t at, uint32_t *next) {
    uint32_t c = m.text[at++];
    if (c >= 0x80 && m.unicode) {
        c &= c >= 0xf0 ? 7 : c >= 0xe0 ? 15 : 31;
        while (continues(at)) {
            c = c << 6 | (m.text[at++] & 0x3f);
        }
    }
    *next = at;
    return c;
}

static int is_word(uint32_t c) {
    if (c < 0x80) {
        return unichar_isident(c);
    }
    if (c > 0xffff) {
        return c < 0x1f000 || (c >= 0x20000 && c < 0xe0000);
    }
    size_t low = 0, high = sizeof word_characters / sizeof *word_characters;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > word_characters[middle][1]) {
            low = middle + 1;
        } else if (c < word_characters[middle][0]) {
            high = middle;
        } else {
            return 1;
        }
    }
    return 0;
}

static int in_set(const uint32_t *set, uint32_t c) {
    if (c < 128) {
        return set[2 + c / 32] >> (c & 31) & 1;
    }
    int found = 0;
    for (uint32_t i = 0; i < set[6] && !found; i++) {
        found = c >= set[7 + 2 * i] && c <= set[8 + 2 * i];
    }
    if (!found && m.unicode && set[1] & (WORD | NOT_WORD)) {
        found = set[1] & (is_word(c) ? WORD : NOT_WORD);
    }
    return (found != 0) != (set[1] & NEGATED);
}

// The position after one character, or NONE if the instruction does not match it.
static uint32_t one(const uint32_t *i, uint32_t at) {
    uint32_t next;
    if (at >= m.end) {
        return NONE;
    }
    uint32_t c = character(at, &next);
    int good = *i == CHAR ? c == i[1] : *i == ANY ? c != '\n' : *i == SET ? in_set(i, c) : 1;
    return good ? next : NONE;
}

static uint32_t before(uint32_t at) {
    do {
        at--;
    } while (at && continues(at));
    return at;
}

static int word_at(uint32_t at, int ascii) {
    uint32_t next, c = character(at, &next);
    return c < 0x80 || !ascii ? is_word(c) : 0;
}

static int is_at(uint32_t where, uint32_t at) {
    switch (where) {
        case BEGIN: return at == 0;
        case BEGIN_OF_LINE: return at == 0 || m.text[at - 1] == '\n';
        case END: return at == m.end || (at + 1 == m.end && m.text[at] == '\n');
        case END_OF_LINE: return at == m.end || m.text[at] == '\n';
        case END_OF_TEXT: return at == m.end;
    }
    if (!m.end) {
        return 0;  // as in CPython: not even \B matches in empty text
    }
    int ascii = where >= BOUNDARY_ASCII || !m.unicode;
    int left = at > 0 && word_at(before(at), ascii), right = at < m.end && word_at(at, ascii);
    return (left != right) == (where == BOUNDARY || where == BOUNDARY_ASCII);
}

static void set_slot(uint32_t slot, uint32_t value) {
    push(RESTORE, slot, m.slots[slot], 0);
    m.slots[slot] = value;
}

static int lower(int c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; }

// Match from `pc` and `at`; returns the end of the match, or NONE. With `outer`, the mode restricts that end.
static uint32_t run(uint32_t pc, uint32_t at, int outer) {
    uint32_t base = top;
    for (;;) {
        const uint32_t *i = m.code + pc;
        switch (*i) {
            case MATCH:
                if (outer && ((m.mode & FULL && at != m.end) || (m.mode & NOT_EMPTY && at == m.start))) {
                    goto back;
                }
                uint32_t kept = base;
                for (uint32_t j = base; j < top; j++) {
                    if (choices[j].kind == RESTORE) {
                        choices[kept++] = choices[j];
                    }
                }
                top = kept;
                return at;
            case CHAR:
            case ANY:
            case ALL:
            case SET:
                if ((at = one(i, at)) == NONE) {
                    goto back;
                }
                pc += *i == CHAR ? 2 : *i == SET ? 7 + 2 * i[6] : 1;
                continue;
            case SPLIT:
                push(CHOICE, i[2], at, 0);
                pc = i[1];
                break;
            case JUMP:
                pc = i[1];
                continue;
            case SAVE:
            case MARK:
                set_slot(i[1], at);
                pc += 2;
                break;
            case LOOP:  // again, unless the last round matched nothing
                pc = m.slots[i[1]] == at ? pc + 3 : i[2];
                continue;
            case AT:
                if (!is_at(i[1], at)) {
                    goto back;
                }
                pc += 2;
                continue;
            case LOOK: {  // kind, number of characters behind, the instruction after it; then what is looked for
                uint32_t from = at, mine = top;
                int possible = 1, wanted = i[1] != NOT_AHEAD && i[1] != NOT_BEHIND;
                for (uint32_t n = i[2]; n && possible; n--) {
                    possible = from > 0;
                    from = possible ? before(from) : 0;
                }
                uint32_t found = possible ? run(pc + 4, from, 0) : NONE;
                if (overflow) {
                    return NONE;
                }
                if ((found != NONE) != wanted) {
                    while (top > mine) {
                        top--;
                        m.slots[choices[top].code] = choices[top].at;
                    }
                    goto back;
                }
                at = i[1] == ATOMIC ? found : at;
                pc = i[3];
                continue;
            }
            case BACK: {
                uint32_t from = m.slots[2 * i[1] - 2], to = m.slots[2 * i[1] - 1];
                if (from == NONE || to == NONE || to - from > m.end - at) {
                    goto back;
                }
                for (; from < to; from++, at++) {
                    int a = m.text[from], b = m.text[at];
                    if (a != b && !(i[2] && lower(a) == lower(b))) {
                        goto back;
                    }
                }
                pc += 3;
                continue;
            }
            case REPEAT: {  // lazy, minimum, maximum, the instruction after it; then one character
                uint32_t n = 0, next;
                while (n < i[2] && (next = one(i + 5, at)) != NONE) {
                    at = next;
                    n++;
                }
                if (n < i[2]) {
                    goto back;
                }
                if (i[1]) {
                    push(LAZY, pc, at, i[3] - n);
                } else {
                    uint32_t least = at;
                    while (n < i[3] && (next = one(i + 5, at)) != NONE) {
                        at = next;
                        n++;
                    }
                    if (at != least) {
                        push(GREEDY, pc, at, least);
                    }
                }
                pc = i[4];
                break;
            }
        }
        if (overflow) {
            return NONE;
        }
        continue;
    back:
        for (;;) {
            if (top == base) {
                return NONE;
            }
            choice *c = &choices[top - 1];
            i = m.code + c->code;
            if (c->kind == RESTORE) {
                m.slots[c->code] = c->at;
                top--;
            } else if (c->kind == CHOICE) {
                pc = c->code;
                at = c->at;
                top--;
                break;
            } else if (c->kind == GREEDY) {
                pc = i[4];
                const uint32_t *after = m.code + pc;
                uint32_t wanted = *after == CHAR && after[1] < 0x80 ? after[1] : NONE;
                do {
                    c->at = before(c->at);
                } while (wanted != NONE && c->at > c->more && m.text[c->at] != wanted);
                at = c->at;
                if (at <= c->more) {
                    top--;
                }
                break;
            } else {
                at = c->more ? one(i + 5, c->at) : NONE;
                if (at != NONE) {
                    c->at = at;
                    c->more--;
                    pc = i[4];
                    break;
                }
                top--;
            }
        }
    }
}

// The next position from `at` on where a match may begin, judged by the first instruction.
static uint32_t candidate(uint32_t at) {
    const uint32_t *i = m.code + 2;
    while (*i == SAVE) {
        i += 2;
    }
    if (*i == CHAR && i[1] < 0x80) {
        const uint8_t *found = at < m.end ? memchr(m.text + at, i[1], m.end - at) : NULL;
        return found ? found - m.text : NONE;
    }
    if (*i == SET) {
        while (at < m.end && m.text[at] < 0x80 && !in_set(i, m.text[at])) {
            at++;
        }
        return at < m.end ? at : NONE;
    }
    return *i == AT && i[1] == BEGIN && at ? NONE : at;
}

// match(program, text, at, end, mode): from `at` to `end` (-1: the text's); None, or where the match and each group begin and end (-1: not matched).
static mp_obj_t match(size_t n, const mp_obj_t *a) {
    mp_buffer_info_t program, subject;
    mp_get_buffer_raise(a[0], &program, MP_BUFFER_READ);
    mp_get_buffer_raise(a[1], &subject, MP_BUFFER_READ);
    m.code = program.buf;
    m.unicode = m.code[1];
    m.text = subject.buf;
    mp_int_t end = mp_obj_get_int(a[3]);
    m.end = end < 0 ? subject.len : MIN((size_t)end, subject.len);
    m.mode = mp_obj_get_int(a[4]);
    uint32_t count = m.code[0], found = NONE, at = mp_obj_get_int(a[2]), first = at;
    m.slots = m_new(uint32_t, count + 1);
    top = overflow = 0;
    for (; at != NONE && at <= m.end; at++) {
        if (m.mode & SEARCH) {
            while (continues(at)) {
                at++;
            }
            at = candidate(at);
            if (at == NONE) {
                break;
            }
        }
        memset(m.slots, 0xff, count * sizeof *m.slots);
        m.start = m.mode & NOT_EMPTY && at != first ? NONE : at;
        found = run(2, at, 1);
        top = 0;
        if (found != NONE || overflow || !(m.mode & SEARCH)) {
            break;
        }
    }
    if (overflow) {
        mp_raise_msg(&mp_type_MemoryError, MP_ERROR_TEXT("the pattern leaves more choices than a packed filter can try"));
    }
    mp_obj_t result = mp_const_none;
    if (found != NONE) {
        mp_obj_t *spans = m_new(mp_obj_t, count + 2);
        spans[0] = MP_OBJ_NEW_SMALL_INT(at);
        spans[1] = MP_OBJ_NEW_SMALL_INT(found);
        for (uint32_t i = 0; i < count; i++) {
            spans[2 + i] = MP_OBJ_NEW_SMALL_INT((int32_t)m.slots[i]);
        }
        result = mp_obj_new_tuple(count + 2, spans);
        m_del(mp_obj_t, spans, count + 2);
    }
    m_del(uint32_t, m.slots, count + 1);
    return result;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(match_object, 5, 5, match);

// part(text, begin, end): a part of text or bytes; -1 is the end.
static mp_obj_t part(mp_obj_t whole, mp_obj_t begin, mp_obj_t end) {
    mp_buffer_info_t subject;
    mp_get_buffer_raise(whole, &subject, MP_BUFFER_READ);
    mp_int_t from = mp_obj_get_int(begin), to = mp_obj_get_int(end);
    to = to < 0 ? (mp_int_t)subject.len : to;
    const mp_obj_type_t *type = mp_obj_is_str(whole) ? &mp_type_str : &mp_type_bytes;
    return mp_obj_new_str_copy(type, (const byte *)subject.buf + from, to - from);
}
static MP_DEFINE_CONST_FUN_OBJ_3(part_object, part);

// index(text, at): the index of the character that begins at a byte.
static mp_obj_t index_(mp_obj_t whole, mp_obj_t at) {
    mp_buffer_info_t subject;
    mp_get_buffer_raise(whole, &subject, MP_BUFFER_READ);
    return mp_obj_is_str(whole) ? MP_OBJ_NEW_SMALL_INT(utf8_charlen(subject.buf, mp_obj_get_int(at))) : at;
}
static MP_DEFINE_CONST_FUN_OBJ_2(index_object, index_);

// position(text, index): the byte at which a character begins, at most the end.
static mp_obj_t position(mp_obj_t whole, mp_obj_t index) {
    mp_buffer_info_t subject;
    mp_get_buffer_raise(whole, &subject, MP_BUFFER_READ);
    mp_int_t n = mp_obj_get_int(index);
    size_t at = 0;
    if (!mp_obj_is_str(whole)) {
        at = n < 0 ? 0 : MIN((size_t)n, subject.len);
    } else {
        for (; n > 0 && at < subject.len; n--) {
            for (at++; at < subject.len && (((const byte *)subject.buf)[at] & 0xc0) == 0x80; at++) {
            }
        }
    }
    return MP_OBJ_NEW_SMALL_INT(at);
}
static MP_DEFINE_CONST_FUN_OBJ_2(position_object, position);

static const mp_rom_map_elem_t entries[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__re)},
    {MP_ROM_QSTR(MP_QSTR_match), MP_ROM_PTR(&match_object)},
    {MP_ROM_QSTR(MP_QSTR_part), MP_ROM_PTR(&part_object)},
    {MP_ROM_QSTR(MP_QSTR_index), MP_ROM_PTR(&index_object)},
    {MP_ROM_QSTR(MP_QSTR_position), MP_ROM_PTR(&position_object)},
};
static MP_DEFINE_CONST_DICT(globals, entries);
const mp_obj_module_t re_module = {.base = {&mp_type_module}, .globals = (mp_obj_dict_t *)&globals};
MP_REGISTER_MODULE(MP_QSTR__re, re_module);
