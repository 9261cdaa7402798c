"""A robot with a camera in a hall with people, simulated by MuJoCo. Free of ROS.

The robot is a differential drive with two wheels and a caster under full rigid-body dynamics. The
target, a person, and a distractor of the same shape walk on paths that are given; a board passes
between robot and target.
"""

from __future__ import annotations

import ctypes.util
import os
from dataclasses import dataclass

import cv2
import numpy as np

os.environ.setdefault("MUJOCO_GL", "osmesa")  # renders without a display or a GPU
try:
    import mujoco
except (ImportError, AttributeError) as error:  # the latter from PyOpenGL, without its library
    mujoco, _PROBLEM = None, str(error)

SIZE_WH = (640, 480)
DEPTH_WH = (160, 120)  # a quarter of it, as many depth cameras have
FOV = np.radians(50.0)  # from the top to the bottom of the image
FOCAL = SIZE_WH[1] / 2 / np.tan(FOV / 2)  # px
CAMERA_HEIGHT, CAMERA_FORWARD, CAMERA_PITCH = 0.7, 0.12, 0.05  # m, m, rad
WHEEL_RADIUS, WHEEL_BASE = 0.1, 0.36
PERSON = (0.42, 0.24, 1.3)  # m: width, depth, height

_SCENE = """
<mujoco>
  <option timestep="0.005" integrator="implicitfast"/>
  <visual><global offwidth="{width}" offheight="{height}"/><map znear="0.01" zfar="60"/>
    <quality shadowsize="1024"/><headlight ambient=".45 .45 .45" diffuse=".35 .35 .35"/></visual>
  <asset>{textures}</asset>
  <worldbody>
    <light pos="0 0 9" dir=".2 .1 -1" directional="true" diffuse=".5 .5 .5"/>
    <geom type="plane" size="20 20 .1" material="floor" friction="1 .01 .001"/>
    {hall}
    <body name="robot" pos="0 0 {wheel_radius}">
      <freejoint/>
      <geom type="box" size=".22 .15 .06" pos="0 0 .05" mass="12" rgba=".2 .3 .6 1"/>
      <geom type="cylinder" size=".03 .25" pos=".05 0 .33" mass=".5" rgba=".3 .3 .3 1"/>
      <geom type="sphere" size=".04" pos="-.18 0 -.06" mass=".3" friction="0 0 0" priority="1"/>
      <geom type="sphere" size=".04" pos=".18 0 -.058" mass=".3" friction="0 0 0" priority="1"/>
      <camera name="eye" pos="{camera_forward} 0 {camera_above}" fovy="{fov}"
              xyaxes="0 -1 0 {up_x} 0 {up_z}"/>
      <body name="left" pos="0 .18 0"><joint name="left" axis="0 1 0" damping=".02"/>
        <geom type="cylinder" size="{wheel_radius} .02" zaxis="0 1 0" mass=".6"
              rgba=".1 .1 .1 1" friction="1.2 .01 .001"/></body>
      <body name="right" pos="0 -.18 0"><joint name="right" axis="0 1 0" damping=".02"/>
        <geom type="cylinder" size="{wheel_radius} .02" zaxis="0 1 0" mass=".6"
              rgba=".1 .1 .1 1" friction="1.2 .01 .001"/></body>
    </body>
    {people}
    <body name="board" mocap="true" pos="0 0 -9">
      <geom type="box" size=".03 .5 .9" pos="0 0 .9" material="board" {ghost}/></body>
  </worldbody>
  <actuator>
    <velocity joint="left" kv="8" forcerange="-8 8"/>
    <velocity joint="right" kv="8" forcerange="-8 8"/>
  </actuator>
</mujoco>
"""
_GHOST = 'contype="0" conaffinity="0"'
_PERSON = """
    <body name="{name}" mocap="true" pos="0 0 -9">
      <geom type="box" size=".10 .16 .36" pos="0 0 .37" rgba="{legs}" {ghost}/>
      <geom type="box" size=".12 .21 .28" pos="0 0 .99" material="{name}" {ghost}/>
      <geom type="sphere" size=".12" pos="0 0 1.33" rgba=".85 .65 .5 1" {ghost}/>
    </body>"""


def why_not() -> str:
    """What is missing for the simulation, and the cure; empty if nothing is."""
    renderer = os.environ["MUJOCO_GL"]
    library, package = {"osmesa": ("OSMesa", "libosmesa6"), "egl": ("EGL", "libegl1")}.get(
        renderer, ("", "")
    )
    if library and not ctypes.util.find_library(library):
        return f"lib{library} is absent: apt install {package}"
    if mujoco is None:
        return f"MuJoCo is absent ({_PROBLEM}): pip install 'spmtrack_ros[sim]'"
    return ""


