"""Scores as the benchmarks define them, and the loop that earns them."""
