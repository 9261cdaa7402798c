"""The tracker: the network, its crops, and what is remembered of a target between frames."""
