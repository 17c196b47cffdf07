"""One file a method of finding sentences; its name is the method's. See explain/falls.py."""
