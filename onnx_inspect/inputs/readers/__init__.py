"""One file per kind of input file; its name is its registration."""
