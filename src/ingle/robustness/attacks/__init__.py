"""One file a family of attacks; its name is the family's. See robustness/attack.py."""
