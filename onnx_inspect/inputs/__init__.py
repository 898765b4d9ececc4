"""Everything between what the user names on the command line and the arrays the engine is fed."""
