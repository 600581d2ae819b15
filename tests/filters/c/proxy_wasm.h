/* Proxy-Wasm for C: what a filter imports and the numbers it needs, by ABI version.
 *
 * Define ABI before the #include: 1000 is 0.1.0, 2000 is 0.2.0, 2001 is 0.2.1, 2100 is 0.2.100 (Higress).
 * A name that a version does not have is not declared for it.
 */
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#if ABI != 1000 && ABI != 2000 && ABI != 2001 && ABI != 2100
#error "ABI must be 1000 (0.1.0), 2000 (0.2.0), 2001 (0.2.1) or 2100 (0.2.100)"
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#ifdef __cplusplus
#define PROXY_C extern "C"
#else
#define PROXY_C
#endif

#define EXPORT(name) PROXY_C __attribute__((export_name(#name)))
#define PROXY_IMPORT(module, name) PROXY_C __attribute__((import_module(module), import_name(name)))

#if ABI == 1000
#define ABI_MARKER EXPORT(proxy_abi_version_0_1_0) void proxy_abi_version_0_1_0(void) {}
#elif ABI == 2000
#define ABI_MARKER EXPORT(proxy_abi_version_0_2_0) void proxy_abi_version_0_2_0(void) {}
#elif ABI == 2001
#define ABI_MARKER EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}
#else
#define ABI_MARKER EXPORT(proxy_abi_version_0_2_100) void proxy_abi_version_0_2_100(void) {}
#endif

enum status { OK, NOT_FOUND, BAD_ARGUMENT, SERIALIZATION_FAILURE, PARSE_FAILURE, BAD_EXPRESSION, INVALID_MEMORY_ACCESS,
              EMPTY, CAS_MISMATCH, RESULT_MISMATCH, INTERNAL_FAILURE, BROKEN_CONNECTION, UNIMPLEMENTED };
enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL };
enum action { CONTINUE, PAUSE };
enum map_type { REQUEST_HEADERS, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_TRAILERS, GRPC_RECEIVE_INITIAL_METADATA,
           GRPC_RECEIVE_TRAILING_METADATA, HTTP_CALL_RESPONSE_HEADERS, HTTP_CALL_RESPONSE_TRAILERS };
enum buffer_type { HTTP_REQUEST_BODY, HTTP_RESPONSE_BODY, DOWNSTREAM_DATA, UPSTREAM_DATA, HTTP_CALL_RESPONSE_BODY,
              GRPC_RECEIVE_BUFFER, VM_CONFIGURATION, PLUGIN_CONFIGURATION, CALL_DATA, REDIS_CALL_RESPONSE };
enum stream_type { STREAM_REQUEST, STREAM_RESPONSE, STREAM_DOWNSTREAM, STREAM_UPSTREAM };
enum peer_type { PEER_UNKNOWN, PEER_LOCAL, PEER_REMOTE };
enum metric_type { COUNTER, GAUGE, HISTOGRAM };

/* A byte range goes in as BYTES (pointer, size), and comes out through OUT: two slots for the pointer and the size of
 * a block that the host took from proxy_on_memory_allocate. A header map travels as one byte range of pairs. */
#define BYTES(name) const void *name, u32 name##_size
#define OUT(name) void **name, u32 *name##_size
#define HOSTCALL(name) PROXY_IMPORT("env", "proxy_" #name) i32 proxy_##name

