/* A filter that does what its configuration tells it: any hostcall, with any argument, from any callback.
 *
 * The plugin configuration is a script, run by the plugin's contexts and their streams. The VM configuration is another one,
 * for what comes before: on_vm_start, and on_context_create of root contexts (in ABI 0.1.0 whatever configuration the host
 * gives there). One instruction a line. Empty lines and lines that start with # are left out.
 *
 *     @on_request_headers                   a section: what to do in proxy_on_request_headers
 *     get_header_map_value 0 :path              logs, at level info:  get_header_map_value(0, :path) = 0 "/"
 *     get_header_map_value 0 nope               logs                  get_header_map_value(0, nope) = 1
 *     add_header_map_value 0 x-a two%20words
 *     http_call upstream :method=GET&:path=/&:authority=x "" "" 1000      logs  http_call(upstream, ...) = 0 4
 *     if_status 0
 *     return 1
 *     @on_http_call_response
 *     get_header_map_pairs 6                    logs  get_header_map_pairs(6) = 0 [:status=200, server=x]
 *     set_effective_context $stream
 *     continue_stream 0
 *
 * SECTIONS  @ and the callback without proxy_. Every callback of the ABI version has one. Of several that suit, the best is
 * run: @name/2 (the second invocation of that callback in the same context), @name/eos (end_of_stream is not 0), @name/root
 * (the context is a root context), @name. The first of equals. Without `return`, actions are 0 and booleans 1.
 *
 * HOSTCALLS  the name without proxy_, or the WASI name, then one token for each input (not for pointers to results). After
 * the call it logs the name, the arguments as they are written, the status, and the results if the status is 0: bytes in
 * quotes (%xx for what is not printable, for " and for %), pairs in brackets, numbers in decimal, `-` for a slot that
 * cannot be read, `<not in memory: PTR:LEN>` for bytes that the host put nowhere, `ok` or `zero` for a time, nothing for
 * random bytes. More than 16384 bytes are cut: "..."...[LEN]. A slot that the host left alone shows 4008636142 (0xeeeeeeee).
 *   integer  -5  0xff  $var  $mem-4 (terms with + and -)
 *            $ctx $1 $2 ... parameters of this callback ($ctx is $1)   $stream $root  the contexts created last
 *            $token  last queue token, call token or metric id         $cas $status   of the last call
 *            $ptr $size  last bytes that the host gave                 $a $b $c $d    of `set`
 *            $mem  size of memory in bytes                             $free  address of 1024 bytes that nothing uses
 *   bytes    percent-decoded text; "" is empty; at:PTR:LEN that range, whatever it is; fill:TEXT:LEN is TEXT repeated
 *   pairs    a=b&c=d, each part percent-decoded; "" a range of no bytes; pairs: a map of no pairs; raw:BYTES; at: and fill:
 * WASI: fd_write FD BYTES, fd_read FD, fd_close FD, fd_seek FD, fd_fdstat_get FD, fd_prestat_get FD, path_open,
 * random_get LEN (or at:PTR:LEN), clock_time_get ID, clock_res_get ID, environ_get, environ_sizes_get, args_get,
 * args_sizes_get, poll_oneoff (one clock), sched_yield, proc_exit CODE.
 *
 * BEFORE A LINE (each holds for the next line that is none of these three)
 *   if_status N    only if the last hostcall's status was N          repeat N   that many times
 *   out PTR ...    the next hostcall's result slots, in order: two (pointer, size) for bytes, pairs and strings, one for others
 *
 * THE REST
 *   return N       ends the section with that result                 set a N    $a is N from now on, in every callback
 *   say TEXT       logs the rest of the line, percent-decoded        log N TEXT the same at level N. Logged again only if refused
 *   peek PTR LEN   logs memory                                       poke PTR BYTES  writes memory
 *   trap, loop, recurse (endless), divide (by zero), oob (loads outside of memory), grow PAGES (logs the old size, or -1)
 *   allocator M    what proxy_on_memory_allocate does: normal, zero (gives 0), far (0xfffffff0), trap, grow (memory, then gives
 *                  a block in the new page), call (proxy_done, then as normal)
 * `unknown instruction: LINE`, `bad argument: LINE` and `too many arguments: LINE` are logged at level error, and the script
 * goes on. A hostcall of another ABI version is an unknown instruction.
 */
#include "proxy_wasm.h"

ABI_MARKER

/* ---- Text ---- */

struct span {
    const u8 *at;
    u32 size;
};

static u32 length(const char *text) {
    u32 size = 0;
    while (text[size])
        size++;
    return size;
}

void *memcpy(void *to, const void *from, unsigned long size) {
    for (u32 i = 0; i < size; i++)
        ((u8 *)to)[i] = ((const u8 *)from)[i];
    return to;
}

void *memset(void *at, int value, unsigned long size) {
    for (u32 i = 0; i < size; i++)
        ((u8 *)at)[i] = (u8)value;
    return at;
}

static int starts(struct span span, const char *prefix) {
    u32 size = length(prefix);
    if (span.size < size)
        return 0;
    for (u32 i = 0; i < size; i++)
        if (span.at[i] != (u8)prefix[i])
            return 0;
    return 1;
}

static int equals(struct span span, const char *text) {
    return span.size == length(text) && starts(span, text);
}

static struct span skip(struct span span, u32 count) {
    return (struct span){span.at + count, span.size - count};
}

static u32 find(struct span span, u8 wanted) {
    u32 i = 0;
    while (i < span.size && span.at[i] != wanted)
        i++;
    return i;
}

/* Cuts `rest` at the first `separator`, which is dropped, and returns what stood before it. */
static struct span cut(struct span *rest, u8 separator) {
    u32 size = find(*rest, separator);
    struct span head = {rest->at, size};
    *rest = skip(*rest, size < rest->size ? size + 1 : size);
    return head;
}

