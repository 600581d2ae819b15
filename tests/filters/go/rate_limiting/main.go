// Limits how many requests a client may send, as Kong's example filter does: so many in a second, minute, hour or day.
//
// Configuration, as JSON (kong.yaml checks it with rate-limiting.meta.json):
//
//	{"minute": 3, "hour": 100}          limits; at least one of second, minute, hour, day
//	{…, "limit_by": "header", "header_name": "x-who"}   who counts as one client; else the address that it has ("ip")
//	{…, "hide_client_headers": true}    no headers about limits
//
// Counters are in shared data, one for each route, service, client and kind of window, with the window's begin in it: a
// new window takes the place of the old one. Windows begin as the clock of the world does, at full seconds, minutes, ….
// Beyond a limit the answer is 429 with Retry-After. A counter that cannot be read or written lets the request pass.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm"
	"github.com/proxy-wasm/proxy-wasm-go-sdk/proxywasm/types"
)

const attempts = 10

var windows = []struct {
	name    string
	seconds int64
}{{"second", 1}, {"minute", 60}, {"hour", 3600}, {"day", 86400}}

func main() {}

func init() {
	proxywasm.SetPluginContext(func(uint32) types.PluginContext { return &plugin{} })
}

type plugin struct {
	types.DefaultPluginContext
	limits      map[string]int64
	limitBy     string
	headerName  string
	hideHeaders bool
}

func (p *plugin) OnPluginStart(int) types.OnPluginStartStatus {
	data, err := proxywasm.GetPluginConfiguration()
	var given map[string]any
	if err == nil {
		err = json.Unmarshal(data, &given)
	}
	if err != nil {
		proxywasm.LogErrorf("rate-limiting: bad configuration: %v", err)
		return types.OnPluginStartStatusFailed
	}
	p.limits = map[string]int64{}
	for _, window := range windows {
		if limit, ok := given[window.name].(float64); ok {
			p.limits[window.name] = int64(limit)
		}
	}
	p.limitBy, _ = given["limit_by"].(string)
	p.headerName, _ = given["header_name"].(string)
	p.hideHeaders, _ = given["hide_client_headers"].(bool)
	if len(p.limits) == 0 {
		proxywasm.LogError("rate-limiting: bad configuration: no limit is set")
		return types.OnPluginStartStatusFailed
	}
	return types.OnPluginStartStatusOK
}

func (p *plugin) NewHttpContext(uint32) types.HttpContext {
	return &limiter{plugin: p}
}

type limiter struct {
	types.DefaultHttpContext
	*plugin
	headers [][2]string
}

// A counter: how many requests of its window have come. cas is what has to be the same when it is written.
type counter struct {
	key   string
	begin int64
	count int64
	cas   uint32
}

func property(path ...string) string {
	value, err := proxywasm.GetProperty(path)
	if err != nil {
		return ""
	}
	return string(value)
}

func (l *limiter) client() string {
	if l.limitBy == "header" {
		if value, err := proxywasm.GetHttpRequestHeader(l.headerName); err == nil {
			return "header:" + value
		}
	}
	return "ip:" + property("ngx", "remote_addr")
}

func (l *limiter) read(key string, begin int64) (counter, error) {
	value, cas, err := proxywasm.GetSharedData(key)
	if err == types.ErrorStatusNotFound {
		return counter{key: key, begin: begin}, nil
	}
	if err != nil {
		return counter{}, err
	}
	found := counter{key: key, begin: begin, cas: cas}
	if len(value) == 16 && int64(binary.LittleEndian.Uint64(value)) == begin {
		found.count = int64(binary.LittleEndian.Uint64(value[8:]))
	}
	return found, nil
}

func (l *limiter) increment(c counter) error {
	for range attempts {
		value := binary.LittleEndian.AppendUint64(nil, uint64(c.begin))
		value = binary.LittleEndian.AppendUint64(value, uint64(c.count+1))
		err := proxywasm.SetSharedData(c.key, value, c.cas)
		if err != types.ErrorStatusCasMismatch {
			return err
		}
		if c, err = l.read(c.key, c.begin); err != nil {
			return err
		}
	}
	return types.ErrorStatusCasMismatch
}

func (l *limiter) OnHttpRequestHeaders(int, bool) types.Action {
	now := time.Now().Unix()
	prefix := fmt.Sprintf("ratelimit:%s:%s:%s:", property("kong", "route_id"), property("kong", "service_id"), l.client())
	var counters []counter
	least, limit, reset, over := int64(-1), int64(0), int64(0), false // of the window that is nearest to its limit
	for _, window := range windows {
		allowed, limited := l.limits[window.name]
		if !limited {
			continue
		}
		begin := now - now%window.seconds
		c, err := l.read(prefix+window.name, begin)
		if err != nil {
			proxywasm.LogErrorf("rate-limiting: cannot read a counter: %v", err)
			return types.ActionContinue
		}
		counters = append(counters, c)
		over = over || c.count >= allowed
		left := allowed - c.count
		if least < 0 || left <= least {
			least, limit, reset = left, allowed, begin+window.seconds-now
		}
		l.headers = append(l.headers,
			[2]string{"x-ratelimit-limit-" + window.name, fmt.Sprint(allowed)},
			[2]string{"x-ratelimit-remaining-" + window.name, fmt.Sprint(max(0, left-1))})
	}
	l.headers = append(l.headers, [2]string{"ratelimit-limit", fmt.Sprint(limit)},
		[2]string{"ratelimit-remaining", fmt.Sprint(max(0, least-1))}, [2]string{"ratelimit-reset", fmt.Sprint(reset)})
	if l.hideHeaders {
		l.headers = nil
	}
	if over {
		l.headers = append(l.headers, [2]string{"retry-after", fmt.Sprint(reset)})
		proxywasm.LogInfof("rate-limiting: refused, %d s until it may ask again", reset)
		if err := proxywasm.SendHttpResponse(429, nil, []byte("API rate limit exceeded"), -1); err != nil {
			panic(err)
		}
		return types.ActionPause
	}
	for _, c := range counters {
		if err := l.increment(c); err != nil {
			proxywasm.LogErrorf("rate-limiting: cannot write a counter: %v", err)
		}
	}
	return types.ActionContinue
}

// Those of the filter's own answer come here, too.
func (l *limiter) OnHttpResponseHeaders(int, bool) types.Action {
	for _, header := range l.headers {
		if err := proxywasm.AddHttpResponseHeader(header[0], header[1]); err != nil {
			proxywasm.LogErrorf("rate-limiting: cannot add %s: %v", header[0], err)
		}
	}
	return types.ActionContinue
}
