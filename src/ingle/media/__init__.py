"""Pictures and sounds: read, seen, heard, spoken, painted. Nothing here needs PyTorch, and nothing is opened before it is used."""
