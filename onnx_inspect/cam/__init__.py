"""One class activation method per file; a file's name is its registration."""
