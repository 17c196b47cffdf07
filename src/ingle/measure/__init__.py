"""Measure a model: bits per byte, tasks, and how far to trust the figures. It takes functions, so it runs with any model."""
