/* The least that is a filter: an allocator under its deprecated name `malloc`, and one callback that adds one header. */
#define ABI 2001
#include "proxy_wasm.h"

ABI_MARKER

static u64 block[8 << 10];
static u32 used;

EXPORT(malloc) void *allocate(u32 size) {
    size = (size + 7) & ~7u;
    if (size > sizeof block)
        return 0;
    if (size > sizeof block - used)
        used = 0;
    void *at = (u8 *)block + used;
    used += size;
    return at;
}

EXPORT(proxy_on_request_headers) u32 proxy_on_request_headers(u32 context, u32 count, u32 end_of_stream) {
    (void)context;
    (void)count;
    (void)end_of_stream;
    proxy_add_header_map_value(REQUEST_HEADERS, "x-minimal", 9, "yes", 3);
    return CONTINUE;
}
