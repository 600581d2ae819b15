// A filter in C++ with a C library behind it: a WASI reactor, so with _initialize, malloc and imports from WASI.
// It prints one line when it is configured, and gives each response the header x-hello: GREETING, CONFIGURATION.
#define ABI 2001
#include "proxy_wasm.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

ABI_MARKER

namespace {

struct Plugin {
    std::string text;

    explicit Plugin(u32 configuration_size) {
        const char *greeting = std::getenv("GREETING");
        text = std::string(greeting ? greeting : "hello") + ", " + read(PLUGIN_CONFIGURATION, configuration_size);
    }

    static std::string read(u32 buffer, u32 size) {
        void *bytes = nullptr;
        u32 count = 0;
        if (size == 0 || proxy_get_buffer_bytes(buffer, 0, size, &bytes, &count) != OK)
            return "nobody";
        std::string copy(static_cast<const char *>(bytes), count);
        std::free(bytes);
        return copy;
    }
};

std::unique_ptr<Plugin> plugin;

}  // namespace

EXPORT(proxy_on_configure) u32 proxy_on_configure(u32, u32 size) {
    plugin = std::make_unique<Plugin>(size);
    std::printf("configured: %s\n", plugin->text.c_str());
    std::fflush(stdout);  // The C library keeps a line back, unless the host calls standard output a terminal.
    return 1;
}

EXPORT(proxy_on_response_headers) u32 proxy_on_response_headers(u32, u32, u32) {
    if (plugin)
        proxy_add_header_map_value(RESPONSE_HEADERS, "x-hello", 7, plugin->text.data(), plugin->text.size());
    return CONTINUE;
}
