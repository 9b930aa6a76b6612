"""What a training is, learns from and leaves behind."""