HOSTCALL(log)(u32 level, BYTES(message));
HOSTCALL(get_status)(u32 *code, OUT(message));
HOSTCALL(set_property)(BYTES(path), BYTES(value));
HOSTCALL(get_property)(BYTES(path), OUT(value));
HOSTCALL(send_local_response)(u32 code, BYTES(details), BYTES(body), BYTES(headers), i32 grpc_status);
HOSTCALL(get_shared_data)(BYTES(key), OUT(value), u32 *cas);
HOSTCALL(set_shared_data)(BYTES(key), BYTES(value), u32 cas);
HOSTCALL(register_shared_queue)(BYTES(name), u32 *token);
HOSTCALL(resolve_shared_queue)(BYTES(vm_id), BYTES(name), u32 *token);
HOSTCALL(dequeue_shared_queue)(u32 token, OUT(value));
HOSTCALL(enqueue_shared_queue)(u32 token, BYTES(value));
HOSTCALL(get_header_map_value)(u32 map, BYTES(key), OUT(value));
HOSTCALL(add_header_map_value)(u32 map, BYTES(key), BYTES(value));
HOSTCALL(replace_header_map_value)(u32 map, BYTES(key), BYTES(value));
HOSTCALL(remove_header_map_value)(u32 map, BYTES(key));
HOSTCALL(get_header_map_pairs)(u32 map, OUT(pairs));
HOSTCALL(set_header_map_pairs)(u32 map, BYTES(pairs));
HOSTCALL(get_header_map_size)(u32 map, u32 *size);
HOSTCALL(get_buffer_status)(u32 buffer, u32 *length, u32 *flags);
HOSTCALL(get_buffer_bytes)(u32 buffer, u32 start, u32 length, OUT(bytes));
HOSTCALL(set_buffer_bytes)(u32 buffer, u32 start, u32 length, BYTES(bytes));
HOSTCALL(http_call)(BYTES(cluster), BYTES(headers), BYTES(body), BYTES(trailers), u32 timeout, u32 *token);
HOSTCALL(grpc_call)(BYTES(cluster), BYTES(service), BYTES(method), BYTES(metadata), BYTES(message), u32 timeout, u32 *token);
HOSTCALL(grpc_stream)(BYTES(cluster), BYTES(service), BYTES(method), BYTES(metadata), u32 *token);
HOSTCALL(grpc_send)(u32 token, BYTES(message), u32 end_of_stream);
HOSTCALL(grpc_close)(u32 token);
HOSTCALL(grpc_cancel)(u32 token);
HOSTCALL(set_tick_period_milliseconds)(u32 period);
HOSTCALL(get_current_time_nanoseconds)(u64 *time);
HOSTCALL(define_metric)(u32 type, BYTES(name), u32 *id);
HOSTCALL(increment_metric)(u32 id, i64 offset);
HOSTCALL(record_metric)(u32 id, i64 value);
HOSTCALL(get_metric)(u32 id, u64 *value);
HOSTCALL(set_effective_context)(u32 context);
HOSTCALL(done)(void);
HOSTCALL(call_foreign_function)(BYTES(name), BYTES(argument), OUT(result));
#if ABI == 1000
HOSTCALL(get_configuration)(OUT(bytes));
HOSTCALL(continue_request)(void);
HOSTCALL(continue_response)(void);
HOSTCALL(clear_route_cache)(void);
#else
HOSTCALL(continue_stream)(u32 stream);
HOSTCALL(close_stream)(u32 stream);
#endif
#if ABI >= 2001
HOSTCALL(get_log_level)(u32 *level);
#endif
#if ABI == 2100
HOSTCALL(redis_init)(BYTES(cluster), BYTES(user), BYTES(password), u32 timeout);
HOSTCALL(redis_call)(BYTES(cluster), BYTES(query), u32 *token);
HOSTCALL(inject_encoded_data_to_filter_chain)(BYTES(body), u32 end_of_stream);
HOSTCALL(get_upstream_hosts)(OUT(pairs));
HOSTCALL(set_upstream_override_host)(BYTES(address));
#endif

struct byte_range {
    void *at;
    u32 size;
};

#define WASI(name) PROXY_IMPORT("wasi_snapshot_preview1", #name)

WASI(fd_write) i32 fd_write(u32 fd, const struct byte_range *parts, u32 count, u32 *written);
WASI(fd_read) i32 fd_read(u32 fd, const struct byte_range *parts, u32 count, u32 *got);
WASI(fd_close) i32 fd_close(u32 fd);
WASI(fd_seek) i32 fd_seek(u32 fd, i64 offset, u32 whence, u64 *position);
WASI(fd_fdstat_get) i32 fd_fdstat_get(u32 fd, void *stat);
WASI(fd_prestat_get) i32 fd_prestat_get(u32 fd, void *stat);
WASI(path_open) i32 path_open(u32 fd, u32 lookup, BYTES(path), u32 flags, u64 rights, u64 inherited, u32 fd_flags, u32 *opened);
WASI(random_get) i32 random_get(void *at, u32 size);
WASI(clock_time_get) i32 clock_time_get(u32 clock, u64 precision, u64 *time);
WASI(clock_res_get) i32 clock_res_get(u32 clock, u64 *resolution);
WASI(environ_get) i32 environ_get(char **entries, char *text);
WASI(environ_sizes_get) i32 environ_sizes_get(u32 *count, u32 *size);
WASI(args_get) i32 args_get(char **entries, char *text);
WASI(args_sizes_get) i32 args_sizes_get(u32 *count, u32 *size);
WASI(poll_oneoff) i32 poll_oneoff(const void *subscriptions, void *events, u32 count, u32 *happened);
WASI(sched_yield) i32 sched_yield(void);
WASI(proc_exit) void proc_exit(u32 code);

#endif
