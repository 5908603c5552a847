"""A sentiment service that runs as a Cortex AsyncAPI."""
