"""A machine that publishes at QoS 1 and notes each acknowledgement: the witness of what the plant has promised.

It speaks MQTT 3.1.1 by itself, so that the product's own codec does not vouch for the product. It never publishes a
reading twice: what a lost connection leaves unanswered may stand in the lake or not.
"""

import json
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from appliance.contract.reading import Quality, Value

CONNECT: Final = b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x07witness"
CONNACK, PUBACK = 0x20, 0x40
WINDOW: Final = 400
START_US: Final = 1_772_323_200_000_000
"""2026-03-01; the n-th reading was measured n microseconds later, which names it from end to end."""
TOPICS: Final = tuple(f"acme/northfield/hall/line-1/cell/pmp-{n}/{tag}" for n in range(8) for tag in ("flow", "state"))


@dataclass(frozen=True, slots=True)
class Published:
    """One reading as it was handed to the broker."""

    topic: str
    value: Value
    quality: int
    source_us: int


@dataclass(slots=True)
class Diary:
    """What was published, in order, and which of it was acknowledged."""

    published: list[Published] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    """Places in `published`."""


class Publisher:
    """Publishes seeded values at a rate until it is stopped, over as many connections as it takes."""

    def __init__(self, port: int, seed: int, text_chars: int = 12) -> None:
        self.diary = Diary()
        self._port, self._chance, self._text_chars = port, random.Random(seed), text_chars
        self._rate, self._left = 0.0, 0
        self._is_stopped, self._is_quiet = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, rate: float, count: int = 1 << 60) -> None:
        """Publish `rate` readings a second from now on, `count` at most."""
        assert self._thread is None, "it publishes already"
        self._rate, self._left = rate, count
        self._is_stopped.clear()
        self._is_quiet.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def quiet(self, deadline_s: float = 60.0) -> None:
        """Publish no more, and wait until all that is under way is acknowledged, or lost with its connection."""
        self._is_quiet.set()
        self._end(deadline_s)

    def finish(self, deadline_s: float = 120.0) -> None:
        """Wait until `count` readings have been published and answered, or lost with their connection."""
        self._end(deadline_s)

    def stop(self) -> None:
        """End now; what is under way stays unanswered."""
        self._is_stopped.set()
        self._end(10.0)

    def _end(self, deadline_s: float) -> None:
        if self._thread is None:
            return
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            self._is_stopped.set()
            raise AssertionError(f"the plant has left a publisher without an answer for {deadline_s:.0f} s")
        self._thread = None

    @property
    def _is_done(self) -> bool:
        return self._is_quiet.is_set() or not self._left

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            under_way: dict[int, int] = {}
            try:
                with socket.create_connection(("127.0.0.1", self._port), 2.0) as link:
                    link.settimeout(2.0)
                    self._talk(link, under_way)
            except OSError:
                time.sleep(0.05)
            if self._is_done:
                return

    def _talk(self, link: socket.socket, under_way: dict[int, int]) -> None:
        link.sendall(CONNECT)
        received, packet_id, is_greeted = bytearray(), 0, False
        due_s = time.monotonic()
        while not self._is_stopped.is_set() and not (self._is_done and not under_way):
            if select.select([link], [], [], 0.005)[0]:
                if not (data := link.recv(65_536)):
                    return
                received += data
                is_greeted = self._hear(received, under_way) or is_greeted
            due_s = max(due_s, time.monotonic() - 0.2)  # What the plant held up is not made up for at once.
            out = bytearray()
            while is_greeted and not self._is_done and len(under_way) < WINDOW and due_s <= time.monotonic():
                packet_id = packet_id % 65_535 + 1
                under_way[packet_id] = len(self.diary.published)
                out += self._next(packet_id)
                due_s += 1 / self._rate
            if out:
                link.sendall(out)

    def _hear(self, received: bytearray, under_way: dict[int, int]) -> bool:
        """Take the answers, all of which are four bytes long; True when the broker has greeted."""
        is_greeted = False
        while len(received) >= 4:
            kind, _, packet_id = struct.unpack(">BBH", received[:4])
            del received[:4]
            if kind == PUBACK:
                self.diary.acknowledged.add(under_way.pop(packet_id))
            else:
                assert (kind, packet_id & 0xFF) == (CONNACK, 0), "the broker says what nobody asked"
                is_greeted = True
        return is_greeted

    def _next(self, packet_id: int) -> bytes:
        one = self._reading(len(self.diary.published))
        self.diary.published.append(one)
        self._left -= 1
        at = datetime.fromtimestamp(one.source_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        document = {"value": one.value, "timestamp": f"{at}.{one.source_us % 1_000_000:06d}Z"}
        topic = one.topic.encode()
        body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet_id) + json.dumps(document).encode()
        return b"\x32" + _length(len(body)) + body

    def _reading(self, number: int) -> Published:
        value = self._value()
        quality = Quality.BAD if value is None else Quality.GOOD
        return Published(self._chance.choice(TOPICS), value, quality, START_US + number)

    def _value(self) -> Value:
        chance = self._chance
        kinds: Sequence[Value] = (
            chance.gauss(20, 3), chance.randrange(-(2**40), 2**40), chance.random() < 0.5,
            chance.randbytes(self._text_chars // 2).hex() + "é", None,
        )  # fmt: skip
        return chance.choices(kinds, (60, 10, 10, 19, 1) if self._text_chars < 100 else (4, 1, 1, 93, 1))[0]


def _length(size: int) -> bytes:
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)
