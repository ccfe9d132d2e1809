"""Where requests wait for databases: in few threads of their own, so that Airflow's API stays responsive."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cache, partial, wraps
from typing import Any, ParamSpec, TypeVar

from anyio import CapacityLimiter, move_on_after, to_thread

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
    """Call it in one of the threads.

    :raises Unavailable: too many calls wait already, or it takes too long: a database that hangs gives no error, and
        its thread is left to itself.
    """
    limiter = _limiter()
    if limiter.statistics().tasks_waiting >= LONGEST_QUEUE:
        raise Unavailable("Too many requests wait for the catalog.", hint="Try again soon.", retry_after_seconds=5)
    with move_on_after(LONGEST_SECONDS):
        return await to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=True)
    raise Unavailable(
        f"A database has not answered within {LONGEST_SECONDS} seconds.",
        hint="Try again in a minute; look first whether what you asked for was done.",
        retry_after_seconds=30,
    )


def on_threads(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A plain function as a FastAPI handler or dependency that runs in these threads, and not in Starlette's."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{function.__qualname__} is a coroutine function already")

    @wraps(function)
    async def handler(*args: P.args, **kwargs: P.kwargs) -> T:
        return await run(partial(function, *args, **kwargs))

    return handler


async def stream(pieces: Iterator[T]) -> AsyncIterator[T]:
    """The pieces of an iterator that waits for something, each got in one of the threads."""
    missing = object()
    # Not by :func:`run`: an answer that has begun must not end because others wait.
    while (piece := await to_thread.run_sync(partial(next, pieces, missing), limiter=_limiter())) is not missing:
        yield piece
