"""Hybridize: turn a kept transformer into a hybrid, in which few groups see the whole text and the others a window and a memory."""
