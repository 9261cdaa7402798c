"""The live page: a tracker's images and targets in a browser. Knows neither torch nor ROS."""
