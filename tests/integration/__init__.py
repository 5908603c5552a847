"""Real servers and child processes, with stand-ins for the model."""
