"""Stages in threads, with bounded channels between them that also pass errors on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Cancelled(Exception):
    """The stage that reads this channel has stopped, so the writer must stop too."""


class Channel(Generic[T]):
    """A bounded queue between two threads. It ends by :meth:`close`, or by :meth:`fail` with the writer's error.

    :param capacity: how much may wait in it, in the unit of ``put``'s weight. One heavier item still passes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[tuple[T, int]] = deque()
        self._waiting = 0
        self._closed = self._cancelled = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def put(self, item: T, weight: int = 1) -> None:
        """Add one item, as soon as there is room. :raises Cancelled: the reader has stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or not self._items or self._waiting < self._capacity)
            if self._cancelled:
                raise Cancelled
            self._items.append((item, weight))
            self._waiting += weight
            self._changed.notify_all()

    def get(self) -> T | None:
        """The next item, or ``None`` at the end. The writer's error is raised at once, before waiting items."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed or self._error)
            if self._error is not None:
                raise self._error
            if not self._items:
                return None
            item, weight = self._items.popleft()
            self._waiting -= weight
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """End the channel: everything was written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """End the channel with the writer's error, which the reader then raises."""
        with self._changed:
            self._error = error
            self._items.clear()
            self._changed.notify_all()

    def cancel(self) -> None:
        """Stop reading. The writer's next ``put`` raises :class:`Cancelled`."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()


class ByteChannel(Channel[bytes]):
    """A channel of bytes that has the ``write`` and ``read`` of a file object."""

    def __init__(self, capacity: int = 4 * 1024 * 1024) -> None:
        super().__init__(capacity)
        self._rest = memoryview(b"")

    def write(self, data: bytes) -> int:
        """Add bytes. :raises Cancelled: the reader has stopped."""
        if data:
            self.put(bytes(data), len(data))
        return len(data)

    def is_empty(self) -> bool:
        """Whether there is nothing to read, not even later. Waits for the first bytes. Raises the writer's error."""
        self._rest = self._rest or memoryview(self.get() or b"")
        return not self._rest

    def flush(self) -> None:
        """Nothing to do: written bytes can be read at once."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, or all the rest if negative; ``b""`` only at the end. Raises the writer's error."""
        if size < 0:
            parts = [bytes(self._rest)]
            self._rest = memoryview(b"")
            while (item := self.get()) is not None:
                parts.append(item)
            return b"".join(parts)
        if not self._rest and size:
            self._rest = memoryview(self.get() or b"")
        data, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return data


class Pipeline:
    """Stages in threads of their own, and a last step in the caller's.

    A stage reads from its ``source`` (the first stage has none) and fills its ``target``. When its work ends, the
    target is closed. When it raises, the target fails with the same error and the source is cancelled, so that both
    neighbours stop. :meth:`run` raises the first error, whatever the other stages make of it.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []
        self._last: Channel[Any] | None = None

    def add(
        self, name: str, work: Callable[[], object], *, source: Channel[Any] | None = None, target: Channel[Any]
    ) -> None:
        """Add a stage after the existing ones. :meth:`run` starts it."""

        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - handed on to the next stage, which raises it
                self._failures.append(error)
                target.fail(error)
                if source is not None:
                    source.cancel()
            else:
                target.close()

        self._threads.append(threading.Thread(target=run, name=f"stage-{name}", daemon=True))
        self._last = target

    def abort(self, error: BaseException) -> None:
        """Make :meth:`run` raise ``error``, from another thread or a signal handler."""
        self._failures.insert(0, error)
        if self._last is not None:
            self._last.fail(error)

    def require_running(self) -> None:
        """For a stage that waits. :raises Cancelled: another stage has failed, or :meth:`abort` was called."""
        if self._failures:
            raise Cancelled

    def run(self, last: Callable[[], T], *, on_failure: Callable[[], object], join_seconds: float = 60) -> T:
        """Start the stages, do ``last`` here, which reads the last stage's target to its end, and return its result.

        :param on_failure: called before waiting for the stages, to end a call in which a stage may be blocked.
        """
        for thread in self._threads:
            thread.start()
        try:
            result = last()
        except BaseException as error:
            self._failures.append(error)
            if self._last is not None:
                self._last.cancel()
            on_failure()
            self._join(join_seconds)
            # An interrupt of the caller's own thread is raised unchanged.
            if error is self._failures[0] or not isinstance(error, Exception):
                raise
            raise self._failures[0] from None
        self._join(join_seconds)
        if self._failures:
            # The last step stopped reading before the end and reported success.
            raise self._failures[0]
        return result

    def _join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
