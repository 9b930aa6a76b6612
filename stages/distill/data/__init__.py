"""What a training learns from: sources, their order, images and batches."""
