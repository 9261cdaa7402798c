"""Training: samples of real and synthetic tracks, losses, and the loop over the steps."""
