"""kill -9 at random instants while entries come in, are sealed and are dropped: nothing is unaccounted for."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from appliance.buffer.salvage import Report, pieces
from appliance.contract.reading import Stream

KILLS = 20
CHILD = """
import asyncio, random, sys
from pathlib import Path
from appliance.buffer import buffer, keeper
from appliance.buffer.buffer import Buffer
from appliance.buffer.retention import Bounds
from appliance.buffer.schema import WAL_BYTES
from appliance.contract.reading import Reading
keeper.SEAL_AGE_S, keeper.LOOK_S, keeper.LOOK_BUSY_S = 0.02, 0.02, 0.01
chance = random.Random()
text = chance.randbytes(200_000).hex()
async def main():
    bounds = Bounds(size_max_bytes=WAL_BYTES + 1_500_000, free_min_bytes=0)
    async with Buffer.open(Path(sys.argv[1]), "northfield", bounds) as log:
        cursor = await log.cursor("bridge")
        async def produce():
            while True:
                at = [chance.randrange(399_000) for _ in range(chance.randrange(1, 300))]
                mine = [Reading("acme/n/a/l/c/e/t", text[i:i + 800], 192, 0, 0, 0, "o") for i in at]
                first = await log.append(mine)
                print(first + len(mine) - 1, flush=True)
        async def follow():
            while True:
                await cursor.advance((await cursor.batch(500)).last)
        await asyncio.gather(produce(), produce(), follow())
asyncio.run(main())
"""


def test_kills_during_ingest_sealing_and_retention(tmp_path: Path) -> None:
    """Each answered entry stands in the log or in a gap; blocks, checksums and the chain of digests hold."""
    path, chance, answered = tmp_path / "b.db", random.Random(3), 0
    dropped = 0
    for _ in range(KILLS):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout
        for _ in range(chance.randrange(1, 60)):
            answered = max(answered, int(child.stdout.readline()))
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines(keepends=True):
            answered = max(answered, int(line)) if line.endswith("\n") else answered
        child.stdout.close()
        child.wait()
        report = Report()
        for _ in pieces(path, report):
            pass
        assert report.faults == []
        assert report.last[Stream.READINGS] >= answered
        assert [report.missing(stream) for stream in Stream] == [[], []]
        gaps = report.explained[Stream.READINGS]
        dropped = sum(last - first + 1 for first, last in gaps)
        assert dropped + report.entries[Stream.READINGS] == report.last[Stream.READINGS]
    assert dropped > 0, "nothing was dropped, so retention was not tested"
