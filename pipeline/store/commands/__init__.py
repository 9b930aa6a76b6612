"""`egapipe store`: what can be done with stores, each a function and its command."""
