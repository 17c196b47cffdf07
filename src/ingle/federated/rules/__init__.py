"""The registry of rules by which open updates are combined: each file here is one (see federated/open_round.py)."""
