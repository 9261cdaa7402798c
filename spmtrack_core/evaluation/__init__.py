"""Metrics as the benchmarks define them, and runs of trackers over sequences."""
