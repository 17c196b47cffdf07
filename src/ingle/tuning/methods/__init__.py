"""One file per method: `KIND`, `Settings` and `attach`. The folder is the registry; see `tuning.tuning_method`."""
