"""Motion: vectors and how they are coded, prediction from references."""
