// Reads, adds, replaces and removes headers; the same as rust/headers.rs, which describes it, with the same log lines.
package main

import (
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{value: "hello"} })
}

type plugin struct {
	types.DefaultPluginContext
	value string
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	if configuration, err := proxywasm.GetPluginConfiguration(); err == nil && len(configuration) > 0 {
		p.value = string(configuration)
	}
	proxywasm.LogInfof("headers: configured, value %s", p.value)
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	return &headers{value: p.value}
}

type headers struct {
	types.DefaultHttpContext
	value string
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (h *headers) OnHttpRequestHeaders(int, bool) types.Action {
	path, err := proxywasm.GetHttpRequestHeader(":path")
	must(err)
	agent, err := proxywasm.GetHttpRequestHeader("user-agent")
	if err != nil {
		agent = "-"
	}
	must(proxywasm.AddHttpRequestHeader("x-wasm", h.value))
	must(proxywasm.RemoveHttpRequestHeader("x-remove-me"))
	proxywasm.LogInfof("headers: request for %s by %s", path, agent)
	return types.ActionContinue
}

func (h *headers) OnHttpResponseHeaders(int, bool) types.Action {
	server, err := proxywasm.GetHttpResponseHeader("server")
	if err != nil {
		server = "-"
	}
	must(proxywasm.AddHttpResponseHeader("x-wasm", h.value))
	must(proxywasm.ReplaceHttpResponseHeader("server", "proxy-wasm"))
	proxywasm.LogInfof("headers: response by %s", server)
	return types.ActionContinue
}

func (h *headers) OnHttpStreamDone() {
	proxywasm.LogInfo("headers: done")
}