static struct span next_token(struct span *line) {
    while (line->size && *line->at == ' ')
        *line = skip(*line, 1);
    return cut(line, ' ');
}

static int hex(u8 digit) {
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* ---- Memory ---- */

#define PAGE 65536u
#define MEMORY_LIMIT (64u << 20)

static u64 memory_bytes(void) {
    return (u64)__builtin_wasm_memory_size(0) * PAGE;
}

static u32 grow_pages(u32 count) {
    return (u32)__builtin_wasm_memory_grow(0, count);
}

/* The address of fresh pages, or 0: the filter's own growth stops at 64 MiB, that of `grow` does not. */
static u32 more_memory(u32 pages) {
    u32 old = memory_bytes() + (u64)pages * PAGE > MEMORY_LIMIT ? ~0u : grow_pages(pages);
    return old == ~0u ? 0 : old * PAGE;
}

static int in_memory(u32 at, u64 size) {
    return at + size <= memory_bytes();
}

static u32 address(const void *at) {
    return (u32)(unsigned long)at;
}

static u8 *pointer(u32 at) {
    return (u8 *)(unsigned long)at;
}

static u32 load32(u32 at) {
    u32 value;
    memcpy(&value, pointer(at), 4);
    return value;
}

static u64 load64(u32 at) {
    u64 value;
    memcpy(&value, pointer(at), 8);
    return value;
}

/* A bump allocator: blocks are 8-aligned. When one does not fit, a ring starts again from its beginning,
 * or moves to fresh pages if it is too small for it. Each block of a ring is therefore overwritten sooner or later. */
struct ring {
    u8 *base;
    u32 size, used;
    int moves;  /* to fresh pages, always: never overwrites a block that was not given back */
};

static u8 *take(struct ring *ring, u32 size) {
    if (size > MEMORY_LIMIT)
        return 0;
    size = (size + 7) & ~7u;
    if (size > ring->size || (ring->moves && size > ring->size - ring->used)) {
        u32 pages = (size + PAGE - 1) / PAGE, at = more_memory(pages);
        if (!at)
            return 0;
        ring->base = pointer(at);
        ring->size = pages * PAGE;
        ring->used = 0;
    } else if (size > ring->size - ring->used)
        ring->used = 0;
    u8 *block = ring->base + ring->used;
    ring->used += size;
    return block;
}

static u64 results_block[128 << 10], scratch_block[32 << 10], playground[128];
static struct ring results = {(u8 *)results_block, sizeof results_block, 0, 0};  /* what the host allocates */
static struct ring scratch = {(u8 *)scratch_block, sizeof scratch_block, 0, 1};  /* decoded arguments of one instruction */

/* ---- Lines to log ---- */

#define LINE_SIZE (64u << 10)
#define BYTES_SHOWN 16384u

static u8 line[LINE_SIZE];
static u32 line_size;

static void put_byte(u8 byte) {
    if (line_size < LINE_SIZE)
        line[line_size++] = byte;
}

static void put_span(struct span span) {
    for (u32 i = 0; i < span.size; i++)
        put_byte(span.at[i]);
}

static void put(const char *text) {
    put_span((struct span){(const u8 *)text, length(text)});
}

static void put_number(u64 number) {
    u8 digits[20];
    u32 count = 0;
    do
        digits[count++] = '0' + number % 10;
    while (number /= 10);
    while (count)
        put_byte(digits[--count]);
}

static void put_escaped(u32 at, u32 size) {
    static const char digits[] = "0123456789abcdef";
    for (u32 i = 0; i < size && i < BYTES_SHOWN; i++) {
        u8 byte = pointer(at)[i];
        if (byte < 0x20 || byte > 0x7e || byte == '"' || byte == '%') {
            put_byte('%');
            put_byte(digits[byte >> 4]);
            put_byte(digits[byte & 15]);
        } else
            put_byte(byte);
    }
}

static void put_quoted(u32 at, u32 size) {
    if (!in_memory(at, size)) {
        put("<not in memory: ");
        put_number(at);
        put_byte(':');
        put_number(size);
        put_byte('>');
        return;
    }
    put_byte('"');
    put_escaped(at, size);
    put_byte('"');
    if (size > BYTES_SHOWN) {
        put("...[");
        put_number(size);
        put_byte(']');
    }
}

/* [a=b, c=d] when the range holds well-formed pairs, else `malformed "..."`. */
static void put_pairs(u32 at, u32 size) {
    u64 end = size >= 4 && in_memory(at, size) ? 4 + (u64)load32(at) * 8 : 0;
    int fits = end && end <= size;
    u32 count = fits ? load32(at) : 0;
    for (u32 i = 0; i < count; i++)
        end += (u64)load32(at + 4 + i * 8) + load32(at + 8 + i * 8) + 2;
    if (size && (!fits || end != size)) {
        put("malformed ");
        put_quoted(at, size);
        return;
    }
    u32 next = at + 4 + count * 8;
    put_byte('[');
    for (u32 i = 0; i < count; i++) {
        u32 key = load32(at + 4 + i * 8), value = load32(at + 8 + i * 8);
        if (i)
            put(", ");
        put_escaped(next, key);
        put_byte('=');
        put_escaped(next + key + 1, value);
        next += key + value + 2;
    }
    put_byte(']');
}

static void flush(u32 level) {
    u32 size = line_size;
    line_size = 0;
    proxy_log(level, line, size);
}

static void complain(const char *what, struct span line_of_script) {
    line_size = 0;
    put(what);
    put_span(line_of_script);
    flush(LOG_ERROR);
}

/* ---- Contexts ---- */

#define CALLBACKS 32
#define ROOTS 64
#define STREAMS 512

struct script {
    u8 *at;
    u32 size, capacity;
};

struct root {
    u32 id;
    struct script script;
    u16 calls[CALLBACKS];
};

struct stream {
    u32 id, root;
    u16 calls[CALLBACKS];
};

static struct script vm_script;
static struct root roots[ROOTS], *newest_root;
static struct stream streams[STREAMS];

static struct root *find_root(u32 id) {
    for (u32 i = 0; id && i < ROOTS; i++)
        if (roots[i].id == id)
            return &roots[i];
    return 0;
}

static struct stream *find_stream(u32 id) {
    for (u32 i = 0; id && i < STREAMS; i++)
        if (streams[i].id == id)
            return &streams[i];
    return 0;
}

/* A full table gives its first place again and again: a test with that many live contexts gets wrong counts, no trap. */
static void add_context(u32 id, u32 parent) {
    if (parent) {
        struct stream *stream = find_stream(id);
        for (u32 i = 0; !stream && i < STREAMS; i++)
            if (!streams[i].id)
                stream = &streams[i];
        if (!stream)
            stream = &streams[0];
        memset(stream, 0, sizeof *stream);
        stream->id = id;
        stream->root = parent;
    } else {
        struct root *root = find_root(id);
        for (u32 i = 0; !root && i < ROOTS; i++)
            if (!roots[i].id)
                root = &roots[i];
        if (!root)
            root = &roots[0];
        root->id = id;
        root->script.size = 0;
        memset(root->calls, 0, sizeof root->calls);
        newest_root = root;
    }
}

static void forget_context(u32 id) {
    struct root *root = find_root(id);
    struct stream *stream = find_stream(id);
    if (root)
        root->id = 0;
    if (stream)
        stream->id = 0;
}

/* ---- One callback ---- */

struct frame {
    const u32 *parameters;
    u32 parameter_count, scratch_mark;
};

static struct frame frame;
static u32 last_stream, last_root, last_token, last_cas, last_status, last_at, last_size;
static i64 variables[4];

static struct span slots_wanted;  /* the slots that `out` gave for the next hostcall */

static int variable(struct span name, i64 *value) {
    if (name.size == 1 && *name.at >= '1' && *name.at <= '9') {
        u32 index = *name.at - '1';
        *value = index < frame.parameter_count ? frame.parameters[index] : 0;
        return index < frame.parameter_count;
    }
    if (name.size == 1 && *name.at >= 'a' && *name.at <= 'd')
        *value = variables[*name.at - 'a'];
    else if (equals(name, "ctx"))
        *value = frame.parameters[0];
    else if (equals(name, "stream"))
        *value = last_stream;
    else if (equals(name, "root"))
        *value = last_root;
    else if (equals(name, "token"))
        *value = last_token;
    else if (equals(name, "cas"))
        *value = last_cas;
    else if (equals(name, "status"))
        *value = last_status;
    else if (equals(name, "ptr"))
        *value = last_at;
    else if (equals(name, "size"))
        *value = last_size;
    else if (equals(name, "mem"))
        *value = memory_bytes();
    else if (equals(name, "free"))
        *value = address(playground);
    else
        return 0;
    return 1;
}

static int term(struct span text, i64 *value) {
    if (starts(text, "$"))
        return variable(skip(text, 1), value);
    u32 base = starts(text, "0x") ? 16 : 10, i = base == 16 ? 2 : 0;
    u64 sum = 0;
    if (i == text.size)
        return 0;
    for (; i < text.size; i++) {
        int digit = hex(text.at[i]);
        if (digit < 0 || digit >= (int)base)
            return 0;
        sum = sum * base + digit;
    }
    *value = sum;
    return 1;
}

/* -5, 0xff, $token, $mem-4 */
static int integer(struct span text, i64 *value) {
    u64 sum = 0;
    int minus = starts(text, "-");
    if (minus)
        text = skip(text, 1);
    do {
        u32 end = 0;
        while (end < text.size && text.at[end] != '+' && text.at[end] != '-')
            end++;
        i64 part;
        if (!term((struct span){text.at, end}, &part))
            return 0;
        sum += minus ? -(u64)part : (u64)part;
        minus = end < text.size && text.at[end] == '-';
        text = skip(text, end < text.size ? end + 1 : end);
        if (!text.size && (minus || text.at[-1] == '+'))
            return 0;
    } while (text.size);
    *value = sum;
    return 1;
}

static u32 decode(struct span text, u8 *to) {
    u32 size = 0;
    for (u32 i = 0; i < text.size; i++) {
        int high = i + 2 < text.size && text.at[i] == '%' ? hex(text.at[i + 1]) : -1;
        int low = high >= 0 ? hex(text.at[i + 2]) : -1;
        to[size++] = low >= 0 ? high << 4 | low : text.at[i];
        if (low >= 0)
            i += 2;
    }
    return size;
}

/* at:PTR:LEN and fill:TEXT:LEN, else the text percent-decoded. */
static int bytes_argument(struct span token, struct span *range) {
    i64 at, size;
    if (starts(token, "at:") || starts(token, "fill:")) {
        int raw = starts(token, "at:");
        struct span rest = token;
        cut(&rest, ':');
        struct span first = cut(&rest, ':');
        if (!integer(rest, &size) || (raw && !integer(first, &at)))
            return 0;
        if (raw) {
            *range = (struct span){pointer((u32)at), (u32)size};
            return 1;
        }
        u8 *pattern = take(&scratch, first.size), *block = take(&scratch, (u32)size);
        u32 period = pattern ? decode(first, pattern) : 0;
        if (!period || !block)
            return 0;
        for (u32 i = 0; i < (u32)size; i++)
            block[i] = pattern[i % period];
        *range = (struct span){block, (u32)size};
        return 1;
    }
    u8 *block = take(&scratch, token.size);
    if (!block)
        return 0;
    *range = (struct span){block, equals(token, "\"\"") ? 0 : decode(token, block)};
    return 1;
}

/* a=b&c=d, or pairs: for a map of none, or raw:BYTES; at:, fill: and "" as for other byte ranges. */
static int pairs_argument(struct span token, struct span *range) {
    if (starts(token, "raw:"))
        return bytes_argument(skip(token, 4), range);
    if (equals(token, "\"\"") || starts(token, "at:") || starts(token, "fill:"))
        return bytes_argument(token, range);
    if (starts(token, "pairs:"))
        token = skip(token, 6);
    u32 count = token.size != 0;
    for (u32 i = 0; i < token.size; i++)
        count += token.at[i] == '&';
    u8 *block = take(&scratch, 4 + count * 10 + token.size);
    if (!block)
        return 0;
    u32 *sizes = (u32 *)block, size = 4 + count * 8;
    *sizes++ = count;
    while (count--) {
        struct span value = cut(&token, '&'), key = cut(&value, '=');
        sizes[0] = decode(key, block + size);
        size += sizes[0];
        block[size++] = 0;
        sizes[1] = decode(value, block + size);
        size += sizes[1];
        block[size++] = 0;
        sizes += 2;
    }
    *range = (struct span){block, size};
    return 1;
}

/* ---- Hostcalls ---- */

/* What a parameter of the script's line or of the hostcall is, in the order of the wasm signature:
 *   i  integer            b  bytes               p  pairs             v  bytes, as one iovec
 *   r  integer N, gives a block of N bytes       0 1 3  that number   x  the path "file"
 *   w  one iovec of 16 bytes to fill             s  one subscription to a clock
 *   U  u64 out            u  u32 out             t  u32 out, kept as $token
 *   c  u32 out, kept as $cas                     B  bytes out         P  pairs out
 *   n  u64 out, only told whether it is > 0      h  16 bytes out, not told
 *   F  24 bytes out       e  a vector of strings out
 * An upper-case L is an i64 integer, l the i64 number 0. */
struct hostcall {
    const char *name, *shape;
    void (*function)(void);
};

#define PROXY(name, shape) {#name, shape, (void (*)(void))proxy_##name}
#define SYSTEM(name, shape) {#name, shape, (void (*)(void))name}

static const struct hostcall hostcalls[] = {
    PROXY(get_status, "uB"),
    PROXY(set_property, "bb"),
    PROXY(get_property, "bB"),
    PROXY(send_local_response, "ibbpi"),
    PROXY(get_shared_data, "bBc"),
    PROXY(set_shared_data, "bbi"),
    PROXY(register_shared_queue, "bt"),
    PROXY(resolve_shared_queue, "bbt"),
    PROXY(dequeue_shared_queue, "iB"),
    PROXY(enqueue_shared_queue, "ib"),
    PROXY(get_header_map_value, "ibB"),
    PROXY(add_header_map_value, "ibb"),
    PROXY(replace_header_map_value, "ibb"),
    PROXY(remove_header_map_value, "ib"),
    PROXY(get_header_map_pairs, "iP"),
    PROXY(set_header_map_pairs, "ip"),
    PROXY(get_header_map_size, "iu"),
    PROXY(get_buffer_status, "iuu"),
    PROXY(get_buffer_bytes, "iiiB"),
    PROXY(set_buffer_bytes, "iiib"),
    PROXY(http_call, "bpbpit"),
    PROXY(grpc_call, "bbbpbit"),
    PROXY(grpc_stream, "bbbpt"),
    PROXY(grpc_send, "ibi"),
    PROXY(grpc_close, "i"),
    PROXY(grpc_cancel, "i"),
    PROXY(set_tick_period_milliseconds, "i"),
    PROXY(get_current_time_nanoseconds, "n"),
    PROXY(define_metric, "ibt"),
    PROXY(increment_metric, "iL"),
    PROXY(record_metric, "iL"),
    PROXY(get_metric, "iU"),
    PROXY(set_effective_context, "i"),
    PROXY(done, ""),
    PROXY(call_foreign_function, "bbB"),
#if ABI == 1000
    PROXY(get_configuration, "B"),
    PROXY(continue_request, ""),
    PROXY(continue_response, ""),
    PROXY(clear_route_cache, ""),
#else
    PROXY(continue_stream, "i"),
    PROXY(close_stream, "i"),
#endif
#if ABI >= 2001
    PROXY(get_log_level, "u"),
#endif
#if ABI == 2100
    PROXY(redis_init, "bbbi"),
    PROXY(redis_call, "bbt"),
    PROXY(inject_encoded_data_to_filter_chain, "bi"),
    PROXY(get_upstream_hosts, "P"),
    PROXY(set_upstream_override_host, "b"),
#endif
    SYSTEM(fd_write, "iv1u"),
    SYSTEM(fd_read, "iw1u"),
    SYSTEM(fd_close, "i"),
    SYSTEM(fd_seek, "il0h"),
    SYSTEM(fd_fdstat_get, "iF"),
    SYSTEM(fd_prestat_get, "ih"),
    SYSTEM(path_open, "30x0ll0u"),
    SYSTEM(random_get, "r"),
    SYSTEM(clock_time_get, "iln"),
    SYSTEM(clock_res_get, "iU"),
    SYSTEM(environ_get, "e"),
    SYSTEM(environ_sizes_get, "uu"),
    SYSTEM(args_get, "e"),
    SYSTEM(args_sizes_get, "uu"),
    SYSTEM(poll_oneoff, "sh1u"),
    SYSTEM(sched_yield, ""),
};

#define ARGUMENTS 12
#define UNWRITTEN 0xeeeeeeeeeeeeeeeeull

struct call {
    const struct hostcall *hostcall;
    i64 values[ARGUMENTS];
    u32 value_count;
    struct span tokens[ARGUMENTS];
    u32 token_count;
    u32 slots[4];  /* addresses of the results, in the order of the shape */
    u32 slot_count;
    u64 own_slots[4];
};

static void push(struct call *call, i64 value) {
    call->values[call->value_count++] = value;
}

static void push_range(struct call *call, struct span range) {
    push(call, address(range.at));
    push(call, range.size);
}

/* One more result slot: at the address that `out` gave, else at `block`. */
static int push_slot(struct call *call, const void *block) {
    i64 at = address(block);
    struct span given = next_token(&slots_wanted);
    if (given.size && !integer(given, &at))
        return 0;
    call->slots[call->slot_count++] = (u32)at;
    push(call, (u32)at);
    return 1;
}

static struct span argument(struct call *call, struct span *rest) {
    return call->tokens[call->token_count++] = next_token(rest);
}

/* The block for the strings of environ_get / args_get: the pointers first, then the text. */
static int push_strings(struct call *call) {
    u32 count = 0, size = 0;
    if (equals((struct span){(const u8 *)call->hostcall->name, 4}, "args"))
        args_sizes_get(&count, &size);
    else
        environ_sizes_get(&count, &size);
    if (count > 1024 || size > (1u << 20))
        return 0;
    u8 *pointers = take(&scratch, count * 4 + size + 8);
    if (!pointers)
        return 0;
    call->slots[2] = count;
    return push_slot(call, pointers) && push_slot(call, pointers + count * 4);
}

static int push_parameter(struct call *call, char kind, struct span *rest) {
    struct span range;
    i64 number;
    u8 *block;
    switch (kind) {
    case 'i':
    case 'L':
        if (!integer(argument(call, rest), &number))
            return 0;
        push(call, number);
        return 1;
    case 'b':
    case 'p':
        range = argument(call, rest);
        if (!range.size || !(kind == 'p' ? pairs_argument : bytes_argument)(range, &range))
            return 0;
        push_range(call, range);
        return 1;
    case 'r':
        range = argument(call, rest);
        if (starts(range, "at:")) {
            if (!bytes_argument(range, &range))
                return 0;
        } else {
            if (!integer(range, &number) || !(block = take(&scratch, (u32)number)))
                return 0;
            range = (struct span){block, (u32)number};
        }
        push_range(call, range);
        return 1;
    case 'v':
    case 'w':
        if (kind == 'v') {
            range = argument(call, rest);
            if (!range.size || !bytes_argument(range, &range))
                return 0;
        } else
            range = (struct span){take(&scratch, 16), 16};
        if (!(block = take(&scratch, sizeof(struct byte_range))))
            return 0;
        *(struct byte_range *)block = (struct byte_range){(void *)range.at, range.size};
        push(call, address(block));
        return 1;
    case 'x':
        push_range(call, (struct span){(const u8 *)"file", 4});
        return 1;
    case '0':
    case '1':
    case '3':
        push(call, kind - '0');
        return 1;
    case 'l':
        push(call, 0);
        return 1;
    case 's':
    case 'h':
    case 'F':
        if (!(block = take(&scratch, 48)))
            return 0;
        memset(block, 0, 48);
        if (kind != 's')
            return push_slot(call, block);
        push(call, address(block));
        return 1;
    case 'e':
        return push_strings(call);
    case 'B':
    case 'P':
        return push_slot(call, &call->own_slots[call->slot_count]) && push_slot(call, &call->own_slots[call->slot_count]);
    default:
        return push_slot(call, &call->own_slots[call->slot_count]);
    }
}

typedef i32 (*call_0)(void);
typedef i32 (*call_1)(i32);
typedef i32 (*call_2)(i32, i32);
typedef i32 (*call_3)(i32, i32, i32);
typedef i32 (*call_4)(i32, i32, i32, i32);
typedef i32 (*call_5)(i32, i32, i32, i32, i32);
typedef i32 (*call_6)(i32, i32, i32, i32, i32, i32);
typedef i32 (*call_7)(i32, i32, i32, i32, i32, i32, i32);
typedef i32 (*call_8)(i32, i32, i32, i32, i32, i32, i32, i32);
typedef i32 (*call_9)(i32, i32, i32, i32, i32, i32, i32, i32, i32);
typedef i32 (*call_10)(i32, i32, i32, i32, i32, i32, i32, i32, i32, i32);
typedef i32 (*call_12)(i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32);

static u32 invoke(const struct call *call) {
    void (*function)(void) = call->hostcall->function;
    const i64 *value = call->values;
    i32 v[ARGUMENTS];
    for (u32 i = 0; i < ARGUMENTS; i++)
        v[i] = (i32)value[i];
    if (function == (void (*)(void))proxy_increment_metric)
        return proxy_increment_metric(v[0], value[1]);
    if (function == (void (*)(void))proxy_record_metric)
        return proxy_record_metric(v[0], value[1]);
    if (function == (void (*)(void))fd_seek)
        return fd_seek(v[0], value[1], v[2], (u64 *)pointer(v[3]));
    if (function == (void (*)(void))clock_time_get)
        return clock_time_get(v[0], value[1], (u64 *)pointer(v[2]));
    if (function == (void (*)(void))path_open)
        return path_open(v[0], v[1], pointer(v[2]), v[3], v[4], value[5], value[6], v[7], (u32 *)pointer(v[8]));
    switch (call->value_count) {
    case 0:
        return ((call_0)function)();
    case 1:
        return ((call_1)function)(v[0]);
    case 2:
        return ((call_2)function)(v[0], v[1]);
    case 3:
        return ((call_3)function)(v[0], v[1], v[2]);
    case 4:
        return ((call_4)function)(v[0], v[1], v[2], v[3]);
    case 5:
        return ((call_5)function)(v[0], v[1], v[2], v[3], v[4]);
    case 6:
        return ((call_6)function)(v[0], v[1], v[2], v[3], v[4], v[5]);
    case 7:
        return ((call_7)function)(v[0], v[1], v[2], v[3], v[4], v[5], v[6]);
    case 8:
        return ((call_8)function)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
    case 9:
        return ((call_9)function)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8]);
    case 10:
        return ((call_10)function)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9]);
    default:
        return ((call_12)function)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], v[8], v[9], v[10], v[11]);
    }
}

