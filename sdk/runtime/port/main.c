// The module around MicroPython: memory, packed files, and the callbacks of the ABI. Each callback calls the Python
// function of its number in `pw_handlers` (see modproxywasm.c), or returns the result for a filter without it.
#include <stdlib.h>
#include <string.h>

#include "py/builtin.h"
#include "py/compile.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/mpprint.h"
#include "py/pystack.h"
#include "py/runtime.h"
#include "py/stackctrl.h"

#include "abi.h"

#define HEAP (256 * 1024)
#define UNTIL_COLLECTED (160 * 1024)
#define PYSTACK (48 * 1024)
#define C_STACK (104 * 1024)

// Output and time ------------------------------------------------------------------------------------------------

static char line[1024];
static size_t line_size;

// Printed text is logged, line by line, at level info.
void pw_out(const char *text, unsigned long size) {
    while (size--) {
        char c = *text++;
        if (c == '\n' || line_size == sizeof line) {
            proxy_log(2, line, line_size);
            line_size = 0;
            if (c == '\n') {
                continue;
            }
        }
        line[line_size++] = c;
    }
}

void mp_hal_stdout_tx_strn_cooked(const char *text, size_t size) { pw_out(text, size); }

uint64_t pw_now(void) {
    uint64_t time = 0;
    proxy_get_current_time_nanoseconds(&time);
    return time;
}

// Memory ---------------------------------------------------------------------------------------------------------

// A collector that scans for pointers cannot find those in WebAssembly's locals. So while Python runs, the heap only
// grows by another area; it is collected between two callbacks.
static int collect_soon;
static size_t heap_limit = 16 * 1024 * 1024;

void gc_collect(void) { collect_soon = 1; }

size_t gc_get_max_new_split(void) {
    size_t total = 0;
    for (mp_state_mem_area_t *area = &MP_STATE_MEM(area); area; area = area->next) {
        total += area->gc_pool_end - area->gc_pool_start;
    }
    return total < heap_limit ? heap_limit - total : 0;
}

static void collect(void) {
    collect_soon = 0;
    gc_collect_start();
    gc_collect_end();
}

static void start_python(void) {
    static int started;
    static char pystack[PYSTACK];
    if (started) {
        return;
    }
    started = 1;
    mp_stack_ctrl_init();
    mp_stack_set_limit(C_STACK);
    char *heap = malloc(HEAP);
    mp_pystack_init(pystack, pystack + sizeof pystack);
    gc_init(heap, heap + HEAP);
    MP_STATE_MEM(gc_alloc_threshold) = UNTIL_COLLECTED / MICROPY_BYTES_PER_GC_BLOCK;
    mp_init();
}

void nlr_jump_fail(void *value) {
    static const char message[] = "an exception left Python";
    proxy_log(5, message, sizeof message - 1);
    __builtin_trap();
}

// Packed files ---------------------------------------------------------------------------------------------------

typedef struct file {
    struct file *next;
    char *text;
    size_t text_size;
    char path[];
} file;

static file *files;

static file *find(const char *path) {
    for (file *f = files; f; f = f->next) {
        if (!strcmp(f->path, path)) {
            return f;
        }
    }
    return NULL;
}

mp_lexer_t *mp_lexer_new_from_file(qstr name) {
    file *f = find(qstr_str(name));
    if (!f) {
        mp_raise_OSError(2);
    }
    return mp_lexer_new_from_str_len(name, f->text, f->text_size, 0);
}

mp_import_stat_t mp_import_stat(const char *path) {
    if (find(path)) {
        return MP_IMPORT_STAT_FILE;
    }
    size_t size = strlen(path);
    for (file *f = files; f; f = f->next) {
        if (!strncmp(f->path, path, size) && f->path[size] == '/') {
            return MP_IMPORT_STAT_DIR;
        }
    }
    return MP_IMPORT_STAT_NO_EXIST;
}

static mp_obj_t no_open(size_t count, const mp_obj_t *arguments, mp_map_t *names) { mp_raise_OSError(2); }
MP_DEFINE_CONST_FUN_OBJ_KW(mp_builtin_open_obj, 1, no_open);

