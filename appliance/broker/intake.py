"""The Intake: decides for each publish whether it is recorded, passed on, or refused."""

import logging
from collections.abc import Callable
from typing import Protocol

from appliance.broker.ingest import Incoming, Publisher
from appliance.broker.limits import Counters
from appliance.broker.message import Message
from appliance.broker.namespace import Enforcement, Namespace
from appliance.broker.packets import Publish
from appliance.broker.payload import PayloadError, to_reading
from appliance.broker.seldom import Seldom
from appliance.broker.wire import Reason
from appliance.contract.reading import Reading

log = logging.getLogger(__name__)

ORIGIN = "mqtt:"


class Client(Publisher, Protocol):
    """A publisher with a name."""

    @property
    def client_id(self) -> str: ...


class Intake:
    """Topics must fit the namespace and payloads must be values, as far as the namespace is enforced."""

    def __init__(self, namespace: Namespace, counters: Counters, now_us: Callable[[], int]) -> None:
        self._namespace, self._counters, self._now_us = namespace, counters, now_us
        self._seldom = Seldom()

    def judged(self, client: Client, publish: Publish) -> Incoming:
        """The publish with the reading to record, if any, and the answer to give."""
        message = Message(
            publish.topic, publish.payload, publish.qos, publish.retain, publish.properties, client.client_id
        )
        if self._namespace.enforcement is Enforcement.OFF:
            self._counters.passed += 1
            return Incoming(client, publish.packet_id, message)
        if fault := self._namespace.fault(publish.topic):
            return self._unfit(client, publish, message, Reason.TOPIC_NAME_INVALID, fault)
        if publish.retain and not publish.payload:
            self._counters.passed += 1  # It clears what is retained; there is no value in it.
            return Incoming(client, publish.packet_id, message)
        try:
            reading = self._reading(client, publish)
        except PayloadError as error:
            return self._unfit(client, publish, message, Reason.PAYLOAD_FORMAT_INVALID, str(error))
        return Incoming(client, publish.packet_id, message, reading)

    def _reading(self, client: Client, publish: Publish) -> Reading:
        return to_reading(publish.topic, publish.payload, f"{ORIGIN}{client.client_id}", self._now_us())

    def _unfit(self, client: Client, publish: Publish, message: Message, reason: Reason, text: str) -> Incoming:
        if self._namespace.enforcement is Enforcement.REPORT:
            self._counters.passed += 1
            self._counters.reported += 1
            self._log("accepted but not recorded", client, publish, text)
            return Incoming(client, publish.packet_id, message)
        self._counters.refused += 1
        self._log("refused", client, publish, text)
        return Incoming(client, publish.packet_id, message, None, reason, text)

    def _log(self, what: str, client: Client, publish: Publish, text: str) -> None:
        left_out = self._seldom.due()
        if left_out is not None:
            fields = (what, publish.topic[:200], client.client_id, text, left_out)
            log.warning("broker: %s: %r from %s: %s (%d such lines left out)", *fields)
