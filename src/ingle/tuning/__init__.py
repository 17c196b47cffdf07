"""Fine-tune with few parameters: methods, one file each, and the run that makes a delta."""
