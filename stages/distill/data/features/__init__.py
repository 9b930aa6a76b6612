"""What is found once in the teacher's stored features: statistics, rotations, anchors."""
