"use strict";
// The work as a plugin for Kong's plugin server in JavaScript.

class HeaderFilter {
  constructor(config) {
    this.config = config;
  }

  async access(kong) {
    await kong.request.getPath();
    await kong.request.getHeader("user-agent");
    await kong.service.request.addHeader("x-wasm", "hello");
    await kong.service.request.clearHeader("x-remove-me");
  }

  async response(kong) {
    await kong.service.response.getHeader("server");
    await kong.response.addHeader("x-wasm", "hello");
    await kong.response.setHeader("server", "hello");
  }
}

module.exports = { Plugin: HeaderFilter, Schema: [], Version: "1.0.0", Priority: 1000 };
