"""The OPC UA connector: a server's data changes, written down before the server hears that we have them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic

from asyncua import ua
from asyncua.ua.uaerrors import UaError

from appliance.connectors.backoff import Backoff
from appliance.connectors.losses import Losses
from appliance.connectors.opcua_link import Joined, Link, Subscription
from appliance.connectors.opcua_status import OpcUaStatus, Pace
from appliance.connectors.opcua_story import Story
from appliance.connectors.opcua_tags import Source, wanted_tags
from appliance.connectors.opcua_values import Unreadable, sample_of
from appliance.connectors.reconciler import Reconciler
from appliance.connectors.repeats import Repeats
from appliance.contract.gap import Gap
from appliance.contract.reading import Reading

log = logging.getLogger(__name__)

Append = Callable[[Sequence[Reading]], Awaitable[object]]
"""Writes readings down; returns after the durable commit."""
Tell = Callable[[Sequence[Gap]], Awaitable[object]]
"""Writes down what was lost before it came here; returns after the durable commit."""

SEQUENCE_MAX = 2**32 - 1
MISSING_MAX = 1_000
"""So many missing notifications are asked for again after a gap."""
_LEAVE_S = 1.0
_SUBSCRIPTION_GONE = (ua.uaerrors.BadNoSubscription, ua.uaerrors.BadSubscriptionIdInvalid)
_ASK_AGAIN = (ua.uaerrors.BadTimeout, ua.uaerrors.BadTooManyPublishRequests)


class LinkLost(ConnectionError):
    """The link is up no more, or is as good as lost."""


_LINK_ERRORS = (OSError, UaError)


async def _nothing() -> Mapping[str, int]:
    return {}


async def _untold(_gaps: Sequence[Gap]) -> None:
    return


class OpcUaConnector:
    """Follows one OPC UA server: `append` first, acknowledge after.

    This is the only owner of reconnecting: each step of the back-off is one attempt. A cut connection rejoins
    its session and asks for missed notifications again; where the server forgot, everything is subscribed anew,
    and values that the log has already are dropped. `latest` gives the newest source time per topic in the log;
    `tell` takes the Gaps of what the server says it dropped.
    """

    def __init__(
        self,
        config: Source,
        append: Append,
        now_us: Callable[[], int],
        latest: Callable[[], Awaitable[Mapping[str, int]]] = _nothing,
        pace: Pace | None = None,
        tell: Tell = _untold,
    ) -> None:
        self._tell, self._losses = tell, Losses()
        self._config, self._append, self._now_us, self._latest = config, append, now_us, latest
        self._pace = pace or Pace()
        self._origin = f"opcua:{config.name}"
        self._link = Link(config.endpoint, "Plantward", self._pace.request_s)
        self._reconciler = Reconciler(config.name, config.sampling_interval_ms, config.queue_size)
        self._repeats = Repeats()
        self._subscription: Subscription | None = None
        self._next_seq = 1
        self._to_acknowledge: list[int] = []
        self._is_heard = self._is_worn_out = False
        """Whether the subscription gave a sign of life on this link, and whether it is of no more use."""
        self._left_out = 0
        self._story = Story(config.name, config.endpoint)

    def status(self) -> OpcUaStatus:
        bad = self._reconciler.bad
        example = f"{bad[0].tag.node.to_string()}: {bad[0].error}" if bad else ""
        status = self._story.status
        tags = self._reconciler.monitored if status.connected else 0
        return replace(status, tags=tags, bad_tags=len(bad) + self._left_out, bad_tag=example)

    async def run(self) -> None:
        """Keep the link for ever; ends by cancellation, or with the error of `append`."""
        self._repeats.know(await self._latest())
        backoff = Backoff(self._pace.retry_s_min, self._pace.retry_s_max, self._pace.healthy_s)
        try:
            while True:
                began = monotonic()
                reason = await self._connected()
                pause_s = backoff.next(monotonic() - began)
                self._story.lost(reason, pause_s)
                await asyncio.sleep(pause_s)
        finally:
            self._story.set(connected=False)
            await self._leave()

    async def _connected(self) -> str:
        """One life of the link; answers why it ended."""
        reason = ""
        self._story.set(attempts=self._story.status.attempts + 1)
        try:
            joined = await self._link.open()
            async with asyncio.TaskGroup() as tasks:
                await self._subscribe(joined)
                tasks.create_task(self._link.keep_channel())
                tasks.create_task(self._reconcile())
                tasks.create_task(self._follow())
        except* _LINK_ERRORS as group:
            reason = _reason(group)
        self._link.cut()
        return reason

    async def _subscribe(self, joined: Joined) -> None:
        old, self._is_heard = self._subscription, False
        if joined is Joined.SAME_SESSION and old is not None and not self._is_worn_out:
            while message := await self._republished(self._next_seq):
                await self._take(message)
            return
        self._forget()
        if joined is Joined.SAME_SESSION and old is not None:
            await self._link.unsubscribe(old.id)
        self._subscription = await self._link.subscribe(self._config.publishing_interval_ms, self._pace.keep_alive_s)
        if self._story.status.last_data_us:
            self._losses.unwatched(self._story.status.last_data_us, self._now_us())

    def _forget(self) -> None:
        self._subscription, self._next_seq, self._is_worn_out = None, 1, False
        self._to_acknowledge.clear()
        self._reconciler.want(())

    async def _reconcile(self) -> None:
        """Wanted against monitored items, again and again: a refused tag may be there later."""
        while True:
            assert self._subscription is not None
            if not self._reconciler.items:
                tags, self._left_out = await wanted_tags(self._link, self._config)
                self._reconciler.want(tags)
            if missing := self._reconciler.missing:
                self._repeats.expect([item.tag.topic for item in missing])
                await self._reconciler.reconcile(self._link, self._subscription.id)
            self._story.up(self._now_us(), self._reconciler.monitored, len(self._reconciler.bad))
            await asyncio.sleep(self._pace.refused_tag_s)

    async def _follow(self) -> None:
        """Notification after notification: fill what is missing before it, write it down, acknowledge it."""
        while True:
            result = await self._publish()
            if result is None or self._subscription is None or result.SubscriptionId != self._subscription.id:
                continue
            message = result.NotificationMessage
            await self._fill_gap(int(message.SequenceNumber))
            if message.NotificationData:
                await self._take(message)
            if gaps := self._losses.due(monotonic()):
                await self._tell(gaps)
                self._losses.told(monotonic())

    async def _publish(self) -> ua.PublishResult | None:
        assert self._subscription is not None
        acknowledging = tuple(self._to_acknowledge)
        silence_s = self._subscription.keep_alive_s * self._pace.silent_keep_alives
        try:
            async with asyncio.timeout(silence_s):
                result = await self._link.publish(self._subscription.id, acknowledging)
        except TimeoutError as error:
            self._is_worn_out = not self._is_heard
            raise LinkLost(f"no sign of life for {silence_s:.0f} s") from error
        except _ASK_AGAIN:
            await asyncio.sleep(self._config.publishing_interval_ms / 1000)
            return None
        except _SUBSCRIPTION_GONE:
            self._subscription = None
            raise
        self._is_heard = True
        del self._to_acknowledge[: len(acknowledging)]
        if acknowledging:
            self._story.set(acknowledged=acknowledging[-1])
        return result

    async def _fill_gap(self, seq: int) -> None:
        """Ask again for the notifications before this one that never came."""
        if seq <= self._next_seq or seq - self._next_seq > SEQUENCE_MAX // 2:
            return
        first, missed = self._next_seq, 0
        for number in range(max(first, seq - MISSING_MAX), seq):
            message = await self._republished(number)
            if message is not None:
                await self._take(message)
            else:
                missed += 1
        missed += max(0, seq - MISSING_MAX - first)
        self._next_seq = seq
        if missed:
            now_us = self._now_us()
            self._losses.missed(missed, self._story.status.last_data_us or now_us, now_us)
            self._story.set(missed=self._story.status.missed + missed)
            log.warning(
                "opcua %s: %d notifications from %d on are lost, the server no longer has them",
                self._config.name,
                missed,
                first,
            )

    async def _republished(self, seq: int) -> ua.NotificationMessage | None:
        assert self._subscription is not None
        try:
            return await self._link.republish(self._subscription.id, seq)
        except _SUBSCRIPTION_GONE:
            self._subscription = None
            raise

    async def _take(self, message: ua.NotificationMessage) -> None:
        """Write a notification down; only then it may be acknowledged."""
        arrival_us = self._now_us()
        readings, overflowed = self._readings(message, arrival_us)
        sifted = self._repeats.sift(readings)
        if sifted.readings:
            await self._append(sifted.readings)
        self._repeats.remember(sifted)
        self._next_seq = message.SequenceNumber + 1 if message.SequenceNumber < SEQUENCE_MAX else 1
        self._to_acknowledge.append(int(message.SequenceNumber))
        if overflowed:
            self._losses.overflowed(overflowed, self._story.status.last_data_us or arrival_us, arrival_us)
            log.warning("opcua %s: the server's queue overflowed for %d tags", self._config.name, len(overflowed))
        self._story.set(
            overflows=self._story.status.overflows + len(overflowed),
            readings=self._story.status.readings + len(sifted.readings),
            repeated=self._story.status.repeated + sifted.repeated,
            last_data_us=arrival_us,
        )

    def _readings(self, message: ua.NotificationMessage, arrival_us: int) -> tuple[list[Reading], list[str]]:
        """The readings of a notification, and the topics of those that follow others which the server dropped."""
        readings: list[Reading] = []
        overflowed: list[str] = []
        for data in message.NotificationData:
            if isinstance(data, ua.StatusChangeNotification):
                self._is_worn_out = True
                raise LinkLost(f"the server ended the subscription: {data.Status.name}")
            if not isinstance(data, ua.DataChangeNotification):
                continue
            for notified in data.MonitoredItems:
                item = self._reconciler.items.get(notified.ClientHandle)
                if item is None:
                    continue
                try:
                    sample = sample_of(notified.Value, item.tag.topic, arrival_us, self._origin)
                except Unreadable as error:
                    self._story.unreadable(item.tag.topic, error)
                    continue
                readings.append(sample.reading)
                if sample.is_after_overflow:
                    overflowed.append(item.tag.topic)
        return readings, overflowed

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._link.close()
        except _LINK_ERRORS as error:
            log.info("opcua %s: left without a good-bye (%s)", self._config.name, error)


def _reason(group: BaseExceptionGroup) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
