"""The gate: a candidate against the incumbent, under a policy. Every change to a model passes it."""