// For the packer: adds a source file for imports. The file takes ownership of `text`.
EXPORT(pw_file) void pw_file(const char *path, size_t path_size, char *text, size_t text_size) {
    file *f = malloc(sizeof *f + path_size + 1);
    memcpy(f->path, path, path_size);
    f->path[path_size] = 0;
    f->text = text;
    f->text_size = text_size;
    f->next = files;
    files = f;
}

EXPORT(pw_heap_limit) void pw_heap_limit(uint32_t bytes) { heap_limit = bytes; }

static void forget_files(void) {
    while (files) {
        file *f = files;
        files = f->next;
        memset(f->text, 0, f->text_size);
        free(f->text);
        free(f);
    }
}

// Free memory becomes zero, so that a snapshot contains only used memory.
static void clean_heap(void) {
    for (mp_state_mem_area_t *area = &MP_STATE_MEM(area); area; area = area->next) {
        size_t blocks = area->gc_alloc_table_byte_len * 4;
        for (size_t b = 0; b < blocks; b++) {
            if (!((area->gc_alloc_table_start[b / 4] >> (2 * (b & 3))) & 3)) {
                memset(area->gc_pool_start + b * MICROPY_BYTES_PER_GC_BLOCK, 0, MICROPY_BYTES_PER_GC_BLOCK);
            }
        }
    }
    memset(MP_STATE_THREAD(pystack_start), 0, MP_STATE_THREAD(pystack_end) - MP_STATE_THREAD(pystack_start));
}

// For the packer: runs the statements in `text`. Returns 1 on success, else logs the traceback.
EXPORT(pw_run) int pw_run(const char *text, size_t size, int last) {
    start_python();
    mp_stack_ctrl_init();
    int good = 0;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_lexer_t *lexer = mp_lexer_new_from_str_len(MP_QSTR_pack, text, size, 0);
        qstr name = lexer->source_name;
        mp_parse_tree_t tree = mp_parse(lexer, MP_PARSE_FILE_INPUT);
        mp_call_function_0(mp_compile(&tree, name, false));
        nlr_pop();
        good = 1;
    } else {
        mp_obj_print_exception(&mp_plat_print, (mp_obj_t)nlr.ret_val);
    }
    if (last) {
        forget_files();
    }
    collect();
    collect();
    if (last) {
        clean_heap();
    }
    return good;
}

// Callbacks ------------------------------------------------------------------------------------------------------

// The number of a callback is its position in the list that is passed to `_proxywasm.handlers`.
enum {
    ON_VM_START, ON_CONFIGURE, ON_CONTEXT_CREATE, ON_TICK, ON_QUEUE_READY, ON_NEW_CONNECTION, ON_DOWNSTREAM_DATA,
    ON_UPSTREAM_DATA, ON_DOWNSTREAM_CLOSE, ON_UPSTREAM_CLOSE, ON_REQUEST_HEADERS, ON_REQUEST_BODY, ON_REQUEST_TRAILERS,
    ON_RESPONSE_HEADERS, ON_RESPONSE_BODY, ON_RESPONSE_TRAILERS, ON_HTTP_CALL_RESPONSE, ON_GRPC_INITIAL_METADATA,
    ON_GRPC_MESSAGE, ON_GRPC_TRAILING_METADATA, ON_GRPC_CLOSE, ON_FOREIGN_FUNCTION, ON_DONE, ON_LOG, ON_DELETE,
    ON_REDIS_CALL_RESPONSE,
};

static uint32_t call(int number, uint32_t otherwise, int count, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e) {
    mp_obj_t handler = MP_STATE_VM(pw_handlers)[number];
    if (handler == MP_OBJ_NULL || handler == mp_const_none) {
        return otherwise;
    }
    mp_stack_ctrl_init();
    uint32_t answer = otherwise;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        uint32_t words[5] = {a, b, c, d, e};
        mp_obj_t arguments[5];
        for (int i = 0; i < count; i++) {
            arguments[i] = mp_obj_new_int_from_uint(words[i]);
        }
        mp_obj_t result = mp_call_function_n_kw(handler, count, 0, arguments);
        if (mp_obj_is_int(result)) {
            answer = mp_obj_get_int(result);
        }
        nlr_pop();
    } else {
        // The SDK handles the exceptions of filters; this one has escaped from it.
        mp_obj_print_exception(&mp_plat_print, (mp_obj_t)nlr.ret_val);
    }
    if (collect_soon) {
        collect();
    }
    return answer;
}

EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}
EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(size_t size) { return malloc(size ? size : 1); }

#define CALLBACK1(name, number, otherwise) \
    EXPORT(name) uint32_t name(uint32_t a) { return call(number, otherwise, 1, a, 0, 0, 0, 0); }
#define CALLBACK2(name, number, otherwise) \
    EXPORT(name) uint32_t name(uint32_t a, uint32_t b) { return call(number, otherwise, 2, a, b, 0, 0, 0); }
#define CALLBACK3(name, number, otherwise) \
    EXPORT(name) uint32_t name(uint32_t a, uint32_t b, uint32_t c) { return call(number, otherwise, 3, a, b, c, 0, 0); }
#define NOTICE1(name, number) EXPORT(name) void name(uint32_t a) { call(number, 0, 1, a, 0, 0, 0, 0); }
#define NOTICE2(name, number) EXPORT(name) void name(uint32_t a, uint32_t b) { call(number, 0, 2, a, b, 0, 0, 0); }
#define NOTICE3(name, number) \
    EXPORT(name) void name(uint32_t a, uint32_t b, uint32_t c) { call(number, 0, 3, a, b, c, 0, 0); }

CALLBACK2(proxy_on_vm_start, ON_VM_START, 1)
CALLBACK2(proxy_on_configure, ON_CONFIGURE, 1)
NOTICE2(proxy_on_context_create, ON_CONTEXT_CREATE)
NOTICE1(proxy_on_tick, ON_TICK)
NOTICE2(proxy_on_queue_ready, ON_QUEUE_READY)
CALLBACK1(proxy_on_new_connection, ON_NEW_CONNECTION, 0)
CALLBACK3(proxy_on_downstream_data, ON_DOWNSTREAM_DATA, 0)
CALLBACK3(proxy_on_upstream_data, ON_UPSTREAM_DATA, 0)
NOTICE2(proxy_on_downstream_connection_close, ON_DOWNSTREAM_CLOSE)
NOTICE2(proxy_on_upstream_connection_close, ON_UPSTREAM_CLOSE)
CALLBACK3(proxy_on_request_headers, ON_REQUEST_HEADERS, 0)
CALLBACK3(proxy_on_request_body, ON_REQUEST_BODY, 0)
CALLBACK2(proxy_on_request_trailers, ON_REQUEST_TRAILERS, 0)
CALLBACK3(proxy_on_response_headers, ON_RESPONSE_HEADERS, 0)
CALLBACK3(proxy_on_response_body, ON_RESPONSE_BODY, 0)
CALLBACK2(proxy_on_response_trailers, ON_RESPONSE_TRAILERS, 0)
EXPORT(proxy_on_http_call_response)
void proxy_on_http_call_response(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e) {
    call(ON_HTTP_CALL_RESPONSE, 0, 5, a, b, c, d, e);
}
NOTICE3(proxy_on_grpc_receive_initial_metadata, ON_GRPC_INITIAL_METADATA)
NOTICE3(proxy_on_grpc_receive, ON_GRPC_MESSAGE)
NOTICE3(proxy_on_grpc_receive_trailing_metadata, ON_GRPC_TRAILING_METADATA)
NOTICE3(proxy_on_grpc_close, ON_GRPC_CLOSE)
NOTICE3(proxy_on_foreign_function, ON_FOREIGN_FUNCTION)
CALLBACK1(proxy_on_done, ON_DONE, 1)
NOTICE1(proxy_on_log, ON_LOG)
NOTICE1(proxy_on_delete, ON_DELETE)
EXPORT(proxy_on_redis_call_response) void proxy_on_redis_call_response(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    call(ON_REDIS_CALL_RESPONSE, 0, 4, a, b, c, d, 0);
}
