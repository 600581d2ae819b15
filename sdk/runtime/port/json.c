// The module `_json`: loads(text), dumps(value, item_separator, key_separator, indent, ensure_ascii, default), after RFC 8259
// with the behaviour and the error messages of CPython: ValueError(message, position).
#include <math.h>
#include <string.h>

#include "py/objint.h"
#include "py/objlist.h"
#include "py/objstr.h"
#include "py/objtuple.h"
#include "py/parsenum.h"
#include "py/runtime.h"
#include "py/stackctrl.h"
#include "py/unicode.h"

#define IS_TUPLE(o) (MP_OBJ_TYPE_GET_SLOT_OR_NULL(mp_obj_get_type(o), iter) == mp_obj_tuple_getiter)

typedef struct {
    const byte *begin, *at, *end;
} reader;

static NORETURN void refuse(reader *r, const char *words, const byte *at) {
    mp_obj_t arguments[2] = {mp_obj_new_str(words, strlen(words)), MP_OBJ_NEW_SMALL_INT(utf8_charlen(r->begin, at - r->begin))};
    nlr_raise(mp_obj_new_exception_args(&mp_type_ValueError, 2, arguments));
}

static int peek(reader *r) { return r->at < r->end ? *r->at : -1; }

static int skip_space(reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) {
        r->at++;
    }
    return peek(r);
}

static unichar four_digits(reader *r) {
    unichar code = 0;
    for (int i = 0; i < 4; i++) {
        int c = r->at + i < r->end ? r->at[i] : 0;
        if (!unichar_isxdigit(c)) {
            refuse(r, "Invalid \\uXXXX escape", r->at - 1);
        }
        code = code << 4 | unichar_xdigit_value(c);
    }
    r->at += 4;
    return code;
}

static mp_obj_t read_string(reader *r) {
    const byte *open = r->at++, *from = r->at;
    vstr_t v;
    bool escaped = false;
    for (;;) {
        int c = peek(r);
        if (c < 0) {
            refuse(r, "Unterminated string starting at", open);
        }
        if (c >= ' ' && c != '"' && c != '\\') {
            r->at++;
            continue;
        }
        if (c == '"') {
            size_t size = r->at++ - from;
            if (!escaped) {
                return mp_obj_new_str_copy(&mp_type_str, from, size);
            }
            vstr_add_strn(&v, (const char *)from, size);
            return mp_obj_new_str_from_utf8_vstr(&v);
        }
        if (c != '\\') {
            refuse(r, "Invalid control character at", r->at);
        }
        if (!escaped) {
            vstr_init(&v, 32);
            escaped = true;
        }
        vstr_add_strn(&v, (const char *)from, r->at - from);
        static const char names[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
        r->at++;
        c = peek(r);
        const char *name = c > 0 ? strchr(names, c) : NULL;
        if (name) {
            vstr_add_byte(&v, means[name - names]);
            r->at++;
        } else if (c == 'u') {
            r->at++;
            unichar code = four_digits(r);
            if (code >= 0xd800 && code < 0xdc00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u') {
                const byte *back = r->at;
                r->at += 2;
                unichar low = four_digits(r);
                if (low >= 0xdc00 && low < 0xe000) {
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                } else {
                    r->at = back;
                }
            }
            // MicroPython's text is UTF-8, which cannot have half of a surrogate pair.
            vstr_add_char(&v, code >= 0xd800 && code < 0xe000 ? 0xfffd : code);
        } else if (c < 0) {
            refuse(r, "Unterminated string starting at", open);
        } else {
            refuse(r, "Invalid \\escape", r->at - 1);
        }
        from = r->at;
    }
}

static bool digits(reader *r) {
    const byte *begin = r->at;
    while (r->at < r->end && unichar_isdigit(*r->at)) {
        r->at++;
    }
    return r->at > begin;
}

static bool word(reader *r, const char *text) {
    size_t size = strlen(text);
    if ((size_t)(r->end - r->at) < size || memcmp(r->at, text, size)) {
        return false;
    }
    r->at += size;
    return true;
}

static mp_obj_t read_number(reader *r) {
    const byte *begin = r->at;
    bool minus = peek(r) == '-';
    r->at += minus;
    if (peek(r) == '0') {
        r->at++;
    } else if (!digits(r)) {
        if (minus && word(r, "Infinity")) {
            return mp_obj_new_float(-INFINITY);
        }
        refuse(r, "Expecting value", begin);
    }
    const byte *whole = r->at;
    if (peek(r) == '.') {
        r->at++;
        r->at = digits(r) ? r->at : whole;
    }
    const byte *fraction = r->at;
    if (peek(r) == 'e' || peek(r) == 'E') {
        r->at++;
        r->at += peek(r) == '+' || peek(r) == '-';
        r->at = digits(r) ? r->at : fraction;
    }
    size_t size = r->at - begin;
    return r->at > whole ? mp_parse_num_float((const char *)begin, size, false, NULL) : mp_parse_num_integer((const char *)begin, size, 10, NULL);
}

static mp_obj_t read_value(reader *r) {
    MP_STACK_CHECK();
    int c = skip_space(r);
    if (c == '"') {
        return read_string(r);
    }
    if (c == '{') {
        mp_obj_t dict = mp_obj_new_dict(0);
        r->at++;
        if (skip_space(r) == '}') {
            r->at++;
            return dict;
        }
        for (;;) {
            if (skip_space(r) != '"') {
                refuse(r, "Expecting property name enclosed in double quotes", r->at);
            }
            mp_obj_t key = read_string(r);
            if (skip_space(r) != ':') {
                refuse(r, "Expecting ':' delimiter", r->at);
            }
            r->at++;
            mp_obj_dict_store(dict, key, read_value(r));
            c = skip_space(r);
            if (c == '}') {
                r->at++;
                return dict;
            }
            if (c != ',') {
                refuse(r, "Expecting ',' delimiter", r->at);
            }
            r->at++;
        }
    }
    if (c == '[') {
        mp_obj_t list = mp_obj_new_list(0, NULL);
        r->at++;
        if (skip_space(r) == ']') {
            r->at++;
            return list;
        }
        for (;;) {
            mp_obj_list_append(list, read_value(r));
            c = skip_space(r);
            if (c == ']') {
                r->at++;
                return list;
            }
            if (c != ',') {
                refuse(r, "Expecting ',' delimiter", r->at);
            }
            r->at++;
        }
    }
    if (word(r, "null")) {
        return mp_const_none;
    }
    if (word(r, "true")) {
        return mp_const_true;
    }
    if (word(r, "false")) {
        return mp_const_false;
    }
    if (word(r, "NaN")) {
        return mp_obj_new_float(NAN);
    }
    if (word(r, "Infinity")) {
        return mp_obj_new_float(INFINITY);
    }
    return read_number(r);
}

static mp_obj_t loads(mp_obj_t text) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(text, &info, MP_BUFFER_READ);
    reader r = {info.buf, info.buf, (const byte *)info.buf + info.len};
    if (!utf8_check(r.begin, info.len)) {
        mp_raise_msg(&mp_type_UnicodeError, MP_ERROR_TEXT("this is not UTF-8"));
    }
    mp_obj_t value = read_value(&r);
    if (skip_space(&r) >= 0) {
        refuse(&r, "Extra data", r.at);
    }
    return value;
}
static MP_DEFINE_CONST_FUN_OBJ_1(loads_object, loads);

