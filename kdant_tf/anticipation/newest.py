"""Keeping up with a stream that does not wait: only the newest item counts."""

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class _Slot(Generic[Item]):
    """Holds at most one item; a newer one takes its place."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._replaced = 0
        self._ended = False
        self.unwanted = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        with self._changed:
            self._replaced += self._item is not None
            self._item = item
            self._changed.notify()

    def end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify()

    def take(self) -> tuple[Item, int] | None:
        """Waits for an item; gives it with the number of those that it replaced. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._ended)
            if self._item is None:
                if self._error is not None:
                    raise self._error
                return None
            taken = (self._item, self._replaced)
            self._item, self._replaced = None, 0
            return taken


def newest(items: Iterator[Item]) -> Iterator[tuple[Item, int]]:
    """Goes through `items` in a thread of its own, as fast as they come; yields the newest each time.

    Where it is not gone through to its end the thread stops with the next item that comes.

    Yields:
        An item, and how many before it were left out since the last one. The very last one always comes.

    Raises:
        What `items` raises, when what came before has been yielded.
    """
    slot: _Slot[Item] = _Slot()
    thread = threading.Thread(target=_fill, args=(items, slot), name="kdant-source", daemon=True)
    thread.start()
    try:
        while (taken := slot.take()) is not None:
            yield taken
    finally:
        slot.unwanted = True


def _fill(items: Iterator[Item], slot: _Slot[Item]) -> None:
    try:
        for item in items:
            slot.put(item)
            if slot.unwanted:
                break
    except BaseException as error:
        slot.end(error)
    else:
        slot.end(None)
