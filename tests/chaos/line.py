"""A telephone line between the plant and the hub: a TCP proxy on loopback that delays, stalls and cuts.

TCP hides loss behind retransmission, so what a program above it feels of a lossy line is what is made here: bytes
come late, then nothing for some time that doubles with each segment lost again, and now and then the line is cut.
"""

import asyncio
import random
import threading
from dataclasses import dataclass
from typing import Final

SEGMENT_BYTES: Final = 4_096
RTO_S: Final = 0.2
"""The smallest pause after which TCP sends a segment again (RFC 6298 asks for 1 s, Linux takes 0.2 s)."""
LOST_AGAIN_MAX: Final = 6


@dataclass(frozen=True, slots=True)
class Weather:
    """What the line does to each segment: delay it, lose it (again and again), cut the connection."""

    delay_s: float = 0.0
    loss: float = 0.0
    cut: float = 0.0


class Line:
    """Carries connections from a port of its own to another port of 127.0.0.1, in a thread of its own."""

    def __init__(self, to_port: int, seed: int) -> None:
        self.weather = Weather()
        self.port = 0
        self.stalls = self.cuts = 0
        self._to_port, self._chance = to_port, random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._ready, self._done = threading.Event(), asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)
        self._thread.start()
        assert self._ready.wait(10), "the line did not come up"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)
        self._loop.close()

    async def _run(self) -> None:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._done.wait()
        server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0.1)  # Each carrier sees the end of its own connection.

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = {writer}
        self._open.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            ends.add(far_writer)
            self._open.add(far_writer)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._one_way(reader, far_writer))
                ways.create_task(self._one_way(far_reader, writer))
        except* OSError:
            pass  # An end that goes away takes the other with it.
        finally:
            for end in ends:
                self._open.discard(end)
                end.transport.abort()

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Segments in order, each no sooner than the weather at its departure allows."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def depart() -> None:
            while data := await reader.read(SEGMENT_BYTES):
                await waiting.put((loop.time() + self._weathered_s(), data))
            raise ConnectionResetError

        async def arrive() -> None:
            while True:
                at_s, data = await waiting.get()
                await asyncio.sleep(max(0.0, at_s - loop.time()))
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as ends:
            ends.create_task(depart())
            ends.create_task(arrive())

    def _weathered_s(self) -> float:
        """How late this segment comes; raises ConnectionError when it never does."""
        weather, late_s = self.weather, self.weather.delay_s
        if self._chance.random() < weather.cut:
            self.cuts += 1
            raise ConnectionAbortedError
        for again in range(LOST_AGAIN_MAX):
            if self._chance.random() >= weather.loss:
                break
            self.stalls += not again
            late_s += RTO_S * 2**again
        return late_s
