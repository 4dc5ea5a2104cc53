"""`make chaos`: every scenario in its long form, a table, and build/chaos.json."""

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from chaos.account import Balance
from chaos.chapters import CHAPTERS, Chapter
from chaos.scenarios import Effort
from chaos.world import World, faketime

HEAD: Final = ("scenario", "rounds", "seed", "published", "acknowledged", "in silver", "gaps", "seconds", "result")


def lacks(chapter: Chapter) -> str:
    """Why this machine cannot do it; empty when it can."""
    if chapter.setting.has_own_clock and not faketime():
        return "libfaketime is not installed (apt-get install faketime)"
    if chapter.setting.data_mb and (sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount")):
        return "only root on Linux can mount a small disk"
    return ""


def tell(chapter: Chapter, world: World, seed: int, rounds: int, lasts_s: float) -> tuple[Effort, Balance]:
    """Let one scenario happen in a running world, and close the account."""
    effort = Effort(rounds, lasts_s)
    chapter.tell(world, random.Random(seed), effort)
    return effort, world.settled()


def long_form(chapter: Chapter, seed: int, rounds: int, lasts_s: float, folder: Path) -> dict[str, Any]:
    """One scenario in a world of its own; gives its line of the table."""
    line: dict[str, Any] = {"scenario": chapter.name, "rounds": rounds, "lasts_s": lasts_s, "seed": seed}
    if reason := lacks(chapter):
        return {**line, "result": f"skipped: {reason}"}
    wishes = {key: wish for key, wish in chapter.setting.plant.items() if key not in ("send_s", "pace")}
    setting = replace(chapter.setting, plant=wishes) if chapter.is_patient else chapter.setting
    started_s = time.monotonic()
    try:
        with World(folder, setting, seed) as world:
            world.start()
            effort, _ = tell(chapter, world, seed, rounds, lasts_s)
            closed, result = world.final(), "balances"
            line |= {"notes": effort.notes, **asdict(closed)}
    except AssertionError as error:
        result = f"FAILED: {error}"
    return {**line, "seconds": round(time.monotonic() - started_s, 1), "result": result}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--only", default="", help="scenarios whose name contains this")
    parser.add_argument("--share", type=float, default=1.0, help="of the rounds and of how long faults last")
    parser.add_argument("--out", type=Path, default=Path("build/chaos.json"))
    asked = parser.parse_args()
    print(f"seed {asked.seed}; again with --seed {asked.seed}")
    print(" | ".join(HEAD), flush=True)
    lines: list[dict[str, Any]] = []
    for chapter in CHAPTERS:
        if asked.only not in chapter.name:
            continue
        rounds, lasts_s = max(1, round(chapter.long[0] * asked.share)), chapter.long[1] * min(1.0, asked.share * 4)
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{chapter.name}-"))
        line = long_form(chapter, asked.seed, rounds, lasts_s, folder)
        lines.append(line)
        keys = [name.replace(" ", "_") for name in HEAD]
        print(" | ".join(str(line.get(key, "")) for key in keys), line.get("notes", ""), flush=True)
        if line["result"].startswith("FAILED"):
            print(f"  what it left: {folder}", flush=True)
        else:
            shutil.rmtree(folder)
        machine = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"machine": machine, "scenarios": lines}, indent=2) + "\n")
    return int(any(line["result"].startswith("FAILED") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
