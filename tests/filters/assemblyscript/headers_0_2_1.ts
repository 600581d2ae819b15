// Reads, adds, replaces and removes headers; the same as rust/headers.rs, which describes it, with the same log lines
// after `[INFO]: `, for this SDK logs through WASI's standard output. ABI 0.2.1.
// The SDK does not find its own root context when that is done: proxy_on_done traps for it.

export * from "@gcoredev/proxy-wasm-sdk-as/assembly/proxy";
import {
  Context, FilterHeadersStatusValues, LogLevelValues, RootContext, log, registerRootContext, stream_context,
} from "@gcoredev/proxy-wasm-sdk-as/assembly";

function orDash(value: string): string {
  return value.length > 0 ? value : "-";
}

class Root extends RootContext {
  value: string = "hello";

  onConfigure(size: u32): bool {
    super.onConfigure(size);
    if (size > 0) {
      this.value = this.getConfiguration();
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

registerRootContext((context_id: u32) => { return new Root(context_id); }, "headers");
