"""What students read from: a copy on their own machine, mapped into memory."""
