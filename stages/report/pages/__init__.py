"""Pages, one file a kind of folder, and the document that they are written into."""
