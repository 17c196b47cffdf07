"""From a kept transformer to a hybrid that looks back with few groups and remembers the rest: a delta. See docs/hybrid.md."""
