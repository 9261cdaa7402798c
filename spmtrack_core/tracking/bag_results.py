"""The results of a replay as the messages that the node would have published."""

from __future__ import annotations

from spmtrack_core.data.bag_writer import BagWriter
from spmtrack_core.data.messages import fill_detection, fill_stamp, fill_track_state
from spmtrack_core.tracking.annotations import foxglove_annotations
from spmtrack_core.tracking.replay import ReplayedImage

TOPICS = {
    "/spmtrack/detection": "vision_msgs/msg/Detection2D",
    "/spmtrack/detections": "vision_msgs/msg/Detection2DArray",
    "/spmtrack/status": "spmtrack_ros/msg/TrackStateArray",
    "/spmtrack/annotations": "foxglove_msgs/msg/ImageAnnotations",
}
"""As the node names them, with their types."""


def write_results(bag: BagWriter, done: ReplayedImage, processing_time: float) -> None:
    """Write what is known of one image, recorded when the image was, with the image's header.

    The first target counts as the primary one.
    """
    stamp_ns, time_ns = done.frame.stamp_ns, done.frame.time_ns
    header = bag.new("std_msgs/msg/Header")
    fill_stamp(header.stamp, stamp_ns)
    header.frame_id = done.frame.frame_id
    detections = {
        target.id: fill_detection(
            bag.new("vision_msgs/msg/Detection2D"),
            bag.new("vision_msgs/msg/ObjectHypothesisWithPose"),
            header,
            target.box_xywh,
            target.id,
            target.label,
            target.score,
        )
        for target in done.targets
        if target.visible
    }
    primary = done.targets[0] if done.targets else None
    if primary is not None and primary.visible:
        bag.write("/spmtrack/detection", detections[primary.id], time_ns)
    array = bag.new("vision_msgs/msg/Detection2DArray")
    array.header, array.detections = header, list(detections.values())
    bag.write("/spmtrack/detections", array, time_ns)
    status = bag.new("spmtrack_ros/msg/TrackStateArray")
    status.header, status.enabled, status.message = header, True, done.error
    status.processing_time = processing_time if done.targets else 0.0
    for target in done.targets:
        state = bag.new("spmtrack_ros/msg/TrackState")
        fill_track_state(state, target, target is primary, stamp_ns / 1e9)
        # the message of a ROS 1 image has another kind of header
        state.header = header
        state.state, state.reason = int(target.state), int(target.reason)
        status.targets.append(state)
    bag.write("/spmtrack/status", status, time_ns)
    annotations = foxglove_annotations(
        lambda name: bag.new(f"foxglove_msgs/msg/{name}"), header.stamp, done.targets
    )
    bag.write("/spmtrack/annotations", annotations, time_ns)
