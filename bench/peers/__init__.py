"""What users would deploy instead, configured as each one's documentation recommends."""
