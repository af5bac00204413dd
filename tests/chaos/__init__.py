"""Breaking the gateway on purpose and looking at what is left: `python -m tests.chaos [--short]`."""
