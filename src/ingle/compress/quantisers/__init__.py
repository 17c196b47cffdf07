"""The registry of quantisers: each file here is one (see compress/quantiser.py)."""