@dataclass(frozen=True)
class Truth:
    """What the simulation knows at one moment."""

    distance: float
    """m between the axle of the robot and the axis of the target, along the ground."""
    heading: float
    """rad from straight ahead to the target, to the left."""
    box_xywh: tuple[float, float, float, float]
    """The target in the image, px, whatever stands in front of it."""
    in_view: bool
    """Whether the middle of that box is in the image."""


class World:
    """One run of the simulation."""

    def __init__(self, start: tuple[float, float, float] = (0.0, 0.0, 0.0), seed: int = 0) -> None:
        """``start`` is the place of the robot: x, y in m and yaw in rad."""
        random = np.random.default_rng(seed)
        textures, files = _textures(random)
        width, height = SIZE_WH
        scene = _SCENE.format(
            width=width,
            height=height,
            textures=textures,
            hall=_hall(random),
            wheel_radius=WHEEL_RADIUS,
            camera_forward=CAMERA_FORWARD,
            camera_above=CAMERA_HEIGHT - WHEEL_RADIUS,
            fov=np.degrees(FOV),
            up_x=np.sin(CAMERA_PITCH),
            up_z=np.cos(CAMERA_PITCH),
            people=_PERSON.format(name="target", legs=".15 .15 .3 1", ghost=_GHOST)
            + _PERSON.format(name="distractor", legs=".3 .2 .1 1", ghost=_GHOST),
            ghost=_GHOST,
        )
        self._model = mujoco.MjModel.from_xml_string(scene, files)
        self._data = mujoco.MjData(self._model)
        x, y, yaw = start
        self._data.qpos[:7] = x, y, WHEEL_RADIUS, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
        mujoco.mj_forward(self._model, self._data)
        self._renderer = mujoco.Renderer(self._model, height, width)
        self._depth = mujoco.Renderer(self._model, DEPTH_WH[1], DEPTH_WH[0])
        self._depth.enable_depth_rendering()
        self._wheels = [self._model.joint(name).qposadr[0] for name in ("left", "right")]
        self._odometry = np.array(start)
        self.target = (0.0, 0.0, 0.0)
        """x, y in m and yaw in rad"""

    def close(self) -> None:
        """Free the renderers."""
        self._renderer.close()
        self._depth.close()

    @property
    def robot(self) -> np.ndarray:
        """x, y in m and yaw in rad of the axle."""
        x, y, _, w, i, j, k = self._data.qpos[:7]
        return np.array((x, y, np.arctan2(2 * (w * k + i * j), 1 - 2 * (j * j + k * k))))

    def odometry(self) -> np.ndarray:
        """x, y in m and yaw in rad as the robot itself measures them, from its first step on: the
        way by the turns of the wheels, the direction by a gyroscope.
        """
        return self._odometry.copy()

    def move(self, name: str, x: float, y: float, yaw: float) -> None:
        """Put a person or the board to a place."""
        index = self._model.body(name).mocapid[0]
        self._data.mocap_pos[index] = x, y, 0.0
        self._data.mocap_quat[index] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
        if name == "target":
            self.target = (x, y, yaw)

    def hide(self, name: str) -> None:
        """Take a person or the board away, below the floor."""
        self._data.mocap_pos[self._model.body(name).mocapid[0]] = 0.0, 0.0, -9.0

    def step(self, seconds: float, forward: float, turn: float) -> None:
        """Let time pass while the motors are told these velocities, in m/s and rad/s."""
        aside = turn * WHEEL_BASE / 2
        self._data.ctrl[:] = (forward - aside) / WHEEL_RADIUS, (forward + aside) / WHEEL_RADIUS
        for _ in range(round(seconds / self._model.opt.timestep)):
            before = self._data.qpos[self._wheels].mean()
            mujoco.mj_step(self._model, self._data)
            way = WHEEL_RADIUS * (self._data.qpos[self._wheels].mean() - before)
            yaw = self.robot[2]
            self._odometry[:2] += way * np.cos(yaw), way * np.sin(yaw)
            self._odometry[2] = yaw

    def image(self) -> np.ndarray:
        """What the camera sees, RGB uint8 (H, W, 3)."""
        return self._render(self._renderer)

    def depth(self) -> np.ndarray:
        """Depth in m, float32, of the same camera with fewer pixels."""
        return self._render(self._depth)

    def truth(self) -> Truth:
        """Where the target is."""
        x, y, yaw = self.robot
        tx, ty, turned = self.target
        ahead = np.array((np.cos(yaw), np.sin(yaw), 0.0))
        left = np.array((-np.sin(yaw), np.cos(yaw), 0.0))
        offset = np.array((tx - x, ty - y, 0.0))
        width, depth, height = PERSON
        c, s = np.cos(turned), np.sin(turned)
        corners = np.array(
            [
                (c * i * depth / 2 - s * j * width / 2, s * i * depth / 2 + c * j * width / 2, z)
                for i in (-1, 1)
                for j in (-1, 1)
                for z in (0.0, height + 0.15)
            ]
        )
        eye = CAMERA_FORWARD * ahead + (0.0, 0.0, CAMERA_HEIGHT)
        points = corners + offset - eye
        forward = points @ ahead * np.cos(CAMERA_PITCH) - points[:, 2] * np.sin(CAMERA_PITCH)
        down = -points[:, 2] * np.cos(CAMERA_PITCH) - points @ ahead * np.sin(CAMERA_PITCH)
        forward = np.maximum(forward, 0.05)
        pixels_x = SIZE_WH[0] / 2 - FOCAL * (points @ left) / forward
        pixels_y = SIZE_WH[1] / 2 + FOCAL * down / forward
        low = np.array((pixels_x.min(), pixels_y.min()))
        high = np.array((pixels_x.max(), pixels_y.max()))
        middle = (low + high) / 2
        in_view = bool(offset @ ahead > 0 and (middle > 0).all() and (middle < SIZE_WH).all())
        heading = float(np.arctan2(offset @ left, offset @ ahead))
        box = (float(low[0]), float(low[1]), *(high - low).tolist())
        return Truth(float(np.hypot(*offset[:2])), heading, box, in_view)

    def _render(self, renderer: mujoco.Renderer) -> np.ndarray:
        mujoco.mj_kinematics(self._model, self._data)  # people have been moved since the last step
        mujoco.mj_camlight(self._model, self._data)
        renderer.update_scene(self._data, "eye")
        renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False  # takes twice the time
        return renderer.render()


