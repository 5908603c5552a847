"""The whole path: real processes and the real weights."""
