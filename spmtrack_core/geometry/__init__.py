"""Boxes, crops and images: numpy only, the lowest floor."""
