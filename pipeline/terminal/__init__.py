"""What commands read from and show to people."""
