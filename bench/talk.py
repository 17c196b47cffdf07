"""How long one waits for the first sound of an answer, typed and spoken, beside the same parts one after the other; and whether a clause is
lost, or a pause is heard, between clauses.

typed       a question as text to /v1/chat/completions with a spoken answer, in a stream: until the first samples
spoken      a question by voice over /v1/realtime, at the pace of speech: from its last sound until the first samples of the answer
in turn     the same parts and the same server one after the other: transcription, whole answer, speech of the whole answer; the pause of
            half a second that ends a turn is added, because a talk has to wait for it, too
lost        clauses of a text that comes at 300 tokens a second, which the voice did not speak
pauses      the longest silence between two clauses that a listener hears who plays everything as soon as it is there

The questions are spoken by the home's own voice; so this says nothing about how well people are heard (`ingle hear`, tests).
"""

import asyncio
import base64
import json
import time
from collections import defaultdict
from contextlib import closing
from typing import Any

from harness import Figure, finish, show
from servers import say, scratch_home, start_bench, start_ingle, stopping

EXAMPLES = """  python bench/talk.py
  python bench/talk.py --turns 50
"""
BARS = {"typed": 0.4, "spoken": 0.8}
SECOND, SILENCE_S = 48_000, 0.5
BRIEF = "Answer in one or two short English sentences."
SUBJECTS = ("a fox", "the sea", "bread", "a bicycle", "winter", "a candle", "the moon", "a violin", "honey", "a lighthouse")
QUESTIONS = [
    f"{ask} {subject}?" for subject in SUBJECTS for ask in ("What is", "What do people like about", "Can you tell me something about")
]
TEXT = " ".join(f"Sentence number {n} is about a fox, and about the {n + 2} hens that it met on its way." for n in range(25))
Figures = dict[str, list[float]]


def question_body(question: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": BRIEF}, {"role": "user", "content": question}]
    return {"messages": messages, "max_tokens": 60, "temperature": 0.3, "seed": 1}


def typed(url: str, question: str, figures: Figures) -> None:
    """One typed question: the first sound, and the pauses of the answer."""
    import httpx

    body = question_body(question) | {"stream": True, "modalities": ["text", "audio"], "audio": {"format": "pcm16"}}
    began, pieces = time.perf_counter(), list[tuple[float, float]]()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as response:
        for line in response.iter_lines():
            if '"data":' in line and line.startswith("data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"].get("audio", {})
                if "data" in delta:
                    pieces.append((time.perf_counter() - began, len(base64.b64decode(delta["data"])) / SECOND))
    if pieces:
        figures["typed"].append(pieces[0][0])
        figures["longest pause"].append(longest_pause(pieces))


def longest_pause(pieces: list[tuple[float, float]]) -> float:
    """The longest silence of a listener who plays each piece (when it came, how long it is) as soon as the one before is over."""
    longest, ends = 0.0, pieces[0][0]
    for came, seconds in pieces:
        longest = max(longest, came - ends)
        ends = max(ends, came) + seconds
    return longest


async def spoken(url: str, sound: bytes, figures: Figures) -> None:
    """One spoken question, at the pace of speech."""
    from websockets.asyncio.client import connect

    stream = bytes(SECOND // 2) + sound
    async with connect(url.replace("http", "ws") + "/v1/realtime", max_size=1 << 24) as socket:
        settings = {"type": "realtime", "instructions": BRIEF, "max_output_tokens": 60, "temperature": 0.3}
        await socket.send(json.dumps({"type": "session.update", "session": settings}))
        await asyncio.sleep(2.0)  # whoever has opened a talk takes a breath, and so do ears and voice
        over = time.perf_counter() + len(stream) / SECOND

        async def speak() -> None:
            data, piece = stream + bytes(4 * SECOND), SECOND // 20
            for number, i in enumerate(range(0, len(data), piece)):
                await asyncio.sleep(max(0.0, over - len(stream) / SECOND + number / 20 - time.perf_counter()))
                sent = {"type": "input_audio_buffer.append", "audio": base64.b64encode(data[i : i + piece]).decode()}
                await socket.send(json.dumps(sent))

        speaking = asyncio.create_task(speak())
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "response.output_audio.delta":
                figures["spoken"].append(time.perf_counter() - over)
                break
            if event["type"] in ("error", "response.done"):
                figures["spoken: nothing heard"].append(1.0)
                break
        speaking.cancel()


def in_turn(url: str, sound: bytes, figures: Figures) -> None:
    """The same question, one part after the other."""
    import httpx

    began = time.perf_counter()
    heard = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": ("a.wav", wav(sound))}, timeout=120).json()["text"]
    answer = httpx.post(f"{url}/v1/chat/completions", json=question_body(heard), timeout=120).json()["choices"][0]["message"]["content"]
    httpx.post(f"{url}/v1/audio/speech", json={"input": answer, "response_format": "flac"}, timeout=120).raise_for_status()
    figures["in turn"].append(time.perf_counter() - began + SILENCE_S)


def wav(samples: bytes) -> bytes:
    """These samples as a file."""
    from ingle.media.sound import wav_header

    return wav_header(SECOND // 2, len(samples)) + samples


def lost(home: Any) -> tuple[int, int]:
    """Clauses of TEXT, and how many of them the voice did not speak when it came at 300 tokens (of four letters) a second."""
    from ingle.media.speech import Speech, clauses

    def coming() -> Any:
        began = time.perf_counter()
        for i in range(0, len(TEXT), 4):
            time.sleep(max(0.0, began + i / 4 / 300 - time.perf_counter()))
            yield TEXT[i : i + 4]

    with closing(Speech(home)) as speech:
        said = [clause for clause, sound in speech.speak_clauses(coming()) if len(sound.samples)]
    whole = list(clauses(TEXT[i : i + 4] for i in range(0, len(TEXT), 4)))
    return len(whole), len(whole) - len(said) if said == whole[: len(said)] else len(whole)


def main() -> None:
    """Measures, and prints a table and one JSON line."""
    parser = start_bench(__doc__, EXAMPLES)
    parser.add_argument("--turns", type=int, default=20, help="questions, each asked in the three ways")
    options = parser.parse_args()
    import httpx

    figures: Figures = defaultdict(list)
    with scratch_home() as home, stopping() as started:
        server = started(start_ingle(home))
        questions = (QUESTIONS * (options.turns // len(QUESTIONS) + 1))[: options.turns]
        for number, question in enumerate(["Are you there?", *questions]):
            body = {"input": question, "response_format": "pcm"}
            sound = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=120).raise_for_status().content
            mine = figures if number else defaultdict[str, list[float]](list)  # the first one wakes everything up
            typed(server.url, question, mine)
            asyncio.run(spoken(server.url, sound, mine))
            in_turn(server.url, sound, mine)
            say(f"{number} of {len(questions)}: {question}")
        count, missing = lost(home)
    rows = [[name, Figure(tuple(values)), f"{percentile(values, 0.95):.2f}", BARS.get(name, "")] for name, values in figures.items()]
    lost_row = [f"clauses lost of {count} at 300 tokens/s", missing, "", 0]
    show("Until the first sound", [["seconds", "median (least – most)", "p95", "at most"], *rows, lost_row])
    table = {name: Figure(tuple(values)).table() | {"p95": percentile(values, 0.95)} for name, values in figures.items()}
    finish("talk", {"seconds": table, "clauses": count, "lost": missing})


def percentile(values: list[float], share: float) -> float:
    """The value below which this share lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


if __name__ == "__main__":
    main()
