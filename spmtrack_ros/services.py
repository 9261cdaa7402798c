"""The requests of clients, by service or topic, translated for the session and answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from geometry_msgs.msg import Point, PointStamped
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future as RosFuture
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import BoundingBox2D, Detection2D, Detection2DArray

from spmtrack_core.session.init_request import Code, InitRequest, Reply, check_request
from spmtrack_core.session.session import Session
from spmtrack_ros.conversions import bbox_to_xywh, best_class, fill_answer, stamp_to_ns
from spmtrack_ros.parameters import TrackerParameters
from spmtrack_ros.srv import InitTarget, RemoveTarget, SetPrimary
from spmtrack_ros.throttle import Throttle

_NOT_ACTIVE = "the node is not active: activate it"


class Services:
    """The services of a node, and the targets that detectors send.

    ``parameters`` returns the present values and ``active`` whether images are received.
    """

    def __init__(
        self,
        node: Node,
        session: Session,
        parameters: Callable[[], TrackerParameters],
        active: Callable[[], bool],
    ) -> None:
        self._node, self._session = node, session
        self._parameters, self._active = parameters, active
        self._detector_request: Future[Reply] | None = None
        self._clicked: Future[Reply] | None = None
        self._skipped, self._refused = Throttle(10.0), Throttle(1.0)
        self._services: list[Any] = []
        self._unanswered = 0  # calls that wait for the worker
        self._closed = False
        # The default depth of 10 loses most calls of a burst.
        qos = QoSProfile(depth=1000)
        # Calls that wait for the worker are coroutines; images keep arriving meanwhile.
        concurrent = ReentrantCallbackGroup()
        for kind, name, callback, group in (
            (InitTarget, "init_target", self._on_init_target, concurrent),
            (RemoveTarget, "remove_target", self._on_remove_target, None),
            (SetPrimary, "set_primary", self._on_set_primary, None),
            (Trigger, "reset", self._on_reset, None),
            (SetBool, "enable", self._on_enable, None),
        ):
            options = {"qos_profile": qos, "callback_group": group}
            self._services.append(node.create_service(kind, f"~/{name}", callback, **options))

    def close(self) -> None:
        """Refuse the calls that were not taken yet, and destroy the services once all are
        answered.
        """
        self._closed = True
        for service in self._services:
            self._refuse_calls(service)
        while self._services and self.answered:
            self._node.destroy_service(self._services.pop())

    def _refuse_calls(self, service: Any) -> None:
        """Answer what the middleware still holds, which nobody would take any more."""
        while True:
            with service.handle:
                request, header = service.handle.service_take_request(service.srv_type.Request)
            if request is None:
                return
            response = service.srv_type.Response(message=_NOT_ACTIVE)
            if hasattr(response, "code"):
                response.code = Code.NOT_READY
            service.send_response(response, header)

    @property
    def answered(self) -> bool:
        """Whether no call waits for its answer."""
        return self._unanswered == 0

    def start_init_box(self) -> None:
        """Follow the target of the parameter `init_box`, if that is given."""
        parameters = self._parameters()
        if parameters.has_init_box:
            x, y, w, h = parameters.init_box
            request = InitRequest((x, y, w, h), label=parameters.label)
            self._session.init(request, float("inf")).add_done_callback(self._log_reply)

    async def _on_init_target(
        self, request: InitTarget.Request, response: InitTarget.Response
    ) -> InitTarget.Response:
        answer: RosFuture = RosFuture()
        executor = self._node.executor
        started = self._init(
            request.header,
            request.bbox,
            request.id,
            request.label,
            normalized=request.normalized,
            point=request.point,
        )
        # Set in another thread; the task wakes the executor up.
        started.add_done_callback(
            lambda done: executor.create_task(answer.set_result, done.result())
        )
        self._unanswered += 1
        reply = await answer
        self._unanswered -= 1
        if self._closed:
            executor.create_task(self.close)  # after rclpy has sent this answer
        return fill_answer(response, reply)

    def init_from_detection(self, message: Detection2D) -> None:
        """Start the target of a message on ~/init_detection."""
        label, _ = best_class(message)
        self._init_from(message.header, message, label, [message])

    def init_from_detections(self, message: Detection2DArray) -> None:
        """Start the best target of a message on ~/init_detections."""
        parameters = self._parameters()
        classes = [each for each in parameters.init_classes if each]
        scored = []
        for each in message.detections:
            label, score = best_class(each, classes)
            if score >= parameters.init_min_score and self._usable(each, label):
                scored.append((score, label, each))
        if not scored:
            return
        _, label, best = max(scored, key=lambda each: each[0])
        header = best.header if stamp_to_ns(best.header.stamp) else message.header
        self._init_from(header, best, label, [detection for _, _, detection in scored])

    def _usable(self, detection: Detection2D, label: str) -> bool:
        """Whether one of several detections can start a target; the log says why not."""
        try:
            box = bbox_to_xywh(detection.bbox)
            rejection = check_request(InitRequest(box, id=detection.id, label=label))
            problem = rejection.message if rejection else ""
        except ValueError as error:
            problem = str(error)
        if problem and self._skipped.is_due(problem):
            self._node.get_logger().warning(f"a detection of several is skipped: {problem}")
        return not problem

    def init_from_point(self, message: PointStamped) -> None:
        """Start the target about the point of a message on ~/init_point."""
        self._init_about(message.header, message.point)

    def init_from_click(self, message: Point) -> None:
        """Start the target about a click, which has no stamp: in the newest image."""
        self._init_about(Header(), message)

    def _init_about(self, header: Any, point: Any) -> None:
        bbox = BoundingBox2D()
        bbox.center.position.x, bbox.center.position.y = point.x, point.y
        request = self._init(header, bbox, "", "", point=True, instead_of=self._clicked)
        if not request.done():  # a rejected one has replaced nothing
            self._clicked = request

    def _init_from(
        self, header: Any, best: Detection2D, label: str, detections: Sequence[Detection2D]
    ) -> None:
        # Only the newest waits: a detector may send faster than a busy tracker can start.
        instead_of = self._detector_request
        request = self._init(
            header, best.bbox, best.id, label, detections=detections, instead_of=instead_of
        )
        if not request.done():  # a rejected one has replaced nothing
            self._detector_request = request

    def _init(
        self,
        header: Any,
        bbox: Any,
        target_id: str,
        label: str,
        normalized: bool = False,
        point: bool = False,
        detections: Sequence[Detection2D] = (),
        instead_of: Future[Reply] | None = None,
    ) -> Future[Reply]:
        """Start a target, unless a target in the place of ``detections`` is followed already."""
        parameters = self._parameters()
        started: Future[Reply] = Future()
        try:
            place = bbox.center.position
            box = (place.x, place.y, 0.0, 0.0) if point else bbox_to_xywh(bbox)
            known = tuple(bbox_to_xywh(each.bbox) for each in detections)
        except ValueError as error:
            started.set_result(Reply(Code.INVALID_BOX, str(error)))
        else:
            if not self._active():
                started.set_result(Reply(Code.NOT_READY, _NOT_ACTIVE))
                return started
            request = InitRequest(
                box,
                stamp_to_ns(header.stamp),
                target_id,
                label or parameters.label,
                normalized,
                header.frame_id,
                point,
                known,
            )
            started = self._session.init(request, parameters.init_timeout, instead_of)
        started.add_done_callback(self._log_reply)
        return started

    def _log_reply(self, done: Future[Reply]) -> None:
        reply = done.result()
        if reply.unchanged:
            return
        if reply.code is Code.OK:
            text = f"score {reply.score:.2f}, {reply.frames_caught_up} images caught up"
            text = f"{text}; {reply.message}" if reply.message else text
            self._node.get_logger().info(f"following '{reply.id}' ({text})")
        elif self._node.context.ok() and self._refused.is_due(reply.code.name):
            text = f"no target started ({reply.code.name}): {reply.message}"
            self._node.get_logger().warning(text)

    def _on_remove_target(
        self, request: RemoveTarget.Request, response: RemoveTarget.Response
    ) -> RemoveTarget.Response:
        return fill_answer(response, self._session.remove(request.id))

    def _on_set_primary(
        self, request: SetPrimary.Request, response: SetPrimary.Response
    ) -> SetPrimary.Response:
        return fill_answer(response, self._session.set_primary(request.id))

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._session.reset()
        response.success = True
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._session.enable(request.data)
        response.success = True
        return response
