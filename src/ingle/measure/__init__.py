"""What a model is worth: bits per byte, tasks, and how far to trust the figures. Asks for functions, so it runs whatever model there is."""
