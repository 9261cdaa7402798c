"""A node of the way from box to motion in another process, and its surroundings in this one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, ObjectHypothesisWithPose

from spmtrack_ros.conversions import fill_detection, fill_stamp
from test.spmtrack_ros.peer import output_of

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SMALL_TF = Path(__file__).with_name("small_tf")
FRAME = "camera_optical"
# Best effort, a node that discovers this one late would miss what is sent once.
INPUTS = ("camera_info", "detection", "bearing", "pose", "odom", "depth", "scan", "points")


def start(module, *parameters, tf=False, remap=()):
    """Start a node of the package, or a file; ``tf``: with the small tf2_ros of the tests."""
    program = [module] if module.endswith(".py") else ["-m", f"spmtrack_ros.{module}"]
    command = [sys.executable, *program, "--ros-args"]
    reliable = [f"qos_overrides./{each}.subscription.reliability:=reliable" for each in INPUTS]
    for each in (*reliable, *parameters):
        command += ["-p", each]
    for each in remap:
        command += ["-r", each]
    paths = [*([str(SMALL_TF)] if tf else []), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    log = tempfile.TemporaryFile("w+")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    process.stdout = log
    return process


class Surroundings:
    """Publishes what the node hears, and collects what it publishes."""

    def __init__(self, settling=0.3):
        """``settling`` is in s."""
        self.settling = settling
        self.context = Context()
        rclpy.init(context=self.context)
        self.node = Node("surroundings", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers = {}
        self.camera_info = self.node.create_publisher(CameraInfo, "camera_info", 10)

    def collect(self, kind, topic, qos=10):
        messages = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def publish(self, topic, message, qos=10):
        if topic not in self.publishers:
            self.publishers[topic] = self.node.create_publisher(type(message), topic, qos)
            self.until(self.publishers[topic].get_subscription_count)
        self.publishers[topic].publish(message)

    def until(self, condition, timeout=10.0):
        deadline = time.monotonic() + timeout
        while not condition() and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)
        return condition()

    def wait_for(self, process, topic):
        """Wait until the node publishes ``topic``."""

        def ready():
            assert process.poll() is None, output_of(process)
            return self.node.count_publishers(topic)

        assert self.until(ready, 60.0), "the node did not start"

    def calibrate(self, width=640, height=480, binning=0, frame=FRAME):
        """A camera of 640 x 480 px, of which ``camera_info`` may say something else."""
        info = CameraInfo(width=width, height=height, distortion_model="plumb_bob")
        info.binning_x = info.binning_y = binning
        info.k = [500.0, 0.0, 319.5, 0.0, 500.0, 239.5, 0.0, 0.0, 1.0]
        info.header.frame_id = frame
        assert self.until(self.camera_info.get_subscription_count)
        self.camera_info.publish(info)
        assert self.camera_info.wait_for_all_acked(Duration(seconds=10))
        self.settle()

    def settle(self):
        """Until the node has seen what has reached it."""
        self.until(lambda: False, self.settling)

    def call(self, kind, name, **fields):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(10)
        future = client.call_async(kind.Request(**fields))
        assert self.until(future.done), f"no answer of {name}"
        return future.result()

    def now(self):
        return self.node.get_clock().now().nanoseconds

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


def header_at(stamp_ns, frame=FRAME):
    header = Header(frame_id=frame)
    fill_stamp(header.stamp, stamp_ns)
    return header


def detection_at(stamp_ns, box, target_id="1"):
    header = header_at(stamp_ns)
    return fill_detection(
        Detection2D(), ObjectHypothesisWithPose(), header, box, target_id, "person", 0.9
    )
