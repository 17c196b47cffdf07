"""One file a maker; its name is the maker's. See core/maker.py."""
