"""A live tracker: the newest image first, targets named in earlier images, coded answers.

Knows neither torch nor ROS. The ROS 2 node and ``spmtrack live`` feed it with images.
"""
