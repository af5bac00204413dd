"""Measures this gateway against what the machine can do and against a2a-sdk. See README.md."""
