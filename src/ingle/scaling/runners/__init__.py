"""Where runs are made, one file a place. A runner does jobs (scaling/worker.py) and hands on their messages; a lost worker's job is done again."""
