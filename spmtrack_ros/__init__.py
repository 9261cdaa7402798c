"""ROS 2 node of the SPMTrack tracker; the generated message types live in the same package."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
