"""The network as other runtimes than PyTorch compute it, and what all of them have in common.

Knows no torch: a robot whose network OpenVINO or ONNX Runtime computes starts in a third of the
time and needs a third of the memory.
"""
