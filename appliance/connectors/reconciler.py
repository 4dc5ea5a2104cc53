"""Brings the monitored items of a subscription in line with the tags we want, again and again."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from appliance.connectors.opcua_link import Link

log = logging.getLogger(__name__)

ITEMS_PER_CALL = 500
_NAMED_MAX = 5
_NO_SUCH_FILTER = (
    StatusCodes.BadMonitoredItemFilterUnsupported,
    StatusCodes.BadFilterNotAllowed,
    StatusCodes.BadMonitoredItemFilterInvalid,
)


@dataclass(frozen=True, slots=True)
class Tag:
    """A variable we want, and the topic of its readings."""

    node: ua.NodeId
    topic: str


@dataclass(slots=True)
class Item:
    """A wanted tag and how it stands with the server."""

    tag: Tag
    is_monitored: bool = False
    filtered: bool = True
    """Asks for every sample with a new source time; given up where the server knows no such filter."""
    error: str = ""


@dataclass(slots=True)
class Reconciler:
    """Wanted tags against monitored items; one bad node never stops the others."""

    name: str
    sampling_interval_ms: int
    queue_size: int
    items: dict[int, Item] = field(default_factory=dict)
    """By client handle, which is what a notification names."""

    def want(self, tags: Sequence[Tag]) -> None:
        """Start over with these tags, none of them monitored yet."""
        self.items = {handle: Item(tag) for handle, tag in enumerate(tags, start=1)}

    @property
    def monitored(self) -> int:
        return sum(item.is_monitored for item in self.items.values())

    @property
    def bad(self) -> list[Item]:
        """The items that the server refused."""
        return [item for item in self.items.values() if item.error]

    @property
    def missing(self) -> list[Item]:
        """The items that are wanted and not monitored."""
        return [item for item in self.items.values() if not item.is_monitored]

    async def reconcile(self, link: Link, subscription: int) -> int:
        """Ask for every item that is missing; answers how many there are now that were not there before."""
        per_call = await link.limit(
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall, ITEMS_PER_CALL
        )
        before, errors = self.monitored, {handle: item.error for handle, item in self.items.items()}
        for _attempt in ("with the filter", "without it, where it was refused"):
            missing = [handle for handle, item in self.items.items() if not item.is_monitored]
            for start in range(0, len(missing), per_call):
                await self._create(link, subscription, missing[start : start + per_call])
            if not any(item.error == _FILTER_REFUSED for item in self.items.values()):
                break
        self._tell(errors)
        return self.monitored - before

    async def _create(self, link: Link, subscription: int, handles: list[int]) -> None:
        results = await link.create_items(subscription, [self._request(handle) for handle in handles])
        for handle, result in zip(handles, results, strict=True):
            item = self.items[handle]
            if result.StatusCode.is_good():
                item.is_monitored, item.error = True, ""
            elif item.filtered and result.StatusCode.value in _NO_SUCH_FILTER:
                item.filtered, item.error = False, _FILTER_REFUSED
            else:
                item.error = result.StatusCode.name

    def _request(self, handle: int) -> ua.MonitoredItemCreateRequest:
        item = self.items[handle]
        every_sample = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=item.tag.node, AttributeId=AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=handle,
                SamplingInterval=float(self.sampling_interval_ms),
                Filter=every_sample if item.filtered else None,
                QueueSize=self.queue_size,
                DiscardOldest=True,
            ),
        )

    def _tell(self, errors: dict[int, str]) -> None:
        fresh = [item for handle, item in self.items.items() if item.error and item.error != errors[handle]]
        for item in fresh[:_NAMED_MAX]:
            log.warning(
                "opcua %s: the server refuses %s (%s): %s; it is tried again",
                self.name,
                item.tag.node.to_string(),
                item.tag.topic,
                item.error,
            )
        if len(fresh) > _NAMED_MAX:
            log.warning("opcua %s: and %d more tags are refused", self.name, len(fresh) - _NAMED_MAX)
        healed = [item for handle, item in self.items.items() if errors[handle] and item.is_monitored]
        if healed:
            log.info("opcua %s: %d tags that were refused are monitored now", self.name, len(healed))


_FILTER_REFUSED = "the filter is refused"
