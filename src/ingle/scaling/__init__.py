"""Models from scratch, and what their losses say: from a shape, a text and a budget to a kept base; from a sweep to a law and to advice."""
