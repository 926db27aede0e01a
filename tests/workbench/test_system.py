"""The built-in server as a program, with the official client."""

import json
import urllib.request

from mcp import Client, StdioServerParameters

from apps.common.crypto.assertion import META_KEY, Signer
from apps.workbench.registry import builtin_servers
from tests.engines import free_port
from tests.support import eventually

SIGNER = Signer("test")


def _assertion(tenant="t1", audience="system"):
    return {META_KEY: SIGNER.sign(tenant=tenant, principal="user:u", toolset="system", call_id="c", audience=audience)}


def _program(home, **environment):
    builtin = builtin_servers()[0]
    env = {
        "SWITCHYARD_BUILTIN_NAME": "system",
        "SWITCHYARD_BUILTIN_PUBLIC_KEY": SIGNER.public_key,
        "SWITCHYARD_BUILTIN_HOME": str(home),
        **environment,
    }
    return StdioServerParameters(command=builtin.command, args=list(builtin.args), cwd=builtin.cwd, env=env)


async def _call(client, name, arguments=None, meta=None):
    result = await client.call_tool(name, arguments or {}, meta=meta if meta is not None else _assertion())
    return bool(result.is_error), result.content[0].text if result.content else json.dumps(result.structured_content)


async def test_tools_calculate_and_keep_context_for_one_tenant(tmp_path):
    async with Client(_program(tmp_path / "home")) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"system_info", "calculate", "context_set", "context_get", "context_list", "context_delete"}
        assert tools["calculate"].annotations.read_only_hint
        assert tools["context_delete"].annotations.destructive_hint
        assert await _call(client, "calculate", {"expression": "6 * 7"}) == (False, "42")
        failed, text = await _call(client, "calculate", {"expression": "__import__('os')"})
        assert failed
        assert "not known" in text
        assert (await _call(client, "context_set", {"key": "k", "value": "mine"}))[0] is False
        assert await _call(client, "context_get", {"key": "k"}) == (False, "mine")
        failed, text = await _call(client, "context_get", {"key": "k"}, _assertion("t2"))
        assert (failed, text) == (True, "There is nothing under k.")
        failed, text = await _call(client, "system_info")
        assert json.loads(text)["cpus"] >= 1


async def test_nobody_but_the_gateway_is_served(tmp_path):
    async with Client(_program(tmp_path)) as client:
        for meta in ({}, {META_KEY: "forged"}, _assertion(audience="other")):
            for tool, arguments in (("calculate", {"expression": "1"}), ("context_list", {})):
                failed, text = await _call(client, tool, arguments, meta)
                assert failed, meta
                assert "assertion" in text, meta


async def test_over_http_it_tells_its_health_and_metrics(tmp_path):
    import asyncio
    import os
    import subprocess

    port, builtin = free_port(), builtin_servers()[0]
    environment = {**os.environ, "SWITCHYARD_BUILTIN_PUBLIC_KEY": SIGNER.public_key, "SWITCHYARD_BUILTIN_HOME": str(tmp_path)}
    process = subprocess.Popen([builtin.command, *builtin.args, "--http", str(port)], cwd=builtin.cwd, env=environment)

    def read(path):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.read().decode()

    def healthy():
        try:
            return json.loads(read("/health"))
        except OSError:
            return None

    try:
        state = await asyncio.to_thread(eventually, healthy, within=30)
        assert state == {"status": "ok", "server": "system", "version": "1.0.0"}
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            await _call(client, "calculate", {"expression": "1 + 1"})
        assert 'switchyard_builtin_calls_total{outcome="ok",server="system",tool="calculate"} 1.0' in await asyncio.to_thread(
            read, "/metrics"
        )
    finally:
        process.terminate()
        process.wait(10)
