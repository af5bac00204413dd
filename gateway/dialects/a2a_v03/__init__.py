"""A2A 0.3 (spec 0.3.0) on JSON-RPC and HTTP+JSON: pure translation between its words and those of 1.0.

Every object is translated as a tree: 0.3's JSON to 1.0's ProtoJSON and back. Reading ends in the decoders of `a2a_v1`,
so that no rule is written twice; writing begins with what a model of ours wrote. Unknown fields stay where they are.
"""
