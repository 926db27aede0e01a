"""Helpers that every test may use."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.engines import free_port

__all__ = ["eventually", "eventually_async", "free_port"]

T = TypeVar("T")


def eventually(check: Callable[[], T], *, within: float = 10.0, every: float = 0.02, because: str = "") -> T:
    """Call `check` until it returns something true, and return that; a raised AssertionError counts as "not yet".

    Raises AssertionError after `within` seconds with the last failure.
    """
    deadline = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        value: Any = None
        try:
            value = check()
        except AssertionError as error:
            failure = error
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(because or f"not true within {within} s; last: {failure or value!r}") from failure
        time.sleep(every)


async def eventually_async(
    check: Callable[[], Awaitable[T] | T], *, within: float = 10.0, every: float = 0.02, because: str = ""
) -> T:
    """`eventually` for the event loop; `check` may be a coroutine function."""
    deadline = time.monotonic() + within
    while True:
        failure: AssertionError | None = None
        value: Any = None
        try:
            value = check()
            if inspect.isawaitable(value):
                value = await value
        except AssertionError as error:
            failure = error
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(because or f"not true within {within} s; last: {failure or value!r}") from failure
        await asyncio.sleep(every)