static int is_result(char kind) {
    static const char kinds[] = "uUtcnBPFhe";
    return find((struct span){(const u8 *)kinds, sizeof kinds - 1}, kind) < sizeof kinds - 1;
}

/* Whether a result slot was given that can be read: `out 0` says that there is none. */
static int readable(u32 slot, u32 size) {
    return slot && in_memory(slot, size);
}

static void put_strings(u32 at, u32 count) {
    put_byte('[');
    for (u32 i = 0; i < count; i++) {
        u32 string = load32(at + i * 4), size = 0;
        while (in_memory(string, size + 1) && pointer(string)[size])
            size++;
        if (i)
            put(", ");
        if (in_memory(string, size))
            put_escaped(string, size);
    }
    put_byte(']');
}

/* Tells one result, keeps what the variables refer to, and returns how many slots it took. */
static u32 put_result(char kind, const u32 *slots) {
    int pair = kind == 'B' || kind == 'P' || kind == 'e';
    u32 at = slots[0], size = kind == 'e' ? 4 * slots[2] : kind == 'F' ? 24 : kind == 'U' || kind == 'n' ? 8 : 4;
    u64 value = 0;
    if (kind == 'h')
        return 1;
    put_byte(' ');
    if (!readable(at, size) || (pair && !readable(slots[1], 4))) {
        put_byte('-');
        return 1 + pair;
    }
    if (kind == 'U' || kind == 'n')
        value = load64(at);
    else if (kind != 'e' && kind != 'F')
        value = load32(at);
    switch (kind) {
    case 'B':
    case 'P':
        last_at = (u32)value;
        last_size = load32(slots[1]);
        (kind == 'B' ? put_quoted : put_pairs)(last_at, last_size);
        break;
    case 'F':
        put_quoted(at, size);
        break;
    case 'e':
        put_strings(at, slots[2]);
        break;
    case 'n':
        put(value && value != UNWRITTEN ? "ok" : "zero");
        break;
    case 't':
        last_token = (u32)value;
        put_number(value);
        break;
    case 'c':
        last_cas = (u32)value;
        put_number(value);
        break;
    default:
        put_number(value);
    }
    return 1 + pair;
}

