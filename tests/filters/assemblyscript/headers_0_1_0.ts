// Reads, adds, replaces and removes headers; the same as rust/headers.rs, which describes it, with the same log lines.
// ABI 0.1.0: a header which is missing cannot be told from an empty one. The root id has to be empty or `headers`.

export * from "@solo-io/proxy-runtime/proxy";
import {
  Context, ContextHelper, FilterHeadersStatusValues, LogLevelValues, RootContext, RootContextHelper, registerRootContext, stream_context,
} from "@solo-io/proxy-runtime";
import { log } from "@solo-io/proxy-runtime/runtime";

function orDash(value: string): string {
  return value.length > 0 ? value : "-";
}

class Root extends RootContext {
  value: string = "hello";

  onConfigure(): bool {
    const configuration = String.UTF8.decode(this.getConfiguration());
    if (configuration.length > 0) {
      this.value = configuration;
    }
    log(LogLevelValues.info, "headers: configured, value " + this.value);
    return true;
  }

  createContext(): Context {
    return ContextHelper.wrap(new Headers(this.value));
  }
}

class Headers extends Context {
  value: string;

  constructor(value: string) {
    super();
    this.value = value;
  }

  onRequestHeaders(count: u32): FilterHeadersStatusValues {
    const headers = stream_context.headers.request;
    const path = headers.get(":path");
    const agent = orDash(headers.get("user-agent"));
    headers.add("x-wasm", this.value);
    headers.remove("x-remove-me");
    log(LogLevelValues.info, "headers: request for " + path + " by " + agent);
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32): FilterHeadersStatusValues {
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

registerRootContext(() => { return RootContextHelper.wrap(new Root()); }, "");
registerRootContext(() => { return RootContextHelper.wrap(new Root()); }, "headers");
