// The ABI of Proxy-Wasm 0.2.1 as C sees it: what the module imports. Statuses are those of the ABI; 0 is success.
// Returned data is in memory that the host allocated by proxy_on_memory_allocate; the caller frees it.
#include <stddef.h>
#include <stdint.h>

#define IMPORT(name, ...) __attribute__((import_module("env"), import_name(#name))) extern uint32_t name(__VA_ARGS__)
#define EXPORT(name) __attribute__((export_name(#name)))
#define DATA(name) const char *name, size_t name##_size
#define OUT(name) char **name, size_t *name##_size

IMPORT(proxy_log, uint32_t level, DATA(message));
IMPORT(proxy_get_log_level, uint32_t *level);
IMPORT(proxy_get_current_time_nanoseconds, uint64_t *time);
IMPORT(proxy_set_tick_period_milliseconds, uint32_t period);
IMPORT(proxy_get_header_map_value, uint32_t map, DATA(key), OUT(value));
IMPORT(proxy_replace_header_map_value, uint32_t map, DATA(key), DATA(value));
IMPORT(proxy_add_header_map_value, uint32_t map, DATA(key), DATA(value));
IMPORT(proxy_remove_header_map_value, uint32_t map, DATA(key));
IMPORT(proxy_get_header_map_pairs, uint32_t map, OUT(pairs));
IMPORT(proxy_set_header_map_pairs, uint32_t map, DATA(pairs));
IMPORT(proxy_get_buffer_bytes, uint32_t type, uint32_t start, uint32_t length, OUT(data));
IMPORT(proxy_set_buffer_bytes, uint32_t type, uint32_t start, uint32_t length, DATA(data));
IMPORT(proxy_continue_stream, uint32_t type);
IMPORT(proxy_close_stream, uint32_t type);
IMPORT(proxy_send_local_response, uint32_t status, DATA(details), DATA(body), DATA(headers), uint32_t grpc_status);
IMPORT(proxy_http_call, DATA(cluster), DATA(headers), DATA(body), DATA(trailers), uint32_t timeout, uint32_t *token);
IMPORT(proxy_grpc_call, DATA(cluster), DATA(service), DATA(method), DATA(metadata), DATA(message), uint32_t timeout, uint32_t *token);
IMPORT(proxy_grpc_stream, DATA(cluster), DATA(service), DATA(method), DATA(metadata), uint32_t *token);
IMPORT(proxy_grpc_send, uint32_t token, DATA(message), uint32_t end_of_stream);
IMPORT(proxy_grpc_cancel, uint32_t token);
IMPORT(proxy_grpc_close, uint32_t token);
IMPORT(proxy_get_status, uint32_t *code, OUT(message));
IMPORT(proxy_get_property, DATA(path), OUT(value));
IMPORT(proxy_set_property, DATA(path), DATA(value));
IMPORT(proxy_get_shared_data, DATA(key), OUT(value), uint32_t *cas);
IMPORT(proxy_set_shared_data, DATA(key), DATA(value), uint32_t cas);
IMPORT(proxy_register_shared_queue, DATA(name), uint32_t *queue);
IMPORT(proxy_resolve_shared_queue, DATA(vm), DATA(name), uint32_t *queue);
IMPORT(proxy_enqueue_shared_queue, uint32_t queue, DATA(value));
IMPORT(proxy_dequeue_shared_queue, uint32_t queue, OUT(value));
IMPORT(proxy_define_metric, uint32_t type, DATA(name), uint32_t *metric);
IMPORT(proxy_increment_metric, uint32_t metric, int64_t offset);
IMPORT(proxy_record_metric, uint32_t metric, uint64_t value);
IMPORT(proxy_get_metric, uint32_t metric, uint64_t *value);
IMPORT(proxy_call_foreign_function, DATA(name), DATA(argument), OUT(result));
IMPORT(proxy_set_effective_context, uint32_t context);
IMPORT(proxy_done, void);
// Higress's, for scripts that import proxywasm.redis. The packer removes them for all others (proxywasm_pack/variants.py).
// That requires them to be the last imports, so the code that calls them is at the end of modproxywasm.c.
IMPORT(proxy_redis_init, DATA(cluster), DATA(username), DATA(password), uint32_t timeout);
IMPORT(proxy_redis_call, DATA(cluster), DATA(command), uint32_t *token);

__attribute__((import_module("wasi_snapshot_preview1"), import_name("random_get"))) extern uint32_t wasi_random_get(char *buffer, size_t size);
