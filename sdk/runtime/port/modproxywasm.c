// The module `_proxywasm`: the hostcalls as Python functions, for the SDK. Header values and names are str, contents
// bytes, maps lists of (name, value). A call that the host refuses raises the exception set by `error`, with the status.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "py/objlist.h"
#include "py/objstr.h"
#include "py/objtuple.h"
#include "py/objtype.h"
#include "py/runtime.h"
#include "py/unicode.h"

#include "abi.h"

MP_REGISTER_ROOT_POINTER(mp_obj_t pw_handlers[26]);
MP_REGISTER_ROOT_POINTER(mp_obj_t pw_error);

static void check(uint32_t status) {
    if (status) {
        nlr_raise(mp_call_function_1(MP_STATE_VM(pw_error), MP_OBJ_NEW_SMALL_INT(status)));
    }
}

typedef struct {
    const char *at;
    size_t size;
} data;

static data bytes_of(mp_obj_t o) {
    mp_buffer_info_t info;
    mp_get_buffer_raise(o, &info, MP_BUFFER_READ);
    return (data){info.buf, info.len};
}

#define GIVE(d) (d).at, (d).size

// Bytes that are not UTF-8 are read as Latin-1, HTTP's historical encoding.
static mp_obj_t text(const char *at, size_t size) {
    if (utf8_check((const byte *)at, size)) {
        return mp_obj_new_str_copy(&mp_type_str, (const byte *)at, size);
    }
    vstr_t v;
    vstr_init(&v, 2 * size);
    for (size_t i = 0; i < size; i++) {
        vstr_add_char(&v, (unsigned char)at[i]);
    }
    return mp_obj_new_str_from_vstr(&v);
}

static mp_obj_t take_text(char *at, size_t size) {
    mp_obj_t o = text(at, size);
    free(at);
    return o;
}

static mp_obj_t take_bytes(char *at, size_t size) {
    mp_obj_t o = mp_obj_new_bytes((const byte *)at, size);
    free(at);
    return o;
}

// Pairs: their count, the sizes of each name and value, then each name and value with a zero after it.
static data pairs_of(mp_obj_t list, vstr_t *v) {
    size_t count;
    mp_obj_t *items;
    mp_obj_get_array(list, &count, &items);
    vstr_init(v, 64 * (count + 1));
    uint32_t n = count;
    vstr_add_strn(v, (char *)&n, 4);
    for (int content = 0; content < 2; content++) {
        for (size_t i = 0; i < count; i++) {
            mp_obj_t *pair;
            mp_obj_get_array_fixed_n(items[i], 2, &pair);
            for (int j = 0; j < 2; j++) {
                data d = bytes_of(pair[j]);
                n = d.size;
                if (content) {
                    vstr_add_strn(v, d.at, d.size);
                    vstr_add_byte(v, 0);
                } else {
                    vstr_add_strn(v, (char *)&n, 4);
                }
            }
        }
    }
    return (data){v->buf, v->len};
}

static mp_obj_t take_pairs(char *at, size_t size) {
    mp_obj_t list = mp_obj_new_list(0, NULL);
    if (!at || size < 4) {
        free(at);
        return list;
    }
    const uint32_t *sizes = (const uint32_t *)at;
    uint32_t count = *sizes++;
    const char *next = at + 4 + 8 * count;
    for (uint32_t i = 0; i < count; i++, sizes += 2) {
        mp_obj_t pair[2];
        pair[0] = text(next, sizes[0]);
        next += sizes[0] + 1;
        pair[1] = text(next, sizes[1]);
        next += sizes[1] + 1;
        mp_obj_list_append(list, mp_obj_new_tuple(2, pair));
    }
    free(at);
    return list;
}

#define INT(o) ((uint32_t)mp_obj_get_int_truncated(o))
#define FUNCTION0(name) static MP_DEFINE_CONST_FUN_OBJ_0(name##_object, name)
#define FUNCTION1(name) static MP_DEFINE_CONST_FUN_OBJ_1(name##_object, name)
#define FUNCTION2(name) static MP_DEFINE_CONST_FUN_OBJ_2(name##_object, name)
#define FUNCTION3(name) static MP_DEFINE_CONST_FUN_OBJ_3(name##_object, name)
#define FUNCTION(name, n) static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(name##_object, n, n, name)

