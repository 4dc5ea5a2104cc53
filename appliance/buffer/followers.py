"""The Followers of the log: how far the slowest has come, and who does not count any more."""

import logging
from collections.abc import Callable
from time import monotonic

from appliance.buffer.admission import CURSOR
from appliance.buffer.store import Store
from appliance.contract.reading import Stream

log = logging.getLogger(__name__)

FORSAKEN_S = 86_400.0
"""A cursor that nobody has opened in a run of this length does not count any more."""
_FORSAKEN_TEXT = (
    "buffer: nobody has followed %s of %s for a day, so nothing is kept for it any more; "
    "`plantward buffer cursors` removes it"
)


class Followers:
    """Who follows, by the cursors in the file and those that were opened in this run."""

    def __init__(self, store: Store, last: Callable[[Stream], int], started_s: float) -> None:
        self._store, self._last, self._started_s = store, last, started_s
        self.following: set[tuple[str, Stream]] = set()
        """The cursors that someone has opened in this run."""
        self.forsaken: dict[Stream, dict[str, int]] = {stream: {} for stream in Stream}
        """Cursors that nobody moves any more, and so do not count; with the entries that wait for them."""

    async def slowest(self, stream: Stream) -> int:
        """The number of the last entry that every follower has taken; 0 when nobody follows."""
        cursors = await self._store.cursors(stream)
        cursors.pop(CURSOR, None)  # It follows nothing, it only keeps a count.
        if monotonic() - self._started_s < FORSAKEN_S:
            return min(cursors.values(), default=0)
        forsaken = [name for name in cursors if (name, stream) not in self.following]
        for name in set(forsaken) - set(self.forsaken[stream]):
            log.warning(_FORSAKEN_TEXT, name, stream)
        self.forsaken[stream] = {name: self._last(stream) - cursors.pop(name) for name in forsaken}
        return min(cursors.values(), default=self._last(stream) if forsaken else 0)
