"""Parameter-efficient fine-tuning: methods, one file each, and the run that makes a delta of one."""
