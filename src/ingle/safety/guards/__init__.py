"""One file a guard; its name is the guard's. See safety/guard.py."""
