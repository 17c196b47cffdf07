"""One file a card; its name, with hyphens, is what `--as` takes. See ethics/card.py."""
