"""What lies on this machine's disk: written whole, remembered, cached."""