static void put_call(struct span name, const struct span *arguments, u32 count) {
    line_size = 0;
    put_span(name);
    put_byte('(');
    for (u32 i = 0; i < count; i++) {
        if (i)
            put(", ");
        put_span(arguments[i]);
    }
    put(") = ");
}

static void perform(const struct hostcall *hostcall, struct span rest, struct span whole) {
    struct call call;
    memset(&call, 0, sizeof call);
    memset(call.own_slots, 0xee, sizeof call.own_slots);
    call.hostcall = hostcall;
    for (const char *kind = hostcall->shape; *kind; kind++)
        if (!push_parameter(&call, *kind, &rest)) {
            complain("bad argument: ", whole);
            return;
        }
    if (next_token(&rest).size) {
        complain("too many arguments: ", whole);
        return;
    }
    last_status = invoke(&call);
    put_call((struct span){(const u8 *)hostcall->name, length(hostcall->name)}, call.tokens, call.token_count);
    put_number(last_status);
    const u32 *slot = call.slots;
    for (const char *kind = hostcall->shape; last_status == OK && *kind; kind++)
        if (is_result(*kind))
            slot += put_result(*kind, slot);
    flush(LOG_INFO);
}

/* ---- The other instructions ---- */

static volatile u32 sink, zero;
static u32 recurse(u32 depth);
static u32 (*volatile again)(u32) = recurse;

