"""The built-in server `system`: information about this installation, a calculator, a context store for each tenant."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar

import psutil
from mcp_types import ToolAnnotations
from pydantic import Field

from apps.workbench.servers import calculator
from apps.workbench.servers.base import DELETES, READ_ONLY, BuiltinServer, Refused
from apps.workbench.servers.context_store import ContextStore, StoreError

Key = Annotated[str, Field(description="Name of the entry, 1 to 128 characters.", min_length=1, max_length=128)]


class SystemServer(BuiltinServer):
    """See the module."""

    name: ClassVar[str] = "system"
    instructions: ClassVar[str] = (
        "Tools that come with Switchyard: system information, a calculator, and a store for short texts that your tenant shares."
    )

    @cached_property
    def store(self) -> ContextStore:
        """Return the context store."""
        return ContextStore(self.home() / "context.sqlite3")

    def tools(self) -> Sequence[Callable[..., Any] | tuple[Callable[..., Any], ToolAnnotations]]:
        """Return the tools."""
        return (
            (self.system_info, READ_ONLY),
            (self.calculate, READ_ONLY),
            self.context_set,
            (self.context_get, READ_ONLY),
            (self.context_list, READ_ONLY),
            (self.context_delete, DELETES),
        )

    def system_info(self) -> dict[str, Any]:
        """Tell about the machine that Switchyard runs on: operating system, processors, memory, disk, load, uptime."""
        memory = psutil.virtual_memory()
        disk = shutil.disk_usage("/")
        return {
            "os": platform.system(),
            "release": platform.release(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "cpus": psutil.cpu_count() or 0,
            "load": list(os.getloadavg()),
            "memory_total_bytes": memory.total,
            "memory_available_bytes": memory.available,
            "disk_total_bytes": disk.total,
            "disk_free_bytes": disk.free,
            "uptime_seconds": int(time.time() - psutil.boot_time()),
        }

    def calculate(
        self,
        expression: Annotated[str, Field(description="For example: (2 + 3) * sqrt(16) / 7", min_length=1, max_length=1000)],
    ) -> str:
        """Calculate an arithmetic expression: + - * / // % **, parentheses, pi, e, tau, and functions such as sqrt, log, sin, min."""
        try:
            return str(calculator.calculate(expression))
        except calculator.CalculationError as error:
            raise Refused(str(error)) from None

    def context_set(
        self, key: Key, value: Annotated[str, Field(description="The text to keep, at most 64 kB.", max_length=65536)]
    ) -> str:
        """Keep a text under a key; everybody in your tenant can read it. Replaces what the key had."""
        tenant = self.caller().tenant
        try:
            self.store.set(tenant, key, value)
        except StoreError as error:
            raise Refused(str(error)) from None
        return f"Kept {len(value.encode())} bytes under {key}."

    def context_get(self, key: Key) -> str:
        """Return the text that is kept under a key."""
        tenant = self.caller().tenant
        try:
            return self.store.get(tenant, key)
        except StoreError as error:
            raise Refused(str(error)) from None

    def context_list(
        self, prefix: Annotated[str, Field(description="Only keys that begin with this.", max_length=128)] = ""
    ) -> list[str]:
        """List the keys of your tenant, in order."""
        return self.store.keys(self.caller().tenant, prefix)

    def context_delete(self, key: Key) -> bool:
        """Delete a key; tells whether it was there."""
        tenant = self.caller().tenant
        try:
            return self.store.delete(tenant, key)
        except StoreError as error:
            raise Refused(str(error)) from None


if __name__ == "__main__":
    SystemServer().run()
