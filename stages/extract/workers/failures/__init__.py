"""What goes wrong in workers: whose fault it is, and what becomes of it."""
