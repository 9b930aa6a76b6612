"""From the bytes of an image to pixels, and what may go wrong on the way."""