// handlers(list): the functions for the callbacks, by their numbers in main.c; None for a callback without a handler.
static mp_obj_t handlers(mp_obj_t list) {
    mp_obj_t *items;
    mp_obj_get_array_fixed_n(list, 26, &items);
    memcpy(MP_STATE_VM(pw_handlers), items, 26 * sizeof *items);
    return mp_const_none;
}
FUNCTION1(handlers);

static mp_obj_t error(mp_obj_t type) {
    MP_STATE_VM(pw_error) = type;
    return mp_const_none;
}
FUNCTION1(error);

// The text that Python would print for an exception.
static mp_obj_t traceback(mp_obj_t exception) {
    vstr_t v;
    mp_print_t print;
    vstr_init_print(&v, 256, &print);
    mp_obj_print_exception(&print, exception);
    return mp_obj_new_str_from_vstr(&v);
}
FUNCTION1(traceback);

static mp_obj_t log_(mp_obj_t level, mp_obj_t message) {
    check(proxy_log(INT(level), GIVE(bytes_of(message))));
    return mp_const_none;
}
FUNCTION2(log_);

static mp_obj_t log_level(void) {
    uint32_t level = 0;
    check(proxy_get_log_level(&level));
    return mp_obj_new_int_from_uint(level);
}
FUNCTION0(log_level);

static mp_obj_t time_ns(void) {
    uint64_t time = 0;
    check(proxy_get_current_time_nanoseconds(&time));
    return mp_obj_new_int_from_ull(time);
}
FUNCTION0(time_ns);

static mp_obj_t random_bytes(mp_obj_t size) {
    vstr_t v;
    vstr_init_len(&v, INT(size));
    check(wasi_random_get(v.buf, v.len));
    return mp_obj_new_bytes_from_vstr(&v);
}
FUNCTION1(random_bytes);

static mp_obj_t tick_period(mp_obj_t milliseconds) {
    check(proxy_set_tick_period_milliseconds(INT(milliseconds)));
    return mp_const_none;
}
FUNCTION1(tick_period);

static mp_obj_t get_pairs(mp_obj_t map) {
    char *at = NULL;
    size_t size = 0;
    uint32_t status = proxy_get_header_map_pairs(INT(map), &at, &size);
    check(status == 1 ? 0 : status);
    return take_pairs(at, size);
}
FUNCTION1(get_pairs);

// Headers(map): the headers of a stream as a mapping. proxywasm/_headers.py documents it.
typedef struct {
    mp_obj_base_t base;
    mp_obj_t map;
} headers;

#define MAP(self) INT(((headers *)MP_OBJ_TO_PTR(self))->map)

static mp_obj_t headers_new(const mp_obj_type_t *type, size_t count, size_t names, const mp_obj_t *arguments) {
    mp_arg_check_num(count, names, 1, 1, false);
    headers *self = mp_obj_malloc(headers, type);
    self->map = arguments[0];
    return MP_OBJ_FROM_PTR(self);
}

// As `check`, for headers and trailers, which a filter can access only at certain times.
static void check_map(uint32_t status) {
    if (status == 2) {
        static const char words[] = "these headers have gone on, or are not there yet";
        mp_obj_t both[2] = {MP_OBJ_NEW_SMALL_INT(status), mp_obj_new_str(words, sizeof words - 1)};
        nlr_raise(mp_call_function_n_kw(MP_STATE_VM(pw_error), 2, 0, both));
    }
    check(status);
}

// The value of a header, or MP_OBJ_NULL.
static mp_obj_t header(mp_obj_t self, mp_obj_t name) {
    char *at = NULL;
    size_t size = 0;
    uint32_t status = proxy_get_header_map_value(MAP(self), GIVE(bytes_of(name)), &at, &size);
    if (status == 1 || (!status && !at)) {
        return MP_OBJ_NULL;
    }
    check_map(status);
    return take_text(at, size);
}

static void set_header(mp_obj_t self, mp_obj_t name, mp_obj_t value) {
    check_map(proxy_replace_header_map_value(MAP(self), GIVE(bytes_of(name)), GIVE(bytes_of(value))));
}

static void remove_header(mp_obj_t self, mp_obj_t name) {
    uint32_t status = proxy_remove_header_map_value(MAP(self), GIVE(bytes_of(name)));
    check_map(status == 1 ? 0 : status);
}

