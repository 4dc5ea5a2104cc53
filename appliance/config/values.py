"""Values as people write them: names, ages, addresses."""

import ipaddress
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

Name = Annotated[str, Field(pattern=r"^[\w.\-]{1,64}$")]
_AGE_UNITS_S = {"min": 60, "h": 3_600, "d": 86_400}


def _age_s(text: object) -> object:
    """Seconds of an age such as `14 d`."""
    if isinstance(text, str) and (age := re.fullmatch(r"\s*(\d+)\s*(min|h|d)\s*", text)):
        return int(age[1]) * _AGE_UNITS_S[age[2]]
    if type(text) is int:
        return text
    raise ValueError(f"{text!r} is not an age; write for example '14 d', '12 h' or '30 min'")


Age = Annotated[int, BeforeValidator(_age_s, json_schema_input_type=str), Field(gt=0)]
"""Seconds, written as `14 d`, `12 h` or `30 min`."""


def address(bind: str) -> tuple[str, int]:
    """Split `HOST:PORT`; raises ValueError with a hint."""
    host, colon, port = bind.rpartition(":")
    host = {"localhost": "127.0.0.1"}.get(host, host.strip("[]"))
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{bind!r} is not HOST:PORT; write for example 127.0.0.1:8080")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IP address; write for example 127.0.0.1:{port}") from None
    return host, int(port)
