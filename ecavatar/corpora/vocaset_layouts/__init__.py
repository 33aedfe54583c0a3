"""One module per layout that VOCASET is found in on disk, and what both of them give."""