static __attribute__((noinline)) u32 recurse(u32 depth) {
    return again(depth + 1) ^ ++sink;
}

enum allocator { NORMAL, ZERO, FAR, TRAP, GROW, CALL };
static const char *const allocators[] = {"normal", "zero", "far", "trap", "grow", "call"};
static u32 allocator;

EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(u32 size) {
    switch (allocator) {
    case ZERO:
        return 0;
    case FAR:
        return pointer(0xfffffff0);
    case TRAP:
        __builtin_trap();
    case GROW:
        return pointer(more_memory(size / PAGE + 1));
    case CALL:
        proxy_done();
    }
    return take(&results, size);
}

/* Runs a line that is not a hostcall; 0 if there is no such instruction. */
static int other_instruction(struct span name, struct span rest, struct span whole) {
    struct span first = next_token(&rest), second = rest, range;
    i64 number = 0, more;
    if (equals(name, "trap"))
        __builtin_trap();
    else if (equals(name, "loop"))
        for (;;)
            sink++;
    else if (equals(name, "recurse"))
        sink = recurse(0);
    else if (equals(name, "divide"))
        sink = sink / zero;
    else if (equals(name, "oob"))
        sink = *(volatile u32 *)0xfffffff0;
    else if (equals(name, "grow")) {
        if (!integer(first, &number))
            goto bad;
        u32 old = grow_pages((u32)number);
        put_call(name, &first, 1);
        if (old == ~0u)
            put("-1");
        else
            put_number(old);
        flush(LOG_INFO);
    } else if (equals(name, "allocator")) {
        u32 i = 0;
        while (i < sizeof allocators / sizeof *allocators && !equals(first, allocators[i]))
            i++;
        if (i == sizeof allocators / sizeof *allocators)
            goto bad;
        allocator = i;
    } else if (equals(name, "set")) {
        if (first.size != 1 || *first.at < 'a' || *first.at > 'd' || !integer(next_token(&second), &number))
            goto bad;
        variables[*first.at - 'a'] = number;
    } else if (equals(name, "peek")) {
        if (!integer(first, &number) || !integer(next_token(&second), &more))
            goto bad;
        put_call(name, (struct span[]){first, rest}, 2);
        put_quoted((u32)number, (u32)more);
        flush(LOG_INFO);
    } else if (equals(name, "poke")) {
        if (!integer(first, &number) || !bytes_argument(next_token(&second), &range)
            || !in_memory((u32)number, range.size) || !in_memory(address(range.at), range.size))
            goto bad;
        memcpy(pointer((u32)number), range.at, range.size);
    } else if (equals(name, "proc_exit")) {
        if (!integer(first, &number))
            goto bad;
        proc_exit((u32)number);
        put_call(name, &first, 1);
        put("returned");
        flush(LOG_INFO);
    } else
        return 0;
    return 1;
bad:
    complain("bad argument: ", whole);
    return 1;
}

