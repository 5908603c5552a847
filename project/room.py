"""Room for so much at once: who finds none is refused, or waits outside until it is their turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Overloaded(RuntimeError):
    """Too much waits for the model."""


class Aborted(RuntimeError):
    """The model was given up, with a request in it or before it."""


class Room:
    """Holds so much at once; one thing that is larger fits when it is alone.

    First come, first in: nobody passes those who wait outside, for a large one would wait for ever.
    All is done on one event loop.

    Args:
        size: in the unit that ``unit`` names.

    Attributes:
        taken: of the size.
    """

    def __init__(self, size: int, unit: str) -> None:
        self.taken = 0
        self._size = size
        self._unit = unit
        self._outside: OrderedDict[asyncio.Future[None], int] = OrderedDict()
        self._closed = ""  # the reason

    @asynccontextmanager
    async def take(self, amount: int, *, patient: bool) -> AsyncIterator[None]:
        """Be inside, with so much.

        Args:
            patient: wait where others are refused.

        Raises:
            Overloaded: there is no room, or others wait for it.
            Aborted: the room was closed.
        """
        await self._enter(amount, patient=patient)
        try:
            yield
        finally:
            self.taken -= amount
            self._call_first()

    def close(self, reason: str) -> None:
        """Let nobody in any more, those who wait outside included."""
        self._closed = reason
        for turn in self._outside:
            _call(turn)

    async def _enter(self, amount: int, *, patient: bool) -> None:
        try:
            if not self._closed and (self._outside or not self._fits(amount)):
                if not patient:
                    raise Overloaded(
                        f"{self.taken} {self._unit} wait for the model; try again later"
                    )
                await self._wait(amount)
            if self._closed:
                raise Aborted(self._closed)
            self.taken += amount
        finally:
            self._call_first()  # the next: who was the first is inside now, or has left

    async def _wait(self, amount: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._outside[turn] = amount
        try:
            await turn
        finally:
            del self._outside[turn]

    def _call_first(self) -> None:
        """It stays the first until it has come: what fits now still fits then."""
        first = next(iter(self._outside.items()), None)
        if first is not None and self._fits(first[1]):
            _call(first[0])

    def _fits(self, amount: int) -> bool:
        return not self.taken or self.taken + amount <= self._size


def _call(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # called already, or cancelled
        turn.set_result(None)
