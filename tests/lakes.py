"""A small hub in a folder, filled with what plants would send; for the tests of the lake."""

import random
from collections.abc import Sequence
from pathlib import Path

from appliance.contract.envelope import Envelope, Lane, Sealed, seal
from appliance.contract.reading import Reading, Stream
from cloud_sync.source import FolderSource, HubEvent

DAY_US = 86_400_000_000
START_US = 1_790_000_000_000_000
TAGS = ("pmp-203/flow", "pmp-203/vibration_de", "pmp-204/flow", "pmp-204/running")


def readings(first: int, count: int, start_us: int = START_US, step_us: int = 1_000_000) -> tuple[Reading, ...]:
    """Entries whose values follow from their numbers."""
    found = []
    for seq in range(first, first + count):
        topic = f"acme/northfield/utilities/boiler-house/feed/{TAGS[seq % 4]}"
        value = bool(seq % 8) if seq % 4 == 3 else seq / 2
        at_us = start_us + seq * step_us
        found.append(Reading(topic, value, 192, at_us, at_us + 5, at_us + 1_000, "opcua:boiler"))
    return tuple(found)


def sealed(first: int, count: int, stream: Stream = Stream.READINGS, epoch: int = 1, **more: int) -> Sealed:
    """One envelope of readings."""
    return seal(Envelope("northfield", epoch, stream, first, readings(first, count, **more)))


class Hub(FolderSource):
    """A FolderSource that one can send to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        path.mkdir(parents=True, exist_ok=True)
        self._next: dict[int, int] = {}

    def send(self, letter: Sealed, partition: int = 0, enqueued_us: int = START_US) -> None:
        self.send_raw(letter.properties(Lane.LIVE), letter.body, partition, enqueued_us)

    def send_raw(
        self, properties: dict[str, str | int], body: bytes, partition: int = 0, enqueued_us: int = START_US
    ) -> None:
        sequence = self._next.get(partition, 0)
        self._next[partition] = sequence + 1
        self.write(HubEvent(partition, sequence, str(sequence * 100), enqueued_us, "northfield", properties, body))

    def lose(self, partition: int, lo: int, hi: int) -> None:
        """The retention of the hub has passed over these."""
        for sequence in range(lo, hi + 1):
            (self._path / str(partition) / f"{sequence:012d}.json").unlink()


def send_with_repeats(hub: Hub, total: int, partitions: Sequence[int], seed: int, first: int = 1) -> None:
    """`total` readings in envelopes of uneven size, some sent twice, some cut differently and to another partition."""
    chance = random.Random(seed)
    last = first + total - 1
    while first <= last:
        count = min(chance.randint(1, 300), last - first + 1)
        hub.send(sealed(first, count), chance.choice(partitions))
        if chance.random() < 0.3:
            hub.send(sealed(first, count), chance.choice(partitions))
        if chance.random() < 0.3:
            lo = max(1, first - chance.randint(0, 200))
            hub.send(sealed(lo, first - lo + chance.randint(1, count)), chance.choice(partitions))
        first += count
