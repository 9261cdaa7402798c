"""A node in another process, and a camera and client of it in this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from vision_msgs.msg import Detection2D, Detection2DArray

from spmtrack_ros.conversions import fill_bbox, fill_image, fill_stamp
from spmtrack_ros.msg import TrackStateArray
from spmtrack_ros.srv import InitTarget

BOX = (60.0, 50.0, 40.0, 30.0)
MS = 1_000_000
STARTUP = 90.0  # s; importing PyTorch takes long on a busy machine
RELIABLE = "image_reliability:=reliable"  # where each single image counts
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def picture(number, shape=(180, 240)):
    """Noise that is the same for the same number."""
    return np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)


def start_node(*parameters, weights, name="spmtrack", program=("-m", "spmtrack_ros.tracker_node")):
    arguments = ["--ros-args", "-r", f"__node:={name}", "-p", f"weights:={weights}", "-p"]
    command = [sys.executable, *program, *arguments, "device:=cpu"]
    for parameter in parameters:
        command += ["-p", parameter]
    return start_process(command)


def start_process(command):
    # One thread: the tests must not depend on how many processors there are.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tempfile.TemporaryFile("w+")  # not a pipe, which would be full one day
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    process.stdout = log
    return process


def output_of(process):
    process.stdout.seek(0)
    return process.stdout.read()


def stop_node(process, how=signal.SIGINT):
    """Exit code and what was printed."""
    if process.poll() is None:
        process.send_signal(how)
    try:
        return process.wait(20), output_of(process)
    except subprocess.TimeoutExpired:
        process.kill()
        return None, output_of(process)


@contextmanager
def connected(peer, process, how=signal.SIGINT, absent=("Traceback",), **waiting):
    """Once they are, the peer; the node must end well then, with none of ``absent`` printed."""
    try:
        peer.wait_for_node(process, **waiting)
        yield peer
    finally:
        peer.close()
        code, output = stop_node(process, how)
    assert code == 0 and not any(text in output for text in absent), output


class Peer:
    """A camera and a client of the node of the given name."""

    def __init__(self, name="spmtrack", image_type=Image, topic="image"):
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.name = name
        self.camera = self.node.create_publisher(image_type, topic, 10)
        self.detection = self.collect(Detection2D, "detection")
        self.detections = self.collect(Detection2DArray, "detections")
        self.status = self.collect(TrackStateArray, "status", LATCHED)
        self.clients = {}

    def collect(self, kind, name, qos=10):
        messages = []
        topic = name if name.startswith("/") else f"/{self.name}/{name}"
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def until(self, condition, timeout=10.0):
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)
        return condition()

    def wait_for_node(self, process, reset=True):
        def ready():
            assert process is None or process.poll() is None, output_of(process)
            return (
                self.camera.get_subscription_count()
                and self.node.count_publishers(f"/{self.name}/detections")
                and self.status
            )

        assert self.until(ready, STARTUP), "the node did not start"
        if reset:
            self.call(Trigger, "reset")  # when this is answered, both directions are connected

    def call(self, kind, name, timeout=10.0, **fields):
        if name not in self.clients:
            self.clients[name] = self.node.create_client(kind, f"/{self.name}/{name}")
            assert self.clients[name].wait_for_service(10)
        future = self.clients[name].call_async(kind.Request(**fields))
        assert self.until(future.done, timeout), f"no answer of {name}"
        return future.result()

    def send(self, image, milliseconds, wait=True, encoding=None):
        """Publish an image with this stamp; returns the heartbeat that it causes."""
        header = Header(frame_id="front_camera")
        fill_stamp(header.stamp, milliseconds * MS)
        message = fill_image(Image(), image, header)
        if encoding:
            message.encoding = encoding
        self.camera.publish(message)
        return self.heartbeat(header) if wait else None

    def heartbeat(self, header):
        def found():
            return [each for each in self.detections if each.header == header]

        assert self.until(found), f"no heartbeat for {header.stamp}"
        (only,) = found()
        return only

    def init(self, box=BOX, stamp_ms=0, theta=0.0, frame_id="", timeout=10.0, **fields):
        request = InitTarget.Request(**fields)
        request.header.frame_id = frame_id
        fill_bbox(request.bbox, box)
        request.bbox.center.theta = theta
        fill_stamp(request.header.stamp, stamp_ms * MS)
        values = {name: getattr(request, name) for name in request.get_fields_and_field_types()}
        return self.call(InitTarget, "init_target", timeout, **values)

    def start_over(self):
        """Leave the node enabled without a target, and its topics drained."""
        self.call(SetBool, "enable", data=True)
        self.call(Trigger, "reset")
        self.until(lambda: False, 0.1)
        for messages in (self.detection, self.detections, self.status):
            messages.clear()

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()
