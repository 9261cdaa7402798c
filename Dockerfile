# The node in ROS 2 Jazzy. From the folder of this file:
#   docker build -t spmtrack_ros .
#   docker run --rm --net host --ipc host spmtrack_ros \
#     ros2 launch spmtrack_ros tracker.launch.py image_topic:=/camera/image_raw
# --ipc host: Docker's own /dev/shm of 64 MB is too small for Fast DDS and large images. For a GPU,
# build with --build-arg TORCH_INDEX=https://pypi.org/simple and run with --gpus all.
FROM ros:jazzy-ros-base

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /ws

# The archives keep no older releases to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        python3-pip \
        python3-venv \
        ros-jazzy-vision-msgs \
    && rm -rf /var/lib/apt/lists/*

# PyTorch first: the layer stays valid when the sources change. NumPy below 2 is what the messages
# of Jazzy were compiled with.
ENV VIRTUAL_ENV=/opt/spmtrack PATH=/opt/spmtrack/bin:$PATH
RUN python3 -m venv --system-site-packages "$VIRTUAL_ENV" \
    && pip install --no-cache-dir --index-url "$TORCH_INDEX" 'torch>=2.6' 'torchvision>=0.21'

COPY . src/spmtrack_ros
RUN pip install --no-cache-dir -e 'src/spmtrack_ros[live]' 'numpy<2' \
    && . /opt/ros/jazzy/setup.sh \
    && colcon build --packages-select spmtrack_ros \
    && printf '#!/bin/bash\nset -e\nsource /ws/install/setup.bash\nexec "$@"\n' >/entrypoint \
    && chmod +x /entrypoint

ENTRYPOINT ["/entrypoint"]
CMD ["ros2", "launch", "spmtrack_ros", "tracker.launch.py"]
