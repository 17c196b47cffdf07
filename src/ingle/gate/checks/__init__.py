"""The registry of checks: each file here is one (see gate/check.py)."""
