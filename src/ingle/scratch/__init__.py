"""A model from nothing: from a shape, a text and a budget to a kept base."""