static mp_obj_t headers_subscr(mp_obj_t self, mp_obj_t name, mp_obj_t value) {
    if (value == MP_OBJ_NULL) {
        remove_header(self, name);
    } else if (value == MP_OBJ_SENTINEL) {
        value = header(self, name);
        if (value == MP_OBJ_NULL) {
            mp_raise_type_arg(&mp_type_KeyError, name);
        }
        return value;
    } else {
        set_header(self, name, value);
    }
    return mp_const_none;
}

static mp_obj_t headers_get(size_t count, const mp_obj_t *arguments) {
    mp_obj_t value = header(arguments[0], arguments[1]);
    return value != MP_OBJ_NULL ? value : count == 3 ? arguments[2] : mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(headers_get_object, 2, 3, headers_get);

static mp_obj_t headers_pop(size_t count, const mp_obj_t *arguments) {
    mp_obj_t value = headers_get(count, arguments);
    remove_header(arguments[0], arguments[1]);
    return value;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(headers_pop_object, 2, 3, headers_pop);

static mp_obj_t headers_add(mp_obj_t self, mp_obj_t name, mp_obj_t value) {
    check_map(proxy_add_header_map_value(MAP(self), GIVE(bytes_of(name)), GIVE(bytes_of(value))));
    return mp_const_none;
}
FUNCTION3(headers_add);

static mp_obj_t headers_items(mp_obj_t self) { return get_pairs(((headers *)MP_OBJ_TO_PTR(self))->map); }
FUNCTION1(headers_items);

// One side of all pairs, or only of those with this name, if given.
static mp_obj_t side(mp_obj_t self, int which, mp_obj_t name) {
    size_t count;
    mp_obj_t *items, list = mp_obj_new_list(0, NULL);
    mp_obj_get_array(headers_items(self), &count, &items);
    for (size_t i = 0; i < count; i++) {
        mp_obj_t *pair;
        mp_obj_get_array_fixed_n(items[i], 2, &pair);
        if (name != MP_OBJ_NULL) {
            data a = bytes_of(name), b = bytes_of(pair[0]);
            if (a.size != b.size || strncasecmp(a.at, b.at, a.size)) {
                continue;
            }
        }
        mp_obj_list_append(list, pair[which]);
    }
    return list;
}

static mp_obj_t headers_keys(mp_obj_t self) { return side(self, 0, MP_OBJ_NULL); }
static mp_obj_t headers_values(mp_obj_t self) { return side(self, 1, MP_OBJ_NULL); }
static mp_obj_t headers_get_all(mp_obj_t self, mp_obj_t name) { return side(self, 1, name); }
FUNCTION1(headers_keys);
FUNCTION1(headers_values);
FUNCTION2(headers_get_all);

static mp_obj_t headers_update(mp_obj_t self, mp_obj_t others) {
    if (mp_obj_is_dict_or_ordereddict(others)) {
        mp_map_t *map = mp_obj_dict_get_map(others);
        for (size_t i = 0; i < map->alloc; i++) {
            if (mp_map_slot_is_filled(map, i)) {
                set_header(self, map->table[i].key, map->table[i].value);
            }
        }
        return mp_const_none;
    }
    mp_obj_t method[2];
    mp_load_method_maybe(others, MP_QSTR_items, method);
    mp_obj_t one, *pair, all = mp_getiter(method[0] == MP_OBJ_NULL ? others : mp_call_method_n_kw(0, 0, method), NULL);
    while ((one = mp_iternext(all)) != MP_OBJ_STOP_ITERATION) {
        mp_obj_get_array_fixed_n(one, 2, &pair);
        set_header(self, pair[0], pair[1]);
    }
    return mp_const_none;
}
FUNCTION2(headers_update);

static mp_obj_t headers_replace(mp_obj_t self, mp_obj_t pairs) {
    vstr_t v;
    check_map(proxy_set_header_map_pairs(MAP(self), GIVE(pairs_of(pairs, &v))));
    return mp_const_none;
}
FUNCTION2(headers_replace);

static mp_obj_t headers_unary(mp_unary_op_t op, mp_obj_t self) {
    mp_obj_t all = op == MP_UNARY_OP_LEN || op == MP_UNARY_OP_BOOL ? headers_items(self) : MP_OBJ_NULL;
    return all == MP_OBJ_NULL ? MP_OBJ_NULL : mp_unary_op(op, all);
}

static mp_obj_t headers_binary(mp_binary_op_t op, mp_obj_t self, mp_obj_t other) {
    return op == MP_BINARY_OP_CONTAINS ? mp_obj_new_bool(header(self, other) != MP_OBJ_NULL) : MP_OBJ_NULL;
}

static mp_obj_t headers_iter(mp_obj_t self, mp_obj_iter_buf_t *buffer) { return mp_getiter(headers_keys(self), buffer); }

static void headers_print(const mp_print_t *print, mp_obj_t self, mp_print_kind_t kind) {
    mp_print_str(print, "Headers(");
    mp_obj_print_helper(print, headers_items(self), PRINT_REPR);
    mp_print_str(print, ")");
}

#define METHOD(name) {MP_ROM_QSTR(MP_QSTR_##name), MP_ROM_PTR(&headers_##name##_object)}
static const mp_rom_map_elem_t headers_methods[] = {
    METHOD(get), METHOD(pop), METHOD(add), METHOD(items), METHOD(keys), METHOD(values), METHOD(get_all), METHOD(update),
    METHOD(replace),
};
static MP_DEFINE_CONST_DICT(headers_locals, headers_methods);

static MP_DEFINE_CONST_OBJ_TYPE(
    headers_type, MP_QSTR_Headers, MP_TYPE_FLAG_ITER_IS_GETITER, make_new, headers_new, print, headers_print,
    unary_op, headers_unary, binary_op, headers_binary, subscr, headers_subscr, iter, headers_iter,
    locals_dict, &headers_locals);

static mp_obj_t get_buffer(mp_obj_t type, mp_obj_t start, mp_obj_t size) {
    char *at = NULL;
    size_t got = 0;
    uint32_t status = proxy_get_buffer_bytes(INT(type), INT(start), INT(size), &at, &got);
    check(status == 1 ? 0 : status);
    return take_bytes(at, got);
}
FUNCTION3(get_buffer);

static mp_obj_t set_buffer(size_t n, const mp_obj_t *a) {
    check(proxy_set_buffer_bytes(INT(a[0]), INT(a[1]), INT(a[2]), GIVE(bytes_of(a[3]))));
    return mp_const_none;
}
FUNCTION(set_buffer, 4);

static mp_obj_t continue_stream(mp_obj_t type) {
    check(proxy_continue_stream(INT(type)));
    return mp_const_none;
}
FUNCTION1(continue_stream);

static mp_obj_t close_stream(mp_obj_t type) {
    check(proxy_close_stream(INT(type)));
    return mp_const_none;
}
FUNCTION1(close_stream);

static mp_obj_t local_response(size_t n, const mp_obj_t *a) {
    vstr_t v;
    check(proxy_send_local_response(INT(a[0]), GIVE(bytes_of(a[1])), GIVE(bytes_of(a[2])), GIVE(pairs_of(a[3], &v)), INT(a[4])));
    return mp_const_none;
}
FUNCTION(local_response, 5);

static mp_obj_t http_call(size_t n, const mp_obj_t *a) {
    uint32_t token = 0;
    vstr_t headers, trailers;
    check(proxy_http_call(GIVE(bytes_of(a[0])), GIVE(pairs_of(a[1], &headers)), GIVE(bytes_of(a[2])),
        GIVE(pairs_of(a[3], &trailers)), INT(a[4]), &token));
    return mp_obj_new_int_from_uint(token);
}
FUNCTION(http_call, 5);

static mp_obj_t grpc_call(size_t n, const mp_obj_t *a) {
    uint32_t token = 0;
    vstr_t v;
    check(proxy_grpc_call(GIVE(bytes_of(a[0])), GIVE(bytes_of(a[1])), GIVE(bytes_of(a[2])), GIVE(pairs_of(a[3], &v)),
        GIVE(bytes_of(a[4])), INT(a[5]), &token));
    return mp_obj_new_int_from_uint(token);
}
FUNCTION(grpc_call, 6);

static mp_obj_t grpc_stream(size_t n, const mp_obj_t *a) {
    uint32_t token = 0;
    vstr_t v;
    check(proxy_grpc_stream(GIVE(bytes_of(a[0])), GIVE(bytes_of(a[1])), GIVE(bytes_of(a[2])), GIVE(pairs_of(a[3], &v)), &token));
    return mp_obj_new_int_from_uint(token);
}
FUNCTION(grpc_stream, 4);

static mp_obj_t grpc_send(mp_obj_t token, mp_obj_t message, mp_obj_t end) {
    check(proxy_grpc_send(INT(token), GIVE(bytes_of(message)), mp_obj_is_true(end)));
    return mp_const_none;
}
FUNCTION3(grpc_send);

static mp_obj_t grpc_cancel(mp_obj_t token) {
    check(proxy_grpc_cancel(INT(token)));
    return mp_const_none;
}
FUNCTION1(grpc_cancel);

static mp_obj_t grpc_close(mp_obj_t token) {
    check(proxy_grpc_close(INT(token)));
    return mp_const_none;
}
FUNCTION1(grpc_close);

// (code, message) of the gRPC call whose callback runs.
static mp_obj_t status(void) {
    uint32_t code = 0;
    char *at = NULL;
    size_t size = 0;
    check(proxy_get_status(&code, &at, &size));
    mp_obj_t both[2] = {mp_obj_new_int_from_uint(code), take_text(at, size)};
    return mp_obj_new_tuple(2, both);
}
FUNCTION0(status);

static mp_obj_t get_property(mp_obj_t path) {
    char *at = NULL;
    size_t size = 0;
    uint32_t status = proxy_get_property(GIVE(bytes_of(path)), &at, &size);
    if (status == 1) {
        return mp_const_none;
    }
    check(status);
    return take_bytes(at, size);
}
FUNCTION1(get_property);

static mp_obj_t set_property(mp_obj_t path, mp_obj_t value) {
    check(proxy_set_property(GIVE(bytes_of(path)), GIVE(bytes_of(value))));
    return mp_const_none;
}
FUNCTION2(set_property);

// (value, compare-and-swap token), or None if the key has no value.
static mp_obj_t get_shared(mp_obj_t key) {
    char *at = NULL;
    size_t size = 0;
    uint32_t cas = 0;
    uint32_t status = proxy_get_shared_data(GIVE(bytes_of(key)), &at, &size, &cas);
    if (status == 1) {
        return mp_const_none;
    }
    check(status);
    mp_obj_t both[2] = {take_bytes(at, size), mp_obj_new_int_from_uint(cas)};
    return mp_obj_new_tuple(2, both);
}
FUNCTION1(get_shared);

static mp_obj_t set_shared(mp_obj_t key, mp_obj_t value, mp_obj_t cas) {
    check(proxy_set_shared_data(GIVE(bytes_of(key)), GIVE(bytes_of(value)), INT(cas)));
    return mp_const_none;
}
FUNCTION3(set_shared);

static mp_obj_t register_queue(mp_obj_t name) {
    uint32_t queue = 0;
    check(proxy_register_shared_queue(GIVE(bytes_of(name)), &queue));
    return mp_obj_new_int_from_uint(queue);
}
FUNCTION1(register_queue);

static mp_obj_t resolve_queue(mp_obj_t vm, mp_obj_t name) {
    uint32_t queue = 0;
    check(proxy_resolve_shared_queue(GIVE(bytes_of(vm)), GIVE(bytes_of(name)), &queue));
    return mp_obj_new_int_from_uint(queue);
}
FUNCTION2(resolve_queue);

static mp_obj_t enqueue(mp_obj_t queue, mp_obj_t value) {
    check(proxy_enqueue_shared_queue(INT(queue), GIVE(bytes_of(value))));
    return mp_const_none;
}
FUNCTION2(enqueue);

static mp_obj_t dequeue(mp_obj_t queue) {
    char *at = NULL;
    size_t size = 0;
    uint32_t status = proxy_dequeue_shared_queue(INT(queue), &at, &size);
    if (status == 7) {
        return mp_const_none;
    }
    check(status);
    return take_bytes(at, size);
}
FUNCTION1(dequeue);

static mp_obj_t define_metric(mp_obj_t type, mp_obj_t name) {
    uint32_t metric = 0;
    check(proxy_define_metric(INT(type), GIVE(bytes_of(name)), &metric));
    return mp_obj_new_int_from_uint(metric);
}
FUNCTION2(define_metric);

static mp_obj_t increment_metric(mp_obj_t metric, mp_obj_t offset) {
    check(proxy_increment_metric(INT(metric), mp_obj_get_int(offset)));
    return mp_const_none;
}
FUNCTION2(increment_metric);

static mp_obj_t record_metric(mp_obj_t metric, mp_obj_t value) {
    check(proxy_record_metric(INT(metric), mp_obj_get_int(value)));
    return mp_const_none;
}
FUNCTION2(record_metric);

static mp_obj_t get_metric(mp_obj_t metric) {
    uint64_t value = 0;
    check(proxy_get_metric(INT(metric), &value));
    return mp_obj_new_int_from_ull(value);
}
FUNCTION1(get_metric);

static mp_obj_t foreign(mp_obj_t name, mp_obj_t argument) {
    char *at = NULL;
    size_t size = 0;
    check(proxy_call_foreign_function(GIVE(bytes_of(name)), GIVE(bytes_of(argument)), &at, &size));
    return take_bytes(at, size);
}
FUNCTION2(foreign);

static mp_obj_t effective_context(mp_obj_t context) {
    check(proxy_set_effective_context(INT(context)));
    return mp_const_none;
}
FUNCTION1(effective_context);

// like(instance): another instance of its class with the same attributes, made without a constructor.
static mp_obj_t like(mp_obj_t prototype) {
    mp_obj_instance_t *old = MP_OBJ_TO_PTR(prototype);
    const mp_obj_type_t *native = NULL;
    mp_obj_instance_t *new = mp_obj_new_instance(old->base.type, &native);
    if (native) {
        mp_raise_TypeError(MP_ERROR_TEXT("a filter may not derive from a built-in type"));
    }
    mp_map_init(&new->members, old->members.alloc);
    new->members.used = old->members.used;
    memcpy(new->members.table, old->members.table, old->members.used * sizeof(mp_map_elem_t));
    return MP_OBJ_FROM_PTR(new);
}
FUNCTION1(like);

static mp_obj_t done(void) {
    check(proxy_done());
    return mp_const_none;
}
FUNCTION0(done);

static mp_obj_t redis_init(size_t n, const mp_obj_t *a) {
    check(proxy_redis_init(GIVE(bytes_of(a[0])), GIVE(bytes_of(a[1])), GIVE(bytes_of(a[2])), INT(a[3])));
    return mp_const_none;
}
FUNCTION(redis_init, 4);

static mp_obj_t redis_call(mp_obj_t cluster, mp_obj_t command) {
    uint32_t token = 0;
    check(proxy_redis_call(GIVE(bytes_of(cluster)), GIVE(bytes_of(command)), &token));
    return mp_obj_new_int_from_uint(token);
}
FUNCTION2(redis_call);

#define ENTRY(name) {MP_ROM_QSTR(MP_QSTR_##name), MP_ROM_PTR(&name##_object)}
static const mp_rom_map_elem_t entries[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__proxywasm)},
    {MP_ROM_QSTR(MP_QSTR_log), MP_ROM_PTR(&log__object)},
    ENTRY(handlers), ENTRY(traceback), ENTRY(error), ENTRY(log_level), ENTRY(time_ns), ENTRY(random_bytes), ENTRY(tick_period),
    {MP_ROM_QSTR(MP_QSTR_Headers), MP_ROM_PTR(&headers_type)}, ENTRY(get_pairs), ENTRY(like),
    ENTRY(get_buffer), ENTRY(set_buffer), ENTRY(continue_stream), ENTRY(close_stream), ENTRY(local_response),
    ENTRY(http_call), ENTRY(grpc_call), ENTRY(grpc_stream), ENTRY(grpc_send), ENTRY(grpc_cancel), ENTRY(grpc_close),
    ENTRY(status), ENTRY(get_property), ENTRY(set_property), ENTRY(get_shared), ENTRY(set_shared),
    ENTRY(register_queue), ENTRY(resolve_queue), ENTRY(enqueue), ENTRY(dequeue), ENTRY(define_metric),
    ENTRY(increment_metric), ENTRY(record_metric), ENTRY(get_metric), ENTRY(foreign), ENTRY(effective_context),
    ENTRY(done), ENTRY(redis_init), ENTRY(redis_call),
};
static MP_DEFINE_CONST_DICT(globals, entries);
const mp_obj_module_t proxywasm_module = {.base = {&mp_type_module}, .globals = (mp_obj_dict_t *)&globals};
MP_REGISTER_MODULE(MP_QSTR__proxywasm, proxywasm_module);
