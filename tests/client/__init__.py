"""Tests of async_requests.py."""
