/* A filter that imports what only some hosts have: secrets, as those of several vendors offer them.
 *
 * Its configuration is the name of a secret. Each request gets the header `x-secret`, with the secret; or, if the host gives
 * none, `x-status`, with the status that it answered. The handle of the key-value store `store` goes into `x-store`.
 */
#define ABI 2001
#include "proxy_wasm.h"

ABI_MARKER

HOSTCALL(get_secret)(BYTES(name), OUT(secret));
HOSTCALL(kv_store_open)(BYTES(name), u32 *handle);

static u64 block[8 << 10];
static u32 used;
static char name[100];
static u32 name_size;

EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(u32 size) {
    size = (size + 7) & ~7u;
    if (size > sizeof block)
        return 0;
    if (size > sizeof block - used)
        used = 0;
    void *at = (u8 *)block + used;
    used += size;
    return at;
}

/* A header with a number as its value. */
static void number(const char *name, u32 name_size, u32 value) {
    char digits[10];
    u32 at = sizeof digits;
    do
        digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    proxy_add_header_map_value(REQUEST_HEADERS, name, name_size, digits + at, sizeof digits - at);
}

EXPORT(proxy_on_configure) u32 proxy_on_configure(u32 context, u32 size) {
    (void)context;
    void *configuration = 0;
    proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, sizeof name, &configuration, &size);
    for (name_size = 0; name_size < size; name_size++)
        name[name_size] = ((char *)configuration)[name_size];
    return 1;
}

EXPORT(proxy_on_request_headers) u32 proxy_on_request_headers(u32 context, u32 count, u32 end_of_stream) {
    (void)context;
    (void)count;
    (void)end_of_stream;
    void *secret = 0;
    u32 secret_size = 0, handle = 0;
    i32 status = proxy_get_secret(name, name_size, &secret, &secret_size);
    if (status == OK)
        proxy_add_header_map_value(REQUEST_HEADERS, "x-secret", 8, secret, secret_size);
    else
        number("x-status", 8, (u32)status);
    if (proxy_kv_store_open("store", 5, &handle) == OK)
        number("x-store", 7, handle);
    return CONTINUE;
}
