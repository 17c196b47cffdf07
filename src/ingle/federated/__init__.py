"""Learn together with other homes, while every home keeps its texts: sums of updates, in which no single one can be seen."""