/* log LEVEL TEXT and say TEXT: the text is the rest of the line. */
static void log_text(struct span name, struct span rest, struct span whole) {
    i64 level = LOG_INFO;
    struct span range, level_token = {name.at, 0};
    if (equals(name, "log") && !integer(level_token = next_token(&rest), &level)) {
        complain("bad argument: ", whole);
        return;
    }
    if (!bytes_argument(rest, &range)) {
        complain("bad argument: ", whole);
        return;
    }
    last_status = proxy_log((u32)level, range.at, range.size);
    if (last_status == OK)
        return;
    put_call(name, (struct span[]){level_token, rest}, 2);
    put_number(last_status);
    flush(LOG_INFO);
}

static void run_line(struct span whole) {
    struct span rest = whole, name = next_token(&rest), out = slots_wanted;
    if (equals(name, "log") || equals(name, "say")) {
        log_text(name, rest, whole);
        return;
    }
    for (u32 i = 0; i < sizeof hostcalls / sizeof *hostcalls; i++)
        if (equals(name, hostcalls[i].name)) {
            perform(&hostcalls[i], rest, whole);
            slots_wanted = out;
            return;
        }
    if (!other_instruction(name, rest, whole))
        complain("unknown instruction: ", whole);
}

/* How well the section named `title` (what stands behind the @) suits this invocation: 0 not at all. */
static u32 suits(struct span title, const char *callback, u32 count, int end_of_stream, int is_root) {
    if (!starts(title, callback))
        return 0;
    struct span suffix = skip(title, length(callback));
    i64 number;
    if (!suffix.size)
        return 1;
    if (!starts(suffix, "/"))
        return 0;
    suffix = skip(suffix, 1);
    if (equals(suffix, "root"))
        return is_root ? 2 : 0;
    if (equals(suffix, "eos"))
        return end_of_stream ? 3 : 0;
    return integer(suffix, &number) && number == count ? 4 : 0;
}