typedef struct {
    vstr_t out;
    mp_print_t print;
    mp_obj_t item_separator, key_separator, indent, fallback;
    bool ascii;
} writer;

static void put(writer *w, mp_obj_t text) {
    size_t size;
    const char *at = mp_obj_str_get_data(text, &size);
    vstr_add_strn(&w->out, at, size);
}

static void write_string(writer *w, mp_obj_t text) {
    static const char names[] = "\"\\\b\f\n\r\t", escapes[] = "\"\\bfnrt";
    size_t size;
    const byte *at = (const byte *)mp_obj_str_get_data(text, &size), *end = at + size;
    vstr_add_byte(&w->out, '"');
    while (at < end) {
        const byte *from = at;
        while (at < end && *at >= ' ' && *at != '"' && *at != '\\' && (*at < 0x80 || !w->ascii)) {
            at++;
        }
        vstr_add_strn(&w->out, (const char *)from, at - from);
        if (at == end) {
            break;
        }
        unichar c = utf8_get_char(at);
        at = utf8_next_char(at);
        const char *name = c && c < 0x80 ? strchr(names, c) : NULL;
        if (name) {
            vstr_add_byte(&w->out, '\\');
            vstr_add_byte(&w->out, escapes[name - names]);
        } else if (c >= 0x10000) {
            mp_printf(&w->print, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
        } else {
            mp_printf(&w->print, "\\u%04x", c);
        }
    }
    vstr_add_byte(&w->out, '"');
}

static void new_line(writer *w, int level) {
    if (w->indent != mp_const_none) {
        vstr_add_byte(&w->out, '\n');
        while (level--) {
            put(w, w->indent);
        }
    }
}

static void write_float(writer *w, mp_obj_t value) {
    mp_float_t x = mp_obj_get_float(value);
    if (isnan(x)) {
        vstr_add_str(&w->out, "NaN");
    } else if (isinf(x)) {
        vstr_add_str(&w->out, x < 0 ? "-Infinity" : "Infinity");
    } else {
        mp_obj_print_helper(&w->print, value, PRINT_REPR);
    }
}

// A value as one of that type, also if its class is derived; MP_OBJ_NULL if it is not of that type.
static mp_obj_t as(mp_obj_t value, const mp_obj_type_t *type) {
    return mp_obj_is_exact_type(value, type) ? value : mp_obj_cast_to_native_base(value, MP_OBJ_FROM_PTR(type));
}

static void write_key(writer *w, mp_obj_t key) {
    if (mp_obj_is_str(key)) {
        write_string(w, key);
        return;
    }
    vstr_add_byte(&w->out, '"');
    if (key == mp_const_true || key == mp_const_false || key == mp_const_none) {
        vstr_add_str(&w->out, key == mp_const_true ? "true" : key == mp_const_false ? "false" : "null");
    } else if (mp_obj_is_int(key)) {
        mp_obj_print_helper(&w->print, key, PRINT_STR);
    } else if (mp_obj_is_float(key)) {
        write_float(w, key);
    } else {
        mp_raise_msg_varg(&mp_type_TypeError, MP_ERROR_TEXT("keys must be str, int, float, bool or None, not %s"), mp_obj_get_type_str(key));
    }
    vstr_add_byte(&w->out, '"');
}

static void write_value(writer *w, mp_obj_t value, int level) {
    MP_STACK_CHECK();
    mp_obj_t native;
    if (value == mp_const_none) {
        vstr_add_str(&w->out, "null");
    } else if (value == mp_const_true) {
        vstr_add_str(&w->out, "true");
    } else if (value == mp_const_false) {
        vstr_add_str(&w->out, "false");
    } else if (mp_obj_is_int(value)) {
        mp_obj_print_helper(&w->print, value, PRINT_STR);
    } else if (mp_obj_is_float(value)) {
        write_float(w, value);
    } else if (mp_obj_is_str(value)) {
        write_string(w, value);
    } else if ((native = as(value, &mp_type_dict)) != MP_OBJ_NULL) {
        mp_map_t *map = mp_obj_dict_get_map(native);
        bool first = true;
        vstr_add_byte(&w->out, '{');
        for (size_t i = 0; i < map->alloc; i++) {
            if (mp_map_slot_is_filled(map, i)) {
                if (!first) {
                    put(w, w->item_separator);
                }
                first = false;
                new_line(w, level + 1);
                write_key(w, map->table[i].key);
                put(w, w->key_separator);
                write_value(w, map->table[i].value, level + 1);
            }
        }
        if (!first) {
            new_line(w, level);
        }
        vstr_add_byte(&w->out, '}');
    } else if (IS_TUPLE(value) || (native = as(value, &mp_type_list)) != MP_OBJ_NULL || (native = as(value, &mp_type_tuple)) != MP_OBJ_NULL) {
        size_t count;
        mp_obj_t *items;
        mp_obj_get_array(IS_TUPLE(value) ? value : native, &count, &items);
        vstr_add_byte(&w->out, '[');
        for (size_t i = 0; i < count; i++) {
            if (i) {
                put(w, w->item_separator);
            }
            new_line(w, level + 1);
            write_value(w, items[i], level + 1);
        }
        if (count) {
            new_line(w, level);
        }
        vstr_add_byte(&w->out, ']');
    } else if ((native = as(value, &mp_type_str)) != MP_OBJ_NULL) {
        write_string(w, native);
    } else {
        write_value(w, mp_call_function_1(w->fallback, value), level);
    }
}

static mp_obj_t dumps(size_t count, const mp_obj_t *arguments) {
    writer w = {.item_separator = arguments[1], .key_separator = arguments[2], .indent = arguments[3],
                .ascii = mp_obj_is_true(arguments[4]), .fallback = arguments[5]};
    vstr_init_print(&w.out, 64, &w.print);
    write_value(&w, arguments[0], 0);
    return mp_obj_new_str_from_utf8_vstr(&w.out);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(dumps_object, 6, 6, dumps);

static const mp_rom_map_elem_t entries[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__json)},
    {MP_ROM_QSTR(MP_QSTR_loads), MP_ROM_PTR(&loads_object)},
    {MP_ROM_QSTR(MP_QSTR_dumps), MP_ROM_PTR(&dumps_object)},
};
static MP_DEFINE_CONST_DICT(globals, entries);
const mp_obj_module_t json_module = {.base = {&mp_type_module}, .globals = (mp_obj_dict_t *)&globals};
MP_REGISTER_MODULE(MP_QSTR__json, json_module);
