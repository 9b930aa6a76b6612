"""Places that a configuration names: paths, URLs, object stores."""
