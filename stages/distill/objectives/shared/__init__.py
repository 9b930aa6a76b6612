"""What several objectives compute with."""
