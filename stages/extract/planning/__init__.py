"""What an extraction will make and take, known before an image is read."""
