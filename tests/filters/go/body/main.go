// Rewrites a JSON request body, after asking another cluster if it is told to.
//
// Configuration: none, or JSON: {"callout": "CLUSTER"}. Other JSON members are ignored; what is no JSON object is refused.
//
// Request:  if a callout is configured, the headers wait for the answer of GET /callout (for a second at most), whose body
// becomes the header `x-callout` ("failed" if there is no answer). The body is held back until it is complete, then its
// JSON object gets "seen": true and is written anew, its keys sorted. A body that is no JSON object is answered with 400.
// Response: adds `x-json: ok`, or `x-json: bad` to the 400 (a host which lets the filter see its own local response shows it).
package main

import (
	"encoding/json"
	"strings"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{} })
}

type configuration struct {
	Callout string `json:"callout"`
}

type plugin struct {
	types.DefaultPluginContext
	configuration
}

func (p *plugin) OnPluginStart(size int) types.OnPluginStartStatus {
	if size > 0 {
		text, err := proxywasm.GetPluginConfiguration()
		must(err)
		if err := json.Unmarshal(text, &p.configuration); err != nil {
			proxywasm.LogErrorf("body: bad configuration: %v", err)
			return types.OnPluginStartStatusFailed
		}
	}
	proxywasm.LogInfof("body: configured, callout %q", p.Callout)
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	return &body{callout: p.Callout}
}

type body struct {
	types.DefaultHttpContext
	callout string
	bad     bool
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (b *body) OnHttpRequestHeaders(_ int, endOfStream bool) types.Action {
	must(proxywasm.RemoveHttpRequestHeader("content-length"))
	if b.callout == "" {
		return types.ActionContinue
	}
	headers := [][2]string{{":method", "GET"}, {":path", "/callout"}, {":authority", b.callout}}
	token, err := proxywasm.DispatchHttpCall(b.callout, headers, nil, nil, 1000, b.answered)
	if err != nil {
		proxywasm.LogInfof("body: cannot ask %s: %v", b.callout, err)
		must(proxywasm.AddHttpRequestHeader("x-callout", "failed"))
		return types.ActionContinue
	}
	proxywasm.LogInfof("body: asking %s, token %d", b.callout, token)
	return types.ActionPause
}

func (b *body) answered(headers, size, _ int) {
	answer := "failed"
	if headers > 0 {
		answer = ""
		if size > 0 {
			text, err := proxywasm.GetHttpCallResponseBody(0, size)
			must(err)
			answer = strings.TrimSpace(string(text))
		}
	}
	proxywasm.LogInfof("body: %s answered %q", b.callout, answer)
	must(proxywasm.AddHttpRequestHeader("x-callout", answer))
	must(proxywasm.ResumeHttpRequest())
}

func (b *body) OnHttpRequestBody(size int, endOfStream bool) types.Action {
	proxywasm.LogInfof("body: request body of %d bytes so far, end of stream %t", size, endOfStream)
	if !endOfStream {
		return types.ActionPause
	}
	if size == 0 {
		return types.ActionContinue
	}
	text, err := proxywasm.GetHttpRequestBody(0, size)
	must(err)
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil || object == nil {
		return b.refuse(err)
	}
	object["seen"] = true
	rewritten, err := json.Marshal(object)
	must(err)
	must(proxywasm.ReplaceHttpRequestBody(rewritten))
	proxywasm.LogInfof("body: request body of %d bytes replaced by %d bytes", len(text), len(rewritten))
	return types.ActionContinue
}

func (b *body) refuse(err error) types.Action {
	b.bad = true
	reason := "not an object"
	if err != nil {
		reason = err.Error()
	}
	proxywasm.LogInfof("body: bad JSON: %s", reason)
	answer, err := json.Marshal(map[string]string{"error": reason})
	must(err)
	must(proxywasm.SendHttpResponse(400, [][2]string{{"content-type", "application/json"}}, answer, -1))
	return types.ActionPause
}

func (b *body) OnHttpResponseHeaders(int, bool) types.Action {
	verdict := "ok"
	if b.bad {
		verdict = "bad"
	}
	must(proxywasm.AddHttpResponseHeader("x-json", verdict))
	proxywasm.LogInfof("body: response, JSON was %s", verdict)
	return types.ActionContinue
}
