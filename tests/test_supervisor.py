"""The supervisor: parts are kept running, and stopped last one first."""

import asyncio
import logging

import pytest

from appliance import supervisor
from appliance.supervisor import PartState, supervise


async def test_a_part_that_fails_is_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Two failures, then it runs; the story is in the log and in the part's state."""
    monkeypatch.setattr(supervisor, "PAUSE_S_MIN", 0.001)
    runs, well = 0, asyncio.Event()

    async def part() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise OSError("no link")
        well.set()
        await asyncio.Event().wait()

    async with supervise() as parts:
        parts.start("bridge", part)
        await well.wait()
        assert (parts.parts[0].restarts, parts.parts[0].last_error) == (2, "OSError: no link")
        assert parts.parts[0].state is PartState.RUNNING
    assert caplog.text.count("bridge failed; starting it again") == 2


async def test_parts_stop_last_one_first() -> None:
    """What brings readings in is stopped before what carries them away."""
    stopped: list[str] = []

    async def part(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(name)

    async with supervise() as parts:
        for name in ("buffer", "bridge", "connector"):
            parts.start(name, lambda name=name: part(name))  # type: ignore[misc]
        await asyncio.sleep(0)
    assert stopped == ["connector", "bridge", "buffer"]


async def test_a_broken_promise_ends_the_process() -> None:
    """An AssertionError is not retried: it passes through."""

    async def part() -> None:
        raise AssertionError("a promise of ours is broken")

    with pytest.raises(ExceptionGroup) as caught:
        async with supervise() as parts:
            parts.start("buffer", part)
            await asyncio.Event().wait()
    assert caught.group_contains(AssertionError)


async def test_a_part_that_will_not_stop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """A part that clings on does not hold the others back, and the log says which it was."""
    release = asyncio.Event()

    async def clinging() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()

    with caplog.at_level(logging.WARNING):
        async with supervise(grace_s=0.01) as parts:
            parts.start("clinging", clinging)
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.05, release.set)
    assert "clinging has not stopped" in caplog.text
