"""An Uplink: the way by which sealed envelopes leave the plant."""

from typing import Protocol

from appliance.contract.envelope import Lane, Sealed


class UplinkError(Exception):
    """An envelope did not get through. `hint` says what an operator can do.

    `retryable` is False only when this very envelope will never be taken, however often it is sent.
    `pause_s_min` is the least pause the far side wants before the next try.
    """

    def __init__(self, text: str, hint: str, *, retryable: bool = True, pause_s_min: float = 0.0) -> None:
        super().__init__(text)
        self.hint, self.retryable, self.pause_s_min = hint, retryable, pause_s_min


class Uplink(Protocol):
    """Takes sealed envelopes to the far side, one at a time, with their bytes and properties unchanged.

    `send` returns only after the far side has acknowledged, which it does only after storing; whatever
    else happens is an `UplinkError`, within a time bounded by the uplink's own deadlines. After an error
    the envelope may or may not have been stored: sending it again is right, and the cloud counts it once.
    """

    name: str

    async def send(self, sealed: Sealed, lane: Lane) -> None:
        """Deliver one envelope; raises `UplinkError`."""

    async def close(self) -> None:
        """Let go of the link within a bounded time, without raising; a later `send` takes it up anew."""
