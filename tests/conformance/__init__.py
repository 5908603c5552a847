"""What a Cortex AsyncAPI must do, for any base URL: see docs/conformance.md."""
