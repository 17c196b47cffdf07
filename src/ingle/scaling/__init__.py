"""Models from scratch: from a shape, a text and a budget to a kept base. (Sweeps of sizes, and scaling laws, are to come.)"""
