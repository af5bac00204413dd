"""Servers without any governance: the denominators. What they cannot do, no gateway in Python can."""
