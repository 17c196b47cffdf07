"""Ways to choose what of a model can go, one file each. See ingle/compress/pruner.py."""
