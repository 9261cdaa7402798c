"""The tracker: the network, its crops, and the memory of each target between frames."""
