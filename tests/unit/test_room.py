"""The room: never too full, and first come, first in, whoever leaves meanwhile."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from project.room import Room

SIZE = 10


@settings(max_examples=200, deadline=None)
@given(
    amounts=st.lists(st.integers(1, 15), max_size=20),
    leaving=st.dictionaries(st.integers(0, 19), st.integers(0, 30)),
    stays=st.lists(st.integers(0, 4), min_size=20, max_size=20),
)
def test_first_come_first_in(amounts: list[int], leaving: dict[int, int], stays: list[int]) -> None:
    """Who is not cancelled gets in, in order, and only one who is alone may be too large."""
    entered: list[int] = []
    inside: dict[int, int] = {}

    async def enter(room: Room, number: int) -> None:
        async with room.take(amounts[number], patient=True):
            entered.append(number)
            inside[number] = amounts[number]
            assert room.taken == sum(inside.values())
            assert len(inside) == 1 or room.taken <= SIZE
            try:
                for _ in range(stays[number]):
                    await asyncio.sleep(0)
            finally:
                del inside[number]

    async def run() -> None:
        room = Room(SIZE, "things")
        tasks = [asyncio.ensure_future(enter(room, number)) for number in range(len(amounts))]
        for tick in range(31):
            await asyncio.sleep(0)
            for number, when in leaving.items():
                if when == tick and number < len(tasks):
                    tasks[number].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in outcomes if isinstance(each, Exception)]
        assert room.taken == 0

    asyncio.run(run())
    assert entered == sorted(entered)
    assert set(entered) | set(leaving) >= set(range(len(amounts)))
