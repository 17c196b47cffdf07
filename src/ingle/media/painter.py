"""The painter's hand: 64 codes out of 512 become a picture of 64×64 pixels. NumPy only."""

GRID = 8
"""Codes a side."""
CODES = 512
"""Codes of the codebook."""
