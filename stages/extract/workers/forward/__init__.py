"""The teacher on a device: batches, memory and speed."""
