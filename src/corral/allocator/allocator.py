"""Who gets what: wants first in fair order, then coarse offers of the rest. A pure function of a view.

Deterministic: equal views give equal answers, down to the ports. Source: sections 4 of the design and 17 of the Mesos
contract.
"""

import sys
from collections.abc import Iterable

import msgspec

from corral.allocator.coarse import offer_rest
from corral.allocator.explain import explain
from corral.allocator.filters import FilterIndex
from corral.allocator.nodes import PORTS, Nodes
from corral.allocator.rescind import Recall
from corral.allocator.roles import FairQueue, Line
from corral.allocator.shapes import Group, Placement, Shape, ShapeKey, shape_key
from corral.allocator.share import Shares
from corral.allocator.view import Allocation, Grant, View, WantView
from corral.model.constraints import Operator
from corral.model.offer import Explanation, Refusal


def allocate(view: View, now: float) -> Allocation:
    """Grant what fits, name the coarse offers that must come back for wants, explain every want that still waits.

    Units: `now` float seconds UTC, compared with the filters' ends. Shapes: grants in the order they were decided;
    explanations in the order of `view.wants`.
    """
    filters = FilterIndex(view.filters, now)
    shares = Shares(view)
    wants = [each for each in view.wants if each.missing > 0]
    if not wants:
        return Allocation(grants=tuple(offer_rest(view, lambda row: view.agents[row].free, (), filters, shares)))
    nodes = Nodes(view.agents, _names(wants), view.seed)
    lines = _lines(view, nodes, filters, wants)
    queue = FairQueue(lines, shares)
    grants, waiting = _serve(nodes, queue, shares, view)
    more = queue.head() is not None
    explanations = _explain(nodes, waiting)
    recall = Recall(nodes, view.held if waiting else ())
    for line in waiting:
        rows = recall.serve(line) if view.held else []
        if rows:
            explanations[id(line)] = _awaiting_offers(explanations[id(line)], nodes, rows)
    if not more:
        grants.extend(offer_rest(view, nodes.rest, recall.kept, filters, shares))
    return Allocation(
        grants=tuple(grants),
        rescind=tuple(recall.offers),
        explanations=tuple(explanations[id(line)] for line in lines if id(line) in explanations),
        more=more,
    )


def _names(wants: Iterable[WantView]) -> set[str]:
    """The resources that any want asks."""
    found: set[str] = set()
    for each in wants:
        found.update(r.name for r in each.want.resources)
        if each.want.ports or each.want.fixed_ports:
            found.add(PORTS)
    return found


def _lines(view: View, nodes: Nodes, filters: FilterIndex, wants: Iterable[WantView]) -> list[Line]:
    shapes: dict[ShapeKey, Shape] = {}
    groups: dict[tuple[str, str, str], Group] = {}
    lines = []
    for each in wants:
        want = each.want
        key = shape_key(want)
        shape = shapes.get(key)
        if shape is None:
            shape = shapes[key] = Shape(nodes, key)
        group_key = (each.framework_id, want.group, "" if want.group else want.id)
        group = groups.get(group_key)
        if group is None:
            placed = view.siblings.get((each.framework_id, want.group), ()) if want.group else ()
            group = groups[group_key] = Group(nodes, placed)
        refused = filters.refused(each.framework_id, want.role) if filters else {}
        lines.append(Line(each, Placement(nodes, shape, group, want, each.missing, refused)))
    return lines


def _serve(nodes: Nodes, queue: FairQueue, shares: Shares, view: View) -> tuple[list[Grant], list[Line]]:
    """Place one instance after another; returns the grants, and the lines that nothing fits as they were found."""
    most = view.most_grants or sys.maxsize
    grants: list[Grant] = []
    waiting: dict[int, Line] = {}
    evening: dict[int, list[Line]] = {}
    while len(grants) < most and (line := queue.head()) is not None:
        placement = line.placement
        row = placement.pick()
        if row is None:
            queue.leave()
            waiting[id(line)] = line
            if any(c.operator is Operator.GROUP_BY for c in placement.counting):
                evening.setdefault(id(placement.group), []).append(line)
            continue
        want = line.view.want
        bundle = placement.take(row, view.seed)
        grants.append(
            Grant(
                framework_id=line.view.framework_id,
                role=want.role,
                agent_id=nodes.agents[row].id,
                resources=bundle,
                want_id=want.id,
            )
        )
        line.left -= 1
        shares.charge(want.role, line.view.framework_id, placement.shape.milli)
        queue.step()
        # Groups that had their part may open again when a sibling was placed elsewhere.
        for again in evening.pop(id(placement.group), ()):
            del waiting[id(again)]
            queue.enter(again)
    return grants, list(waiting.values())


def _explain(nodes: Nodes, lines: Iterable[Line]) -> dict[int, Explanation]:
    """Explanations by line. Lines that fail alike share one work."""
    found: dict[int, Explanation] = {}
    alike: dict[object, Explanation] = {}
    for line in lines:
        view, placement = line.view, line.placement
        key = (
            id(placement.shape),
            (view.framework_id, view.want.role) if placement.refused else None,
            (id(placement.group), placement.counting, placement.group_size) if placement.counting else None,
        )
        known = alike.get(key)
        if known is None:
            known = alike[key] = explain(nodes, placement, view, line.left)
        found[id(line)] = msgspec.structs.replace(
            known,
            want_id=view.want.id,
            framework_id=view.framework_id,
            role=view.want.role,
            waiting=line.left,
            since_at=view.since_at,
        )
    return found


def _awaiting_offers(explanation: Explanation, nodes: Nodes, rows: list[int]) -> Explanation:
    """Adds that offers held by others are on their way back."""
    host = nodes.agents[rows[0]].hostname
    refusal = Refusal(
        reason="offered",
        detail=f"fits on {host} once offers that others hold are back; they are being rescinded",
        agents=len(set(rows)),
        best=host,
    )
    return msgspec.structs.replace(explanation, refusals=(refusal, *explanation.refusals))
