"""Teachers small enough to travel with egapipe."""
