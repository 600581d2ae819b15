"""The script that mitmproxy's option ``-s`` loads."""

from proxywasm_host.integrations.mitmproxy.addon import ProxyWasm

addons = [ProxyWasm()]
