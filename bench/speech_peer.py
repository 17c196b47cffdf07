"""faster-whisper in an environment of its own: `PYTHON bench/speech_peer.py FOLDER`. A path a line comes in, a JSON line goes out."""

import json
import os
import sys
import time

from faster_whisper import WhisperModel

model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=len(os.sched_getaffinity(0)))
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    segments, _ = model.transcribe(line.strip(), language="en", beam_size=5)
    text = " ".join(segment.text.strip() for segment in segments)
    print(json.dumps({"text": text, "seconds": time.perf_counter() - start}), flush=True)
