"""Which scenarios there are, in what kind of world, and how much of each is done in the short and in the long form."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chaos.scenarios import (
    Effort,
    bad_line,
    busy_hub,
    carried_twice,
    cut_before_the_answer,
    expired_token,
    flipped_bytes,
    full_disk,
    killed_at_random,
    mute_peer,
    restarts_in_the_drain,
    starts_without_a_cloud,
    stepped_clock,
)
from chaos.world import Setting, World

from appliance.buffer.schema import WAL_BYTES

Scenario = Callable[[World, random.Random, Effort], None]
QUICK: Final = {
    "send_s": 4.0, "pace": {"pause_s_min": 0.2, "pause_s_max": 1.0, "stall_s": 10.0, "flush_s": 0.2},
}  # fmt: skip
"""Patience for the short form: minutes of a link that does not work pass in seconds."""
SMALL: Final = {
    "bounds": {"size_max_bytes": WAL_BYTES + 1_000_000, "free_min_bytes": 0},
    "SEAL_AGE_S": 0.2, "LOOK_S": 0.2, "LOOK_BUSY_S": 0.05,
}  # fmt: skip
"""A log so small that it seals and drops all the time."""
SEALING: Final = {"SEAL_AGE_S": 0.2, "LOOK_S": 0.5}


@dataclass(frozen=True, slots=True)
class Chapter:
    """A scenario, the setting of its world, and how much of it is done in the short and in the long form."""

    tell: Scenario
    setting: Setting
    short: tuple[int, float]
    long: tuple[int, float]
    is_patient: bool = False
    """In the long form the Bridge has the patience it is shipped with."""

    @property
    def name(self) -> str:
        kind = "-jwt" if self.setting.jwt_issuer else ""
        return self.tell.__name__.replace("_", "-") + kind


NET: Final = Setting(QUICK, text_chars=400)
KILLED: Final = Setting({**QUICK, **SMALL}, text_chars=800)
DAMAGED: Final = Setting({**QUICK, **SEALING}, text_chars=400)
SAS: Final = Setting(QUICK, access_key="c2VjcmV0", has_own_clock=True)
JWT: Final = Setting(QUICK, access_key="c2VjcmV0", jwt_issuer="https://sts.example.com/t/", has_own_clock=True)
FULL: Final = Setting({**QUICK, **SEALING}, toml='[buffer]\nfree_min = "1MB"', data_mb=48, text_chars=400)
CARRIED: Final = Setting(QUICK, uplink="folder")
CHAPTERS: Final = (
    Chapter(starts_without_a_cloud, NET, (1, 2), (10, 20), is_patient=True),
    Chapter(cut_before_the_answer, NET, (1, 0), (50, 0)),
    Chapter(mute_peer, NET, (1, 2), (5, 30), is_patient=True),
    Chapter(busy_hub, NET, (1, 5), (1, 600), is_patient=True),
    Chapter(bad_line, NET, (1, 8), (3, 60), is_patient=True),
    Chapter(restarts_in_the_drain, NET, (1, 0), (20, 0)),
    Chapter(killed_at_random, KILLED, (20, 0), (200, 0)),
    Chapter(flipped_bytes, DAMAGED, (4, 0), (40, 0)),
    Chapter(expired_token, SAS, (1, 2), (5, 30)),
    Chapter(stepped_clock, SAS, (1, 1.5), (10, 5)),
    Chapter(expired_token, JWT, (1, 1), (5, 30)),
    Chapter(full_disk, FULL, (1, 3), (5, 60)),
    Chapter(carried_twice, CARRIED, (3, 1), (60, 1)),
)
