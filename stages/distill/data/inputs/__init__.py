"""The student's inputs: images or arrays, cropped, coloured and mixed."""
