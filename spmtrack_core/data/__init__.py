"""Videos in and out: sources of frames, sequences with boxes, recordings. Knows no torch."""
