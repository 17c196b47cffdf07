"""Advice on where to spend compute (the levers' part)."""
