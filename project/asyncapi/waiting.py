"""How tasks wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


class Signal:
    """Wakes everyone who listened before it was sent.

    Call :meth:`listen` first, look at the state next, and only then wait: a change between the look
    and the wait is not missed.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """An event that the next :meth:`send` sets."""
        return self._event

    def send(self) -> None:
        """Something has changed."""
        self._event.set()
        self._event = asyncio.Event()


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Wait until one is done; those made here for the wait are cancelled, given tasks are not."""
    given = {each for each in awaitables if isinstance(each, asyncio.Task)}
    made = {asyncio.ensure_future(each) for each in awaitables if each not in given}
    try:
        await asyncio.wait(given | made, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in made:
            task.cancel()
        await asyncio.gather(*made, return_exceptions=True)
