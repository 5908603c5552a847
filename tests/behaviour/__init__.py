"""The behavioural suite, and tests of it."""