def _textures(random: np.random.Generator) -> tuple[str, dict[str, bytes]]:
    """The XML of the textures, and their files."""

    def png(image: np.ndarray) -> bytes:
        return cv2.imencode(".png", image[..., ::-1])[1].tobytes()

    def cloth(colors: list[tuple[int, int, int]], cells: tuple[int, int]) -> np.ndarray:
        choice = random.integers(0, len(colors), cells)
        image = np.array(colors, np.uint8)[choice]
        return cv2.resize(image, (256, 256), interpolation=cv2.INTER_NEAREST)

    noise = random.normal(0, 18, (64, 64, 1)).repeat(3, axis=2)
    floor = np.clip(150 + cv2.resize(noise, (512, 512)), 0, 255).astype(np.uint8)
    floor[::128] = floor[:, ::128] = 95
    images = {
        "floor": floor,
        "target": cloth([(200, 40, 40), (240, 220, 60), (250, 250, 250)], (6, 4)),
        "distractor": cloth([(40, 90, 200), (40, 160, 90), (30, 30, 60)], (4, 6)),
        "board": cloth([(110, 90, 70), (130, 105, 80), (95, 80, 65)], (12, 3)),
    }
    for index in range(6):
        colors = [tuple(random.integers(60, 220, 3).tolist()) for _ in range(4)]
        images[f"wall{index}"] = cloth(colors, (5, 9))
    text, files = "", {}
    for name, image in images.items():
        kind = "2d" if name == "floor" else "cube"
        text += f'<texture name="{name}" type="{kind}" file="{name}.png"/>'
        repeat = 'texrepeat="12 12"' if name == "floor" else ""
        text += f'<material name="{name}" texture="{name}" {repeat} specular="0"/>'
        files[f"{name}.png"] = png(image)
    return text, files


def _hall(random: np.random.Generator) -> str:
    """Walls and some pillars and boxes along them."""
    text = ""
    for index, (x, y, length, depth) in enumerate(
        ((9, 0, 0.1, 9), (-9, 0, 0.1, 9), (0, 9, 9, 0.1), (0, -9, 9, 0.1))
    ):
        size = f"{length} {depth} 1.5"
        text += f'<geom type="box" size="{size}" pos="{x} {y} 1.5" material="wall{index}"/>'
    for index in range(14):
        angle = 2 * np.pi * index / 14 + random.uniform(-0.1, 0.1)
        away, height = random.uniform(7.6, 8.4), random.uniform(0.4, 1.2)
        x, y = away * np.cos(angle), away * np.sin(angle)
        color = " ".join(f"{each:.2f}" for each in random.uniform(0.2, 0.8, 3))
        text += (
            f'<geom type="box" size=".25 .3 {height:.2f}" pos="{x:.2f} {y:.2f} {height:.2f}" '
            f'rgba="{color} 1"/>'
        )
    return text
