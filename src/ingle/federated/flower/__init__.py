"""Carry letters by Flower: a SuperLink for the coordinator, and a node for each home. Both are processes of their own."""