static struct span find_section(struct span script, const char *callback, u32 count, int end_of_stream, int is_root) {
    struct span best = {0, 0};
    u32 best_rank = 0;
    while (script.size) {
        struct span first = cut(&script, '\n');
        if (!starts(first, "@"))
            continue;
        u32 rank = suits(skip(first, 1), callback, count, end_of_stream, is_root);
        if (rank > best_rank) {
            best_rank = rank;
            best = script;
        }
    }
    return best;
}

/* What `if_status` and `repeat` said about the next line. */
struct modifiers {
    int skip;
    u32 repeat;
};

static i64 run_section(struct span section, i64 result) {
    struct modifiers pending = {0, 1};
    i64 number;
    while (section.size && *section.at != '@') {
        scratch.used = frame.scratch_mark;
        struct span whole = cut(&section, '\n'), rest = whole, name = next_token(&rest);
        if (!name.size || *name.at == '#')
            continue;
        if (equals(name, "out")) {
            slots_wanted = rest;
            continue;
        }
        if (equals(name, "if_status") || equals(name, "repeat") || equals(name, "return")) {
            struct span argument = rest;
            if (!integer(next_token(&argument), &number)) {
                complain("bad argument: ", whole);
                continue;
            }
            if (*name.at == 'i')
                pending.skip |= last_status != number;
            else if (equals(name, "repeat"))
                pending.repeat = (u32)number;
            else if (!pending.skip)
                return number;
            else
                pending = (struct modifiers){0, 1};
            continue;
        }
        for (u32 i = 0; !pending.skip && i < pending.repeat; i++) {
            scratch.used = frame.scratch_mark;
            run_line(whole);
        }
        pending = (struct modifiers){0, 1};
        slots_wanted.size = 0;
    }
    return result;
}

/* A callback of the host: the first of `parameters` is its context. The frame is kept across a nested entry. */
static i64 enter(const char *callback, u32 index, const u32 *parameters, u32 count, int end_of_stream, i64 result) {
    struct frame outer = frame;
    struct span outer_out = slots_wanted;
    struct root *root = find_root(parameters[0]);
    struct stream *stream = root ? 0 : find_stream(parameters[0]);
    struct root *plugin = root ? root : stream ? find_root(stream->root) : newest_root;
    u32 calls = root ? ++root->calls[index] : stream ? ++stream->calls[index] : 1;
    int for_vm = root && (equals((struct span){(const u8 *)callback, length(callback)}, "on_vm_start")
                          || equals((struct span){(const u8 *)callback, length(callback)}, "on_context_create"));
    struct script *script = for_vm ? &vm_script : plugin ? &plugin->script : 0;
    if (script) {
        frame = (struct frame){parameters, count, scratch.used};
        slots_wanted.size = 0;
        result = run_section(find_section((struct span){script->at, script->size}, callback, calls, end_of_stream, root != 0), result);
        scratch.used = frame.scratch_mark;
        frame = outer;
        slots_wanted = outer_out;
    }
    return result;
}

