"""Accounts of a model and of its answers: cards that only facts fill, and proofs that strangers can check."""
