"""How models are compared: two of them, or one at several times; what runs them, layer by layer, lives here."""
