"""A2A 1.0 (spec 1.0.1) on JSON-RPC and HTTP+JSON: pure translation between the wire and the model."""
