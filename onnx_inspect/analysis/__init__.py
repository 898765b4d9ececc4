"""What can be read off models and traces: pure functions from results to frozen dataclasses. Nothing runs or draws."""
