// A plugin for the plugin server in JavaScript.
class Plugin {
  constructor(config) {
    this.config = config
  }

  async access(kong) {
    const [host, shared] = await Promise.all([kong.request.getHeader("host"), kong.ctx.shared.get("python")])
    await kong.service.request.setHeader("X-JavaScript", `${this.config.message} ${host} ${shared}`)
    if (this.config.deny) {
      return await kong.response.exit(401, "denied by javascript", { "X-By": "javascript" })
    }
  }
}

module.exports = {
  Plugin,
  Name: "js_hello",
  Schema: [{ message: { type: "string", default: "bonjour" } }, { deny: { type: "boolean" } }],
  Version: "0.1.0",
  Priority: 50,
}
