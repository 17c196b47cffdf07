"""Models from scratch: a shape, a text and a budget in, a kept base out. (Sweeps of sizes, and the laws behind them, are to come.)"""
