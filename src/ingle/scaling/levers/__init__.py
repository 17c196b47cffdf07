"""One file a way to spend compute; its name is the lever's. See scaling/lever.py."""
