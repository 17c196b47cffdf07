"""Where runs are made, one file a place.

A runner does jobs (scaling/sweep_worker.py) and hands on their messages; the job of a worker that was lost is done again.
"""
