"""Answers that are made while they are sent: flat in memory under ASGI, where Django would collect a plain iterator first."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db import connections
from django.http import HttpRequest, StreamingHttpResponse


def stream(request: HttpRequest, chunks: Iterator[bytes], *, content_type: str, filename: str) -> StreamingHttpResponse:
    """Return an answer of pieces, as a file to keep; `chunks` is a generator that runs in the context in force now.

    Under ASGI it runs in a thread of its own, piece by piece as the client takes them, and is closed when the client goes away.
    """
    body: Any = (_in_thread if isinstance(request, ASGIRequest) else _here)(chunks, copy_context())
    answer = StreamingHttpResponse(body, content_type=content_type)
    answer["Content-Disposition"] = f'attachment; filename="{filename}"'
    answer["X-Accel-Buffering"] = "no"
    return answer


async def _in_thread(chunks: Iterator[bytes], context: Context) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="stream")
    try:
        while (chunk := await loop.run_in_executor(thread, context.run, _piece, chunks)) is not None:
            yield chunk
    finally:
        thread.submit(context.run, _end, chunks)
        thread.shutdown(wait=False)


def _here(chunks: Iterator[bytes], context: Context) -> Iterator[bytes]:
    try:
        while (chunk := context.run(_piece, chunks)) is not None:
            yield chunk
    finally:
        if isinstance(chunks, Generator):
            context.run(chunks.close)


def _piece(chunks: Iterator[bytes]) -> bytes | None:
    return next(chunks, None)


def _end(chunks: Iterator[bytes]) -> None:
    """Close the generator and this thread's connections."""
    try:
        if isinstance(chunks, Generator):
            chunks.close()
    finally:
        connections.close_all()
