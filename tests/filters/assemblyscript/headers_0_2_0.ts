// Reads, adds, replaces and removes headers; the same as rust/headers.rs, which describes it, with the same log lines.
// ABI 0.2.0. The root id has to be empty or `headers`.

export * from "@solo-io/proxy-runtime/proxy";
import {
  Context, FilterHeadersStatusValues, LogLevelValues, RootContext, log, registerRootContext, stream_context,
} from "@solo-io/proxy-runtime";
import { BufferTypeValues, get_buffer_bytes } from "@solo-io/proxy-runtime/runtime";

function orDash(value: string): string {
  return value.length > 0 ? value : "-";
}

class Root extends RootContext {
  value: string = "hello";

  // The base class would read the configuration too, but it passes its size as the address where the host shall write it.
  onConfigure(size: u32): bool {
    if (size > 0) {
      this.value = String.UTF8.decode(get_buffer_bytes(BufferTypeValues.PluginConfiguration, 0, size));
    }
    log(LogLevelValues.info, "headers: configured, value " + this.value);
    return true;
  }

  createContext(context_id: u32): Context {
    return new Headers(context_id, this);
  }
}

class Headers extends Context {
  value: string;

  constructor(context_id: u32, root: Root) {
    super(context_id, root);
    this.value = root.value;
  }

  onRequestHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const headers = stream_context.headers.request;
    const path = headers.get(":path");
    const agent = orDash(headers.get("user-agent"));
    headers.add("x-wasm", this.value);
    headers.remove("x-remove-me");
    log(LogLevelValues.info, "headers: request for " + path + " by " + agent);
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end_of_stream: bool): FilterHeadersStatusValues {
    const headers = stream_context.headers.response;
    const server = orDash(headers.get("server"));
    headers.add("x-wasm", this.value);
    headers.replace("server", "proxy-wasm");
    log(LogLevelValues.info, "headers: response by " + server);
    return FilterHeadersStatusValues.Continue;
  }

  onLog(): void {
    log(LogLevelValues.info, "headers: done");
  }
}

registerRootContext((context_id: u32) => { return new Root(context_id); }, "");
registerRootContext((context_id: u32) => { return new Root(context_id); }, "headers");
