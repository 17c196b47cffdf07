"""One file a family of models. See model/family.py."""
