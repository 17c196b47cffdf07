"""The registry of pruners: each file here is one (see compress/pruning.py)."""
