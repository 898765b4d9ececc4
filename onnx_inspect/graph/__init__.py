"""What a model is: reading, naming, shapes and surgery. Never runs anything."""
