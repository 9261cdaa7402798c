"""The list of targets. Free of ROS and of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from spmtrack_core.geometry.boxes import iou_xyxy, xywh_to_xyxy
from spmtrack_core.session.init_request import Code, InitRequest, Limits, Reply, check_request
from spmtrack_core.tracking.followed import Target


class TargetList:
    """The targets in the order given, one of them the primary. Not thread-safe."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._primary = ""
        self._ids_made = 0

    def __iter__(self) -> Iterator[Target]:
        return iter(list(self._targets.values()))

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, target_id: str) -> bool:
        return target_id in self._targets

    @property
    def primary(self) -> Target | None:
        """The target chosen by :meth:`set_primary`, otherwise the first one."""
        return self._targets.get(self._primary) or next(iter(self), None)

    def set_primary(self, target_id: str) -> Reply:
        """Choose the primary target; an empty id means the first one."""
        if target_id not in self and (target_id or not self._targets):
            return self.unknown(target_id)
        self._primary = target_id
        return Reply(Code.OK, id=target_id)

    def replaced_by(self, target_id: str) -> Target | None:
        """The target that a new one of this id replaces, None if it is added."""
        return self._targets.get(target_id) if target_id else self.primary

    def add(self, target: Target, replaced: Target | None = None) -> Target:
        """Add a target, in the place of ``replaced``; with a generated id if it has none."""
        if not target.id:
            target = replace(target, id=self._new_id())
        targets = list(self._targets.values())
        if replaced is None or replaced.id not in self:
            targets.append(target)
        else:
            targets[list(self._targets).index(replaced.id)] = target
            if self._primary == replaced.id:
                self._primary = target.id
        self._targets = {each.id: each for each in targets}
        return target

    def update(self, target: Target) -> None:
        """Set the new state of a target, unless that was removed or replaced meanwhile."""
        if self.latest(target):
            self._targets[target.id] = target

    def latest(self, target: Target | None) -> Target | None:
        """The present state of a target; None if it was removed or replaced."""
        now = self._targets.get(target.id) if target else None
        return now if now and target and now.handle is target.handle else None

    def remove(self, target_id: str = "") -> Reply:
        """Remove the target of this id; an empty id means all."""
        if not target_id:
            self._targets.clear()
        elif self._targets.pop(target_id, None) is None:
            return self.unknown(target_id)
        if self._primary not in self:
            self._primary = ""
        return Reply(Code.OK, id=target_id)

    def unknown(self, target_id: str) -> Reply:
        """The answer to a request for a target that is not in the list."""
        present = ", ".join(f"'{each}'" for each in self._targets) or "there is none"
        return Reply(Code.UNKNOWN_ID, f"no target has the id '{target_id}'; targets: {present}")

    def reject_reason(self, request: InitRequest, limits: Limits) -> Reply | None:
        """Why a request must be rejected, regardless of its image; None if it need not."""
        if rejection := check_request(request):
            return rejection
        # first: ids of detectors change, and a target that is followed takes no further place
        for target in self if request.unless_followed else ():
            boxes = xywh_to_xyxy([target.box_xywh, *request.unless_followed])
            if target.visible and iou_xyxy(boxes[:1], boxes[1:]).max() >= limits.init_overlap:
                return Reply(Code.OK, "followed already", target.id, unchanged=True)
        if self.replaced_by(request.id) is None and len(self) >= limits.max_targets:
            problem = f"{len(self)} targets are followed, max_targets is {limits.max_targets}"
            return Reply(Code.TOO_MANY_TARGETS, f"{problem}: remove one first")
        return None

    def _new_id(self) -> str:
        while True:
            self._ids_made += 1
            made = f"target-{self._ids_made}"
            if made not in self:  # a client may have given such an id
                return made
