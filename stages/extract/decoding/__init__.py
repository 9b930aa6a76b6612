"""Images read and decoded ahead of the teacher."""
