"""The checks that a compliance profile can name. Each is a `Check` (model/compliance.py)."""
