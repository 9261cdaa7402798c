"""Scores as the benchmarks define them, and runs of trackers that are scored."""
