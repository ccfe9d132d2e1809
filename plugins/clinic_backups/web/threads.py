"""A few threads in which requests wait for databases, so that Airflow's API stays responsive."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, move_on_after, to_thread
from fastapi.responses import StreamingResponse

from clinic_backups.web.problems import Unavailable

THREADS = 8
LONGEST_QUEUE = 64
LONGEST_SECONDS = 20
P = ParamSpec("P")
T = TypeVar("T")


@cache
def _limiter() -> CapacityLimiter:
    return CapacityLimiter(THREADS)


async def run(function: Callable[[], T]) -> T:
    """Call a function in one of the threads.

    :raises Unavailable: too many calls wait, or the call takes too long. A hanging database gives no error, so its
        thread is abandoned.
    """
    limiter = _limiter()
    if limiter.statistics().tasks_waiting >= LONGEST_QUEUE:
        raise Unavailable("Too many requests wait for the catalog.", hint="Try again soon.", retry_after_seconds=5)
    with move_on_after(LONGEST_SECONDS):
        return await to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=True)
    raise Unavailable(
        f"A database did not answer within {LONGEST_SECONDS} seconds.",
        hint="Try again in a minute, but check first whether your request was carried out.",
        retry_after_seconds=30,
    )


def on_threads(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A plain function as a FastAPI handler or dependency that runs in these threads instead of Starlette's."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{function.__qualname__} is a coroutine function already")

    @wraps(function)
    async def handler(*args: P.args, **kwargs: P.kwargs) -> T:
        return await run(partial(function, *args, **kwargs))

    return handler


def file_response(pieces: Iterator[bytes], filename: str, size_bytes: int, *, media_type: str) -> StreamingResponse:
    """A file to download, its pieces read in these threads."""
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Content-Length": str(size_bytes)}
    return StreamingResponse(stream(pieces), media_type=media_type, headers=headers)


async def stream(pieces: Iterator[T]) -> AsyncIterator[T]:
    """The pieces of a blocking iterator, each read in one of the threads."""
    missing = object()
    # :func:`run` is not used, because an answer that has begun must not end because others wait.
    while (piece := await to_thread.run_sync(partial(next, pieces, missing), limiter=_limiter())) is not missing:
        yield piece
