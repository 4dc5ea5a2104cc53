"""Finds the variables under a node of an OPC UA server, level by level and within bounds."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds

from appliance.connectors.opcua_link import Link, standard_node

log = logging.getLogger(__name__)

NODES_MAX = 200_000
LEVELS_MAX = 20
NODES_PER_BROWSE = 100
_REFERENCES_PER_NODE = 1_000
_HAS_PROPERTY = standard_node(ObjectIds.HasProperty)


@dataclass(frozen=True, slots=True)
class Found:
    """A variable of the server and where it hangs: browse names from the root of the search, joined by '/'."""

    node: ua.NodeId
    path: str

    def topic(self, template: str) -> str:
        """Its topic: `{id}` is the node's identifier, `{path}` the path, `{name}` the last level of it."""
        name = self.path.rsplit("/", 1)[-1]
        identifier = str(self.node.Identifier)
        return template.replace("{id}", identifier).replace("{path}", self.path).replace("{name}", name)


class _Place(NamedTuple):
    node: ua.NodeId
    path: str


async def variables_under(link: Link, root: ua.NodeId) -> list[Found]:
    """All variables below the root, at most `NODES_MAX` nodes and `LEVELS_MAX` levels; properties are left out."""
    per_call = await link.limit(ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse, NODES_PER_BROWSE)
    found: list[Found] = []
    seen = {root}
    level = [_Place(root, "")]
    for _ in range(LEVELS_MAX):
        below: list[_Place] = []
        for start in range(0, len(level), per_call):
            places = level[start : start + per_call]
            for place, references in zip(places, await _references(link, places), strict=True):
                _visit(place, references, seen, found, below)
        if not below:
            return found
        if len(seen) > NODES_MAX:
            log.warning("opcua: browsing stopped after %d nodes, %d variables found", len(seen), len(found))
            return found
        level = below
    log.warning("opcua: browsing stopped %d levels below %s, %d variables found", LEVELS_MAX, root, len(found))
    return found


def _visit(
    place: _Place,
    references: list[ua.ReferenceDescription],
    seen: set[ua.NodeId],
    found: list[Found],
    below: list[_Place],
) -> None:
    for reference in references:
        node = _local(reference.NodeId)
        if node is None or node in seen or reference.ReferenceTypeId == _HAS_PROPERTY:
            continue
        seen.add(node)
        name = str(reference.BrowseName.Name)
        path = f"{place.path}/{name}" if place.path else name
        below.append(_Place(node, path))
        if reference.NodeClass == ua.NodeClass.Variable:
            found.append(Found(node, path))


async def _references(link: Link, places: list[_Place]) -> list[list[ua.ReferenceDescription]]:
    params = ua.BrowseParameters(
        RequestedMaxReferencesPerNode=_REFERENCES_PER_NODE,
        NodesToBrowse=[
            ua.BrowseDescription(
                NodeId=place.node,
                ReferenceTypeId=standard_node(ObjectIds.HierarchicalReferences),
                NodeClassMask=ua.NodeClass.Object | ua.NodeClass.Variable,
                ResultMask=ua.BrowseResultMask.All,
            )
            for place in places
        ],
    )
    results = await link.browse(params)
    references = [list(result.References or ()) for result in results]
    if not places[0].path:
        results[0].StatusCode.check()  # the root itself is missing: nothing below it can be trusted
    open_points = {at: result.ContinuationPoint for at, result in enumerate(results) if result.ContinuationPoint}
    while open_points:
        following = ua.BrowseNextParameters(
            ReleaseContinuationPoints=False, ContinuationPoints=list(open_points.values())
        )
        answers = await link.browse_next(following)
        rest: dict[int, bytes] = {}
        for at, answer in zip(open_points, answers, strict=True):
            references[at].extend(answer.References or ())
            if answer.ContinuationPoint and len(references[at]) <= NODES_MAX:
                rest[at] = answer.ContinuationPoint
        open_points = rest
    return references


def _local(node: ua.NodeId) -> ua.NodeId | None:
    """The node as a plain NodeId; None when it lives on another server."""
    if getattr(node, "ServerIndex", 0):
        return None
    return ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
