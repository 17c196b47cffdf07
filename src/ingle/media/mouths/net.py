"""Opens a voice's net with onnxruntime."""

from pathlib import Path
from typing import Any


def open_session(path: Path, threads: int) -> Any:
    """Return a session that computes with so many threads, and whose threads sleep between two clauses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep 70 MB of a voice's largest clause; without it a clause takes a tenth longer
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
