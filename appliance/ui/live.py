"""Live values: one stream of server-sent events for one open page."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic

TICK_S = 0.5
"""At most two updates of a value each second."""
HEARTBEAT_S = 2.0
VALUES_MAX = 400
"""Values in one message; the rest comes with the next tick."""


async def stream(
    values: Callable[[], Mapping[str, str]],
    state: Callable[[], int],
    is_stopping: asyncio.Event,
) -> AsyncIterator[str]:
    """Messages `v` with the texts that changed, `state` when the page should be fetched anew, and heartbeats."""
    sent: dict[str, str] = {}
    said: int | None = None
    beat_s = -HEARTBEAT_S
    yield "retry: 1000\n\n"
    while not is_stopping.is_set():
        now = values()
        changed = [(key, text) for key, text in now.items() if sent.get(key) != text][:VALUES_MAX]
        if changed:
            sent.update(changed)
            yield _message("v", dict(changed))
        its = state()
        if its != said:
            if said is not None:
                yield _message("state", its)
            said = its
        if monotonic() - beat_s >= HEARTBEAT_S:
            beat_s = monotonic()
            yield _message("beat", None)
        try:
            await asyncio.wait_for(is_stopping.wait(), TICK_S)
        except TimeoutError:
            continue


def _message(event: str, data: object) -> str:
    # JSON escapes line breaks, so a hostile text cannot begin a message of its own.
    return f"event: {event}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
