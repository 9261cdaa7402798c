"""Training: synthetic tracks, losses and the trainer."""