/* ---- The scripts ---- */

static void keep_script(struct script *script, const u8 *at, u32 size) {
    if (size > script->capacity) {
        struct ring pages = {0, 0, 0, 1};
        script->at = take(&pages, size);
        script->capacity = script->at ? pages.size : 0;
    }
    script->size = script->at ? size : 0;
    memcpy(script->at, at, script->size);
}

static u32 read_script(struct script *script, u32 buffer, u32 size) {
    void *at = 0;
    u32 got = 0;
#if ABI == 1000
    (void)buffer;
    (void)size;
    u32 status = proxy_get_configuration(&at, &got);
#else
    u32 status = proxy_get_buffer_bytes(buffer, 0, size, &at, &got);
#endif
    if (status == OK && in_memory(address(at), got))
        keep_script(script, at, got);
    return status;
}

/* The root's on_context_create comes before on_vm_start, so before the host told the size of the configuration. */
static void read_early(void) {
#if ABI == 1000
    read_script(&vm_script, VM_CONFIGURATION, 0);
#else
    u32 size = 0, flags;
    if (proxy_get_buffer_status(VM_CONFIGURATION, &size, &flags) == OK && size)
        read_script(&vm_script, VM_CONFIGURATION, size);
#endif
}

static void read_configuration(struct script *script, u32 buffer, u32 size) {
    script->size = 0;
    u32 status = size ? read_script(script, buffer, size) : OK;
    if (status == OK)
        return;
    line_size = 0;
    put("configuration not readable: ");
    put_number(status);
    flush(LOG_ERROR);
}

/* ---- Callbacks ---- */

#define ENTER(name, end_of_stream, result, ...) \
    enter(#name, __COUNTER__, (u32[]){__VA_ARGS__}, sizeof((u32[]){__VA_ARGS__}) / 4, end_of_stream, result)
#define EVENT(name, parameters, ...) \
    EXPORT(proxy_##name) void proxy_##name parameters { ENTER(name, 0, 0, __VA_ARGS__); }
#define ACTION(name, parameters, end_of_stream, ...) \
    EXPORT(proxy_##name) u32 proxy_##name parameters { return (u32)ENTER(name, end_of_stream, CONTINUE, __VA_ARGS__); }

EXPORT(proxy_on_context_create) void proxy_on_context_create(u32 context, u32 parent) {
    add_context(context, parent);
    if (parent)
        last_stream = context;
    else {
        last_root = context;
        if (!vm_script.size)
            read_early();
    }
    ENTER(on_context_create, 0, 0, context, parent);
}

EXPORT(proxy_on_vm_start) u32 proxy_on_vm_start(u32 context, u32 size) {
    read_configuration(&vm_script, VM_CONFIGURATION, size);
    return (u32)ENTER(on_vm_start, 0, 1, context, size);
}

EXPORT(proxy_on_configure) u32 proxy_on_configure(u32 context, u32 size) {
    struct root *root = find_root(context);
    if (root)
        read_configuration(&root->script, PLUGIN_CONFIGURATION, size);
    return (u32)ENTER(on_configure, 0, 1, context, size);
}

EXPORT(proxy_on_done) u32 proxy_on_done(u32 context) {
    return (u32)ENTER(on_done, 0, 1, context);
}

EXPORT(proxy_on_delete) void proxy_on_delete(u32 context) {
    ENTER(on_delete, 0, 0, context);
    forget_context(context);
}

EVENT(on_log, (u32 context), context)
EVENT(on_tick, (u32 context), context)
EVENT(on_queue_ready, (u32 context, u32 token), context, token)

ACTION(on_new_connection, (u32 context), 0, context)
ACTION(on_downstream_data, (u32 context, u32 size, u32 end), end, context, size, end)
ACTION(on_upstream_data, (u32 context, u32 size, u32 end), end, context, size, end)
EVENT(on_downstream_connection_close, (u32 context, u32 peer), context, peer)
EVENT(on_upstream_connection_close, (u32 context, u32 peer), context, peer)

#if ABI == 1000
ACTION(on_request_headers, (u32 context, u32 count), 0, context, count)
ACTION(on_response_headers, (u32 context, u32 count), 0, context, count)
#else
ACTION(on_request_headers, (u32 context, u32 count, u32 end), end, context, count, end)
ACTION(on_response_headers, (u32 context, u32 count, u32 end), end, context, count, end)
EVENT(on_foreign_function, (u32 context, u32 id, u32 size), context, id, size)
#endif
ACTION(on_request_body, (u32 context, u32 size, u32 end), end, context, size, end)
ACTION(on_request_trailers, (u32 context, u32 count), 0, context, count)
ACTION(on_request_metadata, (u32 context, u32 count), 0, context, count)
ACTION(on_response_body, (u32 context, u32 size, u32 end), end, context, size, end)
ACTION(on_response_trailers, (u32 context, u32 count), 0, context, count)
ACTION(on_response_metadata, (u32 context, u32 count), 0, context, count)

EVENT(on_http_call_response, (u32 context, u32 token, u32 headers, u32 body, u32 trailers), context, token, headers, body, trailers)
EVENT(on_grpc_receive_initial_metadata, (u32 context, u32 token, u32 count), context, token, count)
EVENT(on_grpc_receive, (u32 context, u32 token, u32 size), context, token, size)
EVENT(on_grpc_receive_trailing_metadata, (u32 context, u32 token, u32 count), context, token, count)
EVENT(on_grpc_close, (u32 context, u32 token, u32 status), context, token, status)
#if ABI == 2100
EVENT(on_redis_call_response, (u32 context, u32 token, u32 status, u32 size), context, token, status, size)
#endif

_Static_assert(__COUNTER__ <= CALLBACKS, "a callback more than the tables count");
