// The sound of this tab, for the message box and the answers: one connection, one microphone, one voice.
// What happens is told by events of the window, "ingle-voice": hello, hears, began, partial, said, trouble, reading, quiet.

{
  const RATE = 24000;
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const tab = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  let socket = null, ready = null, player = null, ends = 0, microphone = null, more = false;
  const sources = new Set();

  const tell = (type, facts) => dispatchEvent(new CustomEvent("ingle-voice", { detail: { type, ...facts } }));

  function connect() {
    if (socket && socket.readyState <= WebSocket.OPEN) return ready;
    socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/v1/voice?tab=${tab}`);
    socket.binaryType = "arraybuffer";
    const mine = socket;
    ready = new Promise((good, bad) => {
      mine.onopen = good;
      mine.onclose = () => {
        bad(new Error("Ingle can't be reached right now."));
        if (mine !== socket) return;
        more = false;
        silence();
        close();
      };
    });
    ready.catch(() => {});
    mine.onmessage = ({ data }) => (typeof data === "string" ? take(JSON.parse(data)) : play(data));
    order({ do: "voice", name: localStorage.getItem("ingle.voice") || "auto" });
    return ready;
  }

  async function order(table) {
    await connect();
    socket.send(JSON.stringify(table));
  }

  function take({ type, ...facts }) {
    if (type === "began") silence();
    if (type === "reading") more = true;
    if (type === "read" || type === "trouble") more = false;
    if (type !== "read") tell(type, facts);
    settle();
  }

  function play(data) {
    if (!more) return; // the rest of what was hushed
    player ??= new AudioContext();
    player.resume();
    const samples = Float32Array.from(new Int16Array(data), (value) => value / 32768);
    const buffer = player.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = Object.assign(player.createBufferSource(), { buffer });
    source.connect(player.destination);
    ends = Math.max(ends, player.currentTime + 0.02);
    source.start(ends);
    ends += buffer.duration;
    voice.played += buffer.duration;
    sources.add(source);
    quiet = false;
    source.onended = () => (sources.delete(source), settle());
  }

  let quiet = true;
  function settle() {
    if (quiet !== (quiet = !more && !sources.size) && quiet) tell("quiet");
  }

  function silence() {
    for (const source of sources) source.onended = null, source.stop();
    sources.clear();
    ends = 0;
    settle();
  }

  function close() {
    microphone?.stream.getTracks().forEach((track) => track.stop());
    microphone?.context.close();
    microphone = null;
    tell("deaf");
  }

  const voice = (window.ingleVoice = {
    tab,
    played: 0, // seconds that were played, or are about to be
    get reading() {
      return more || sources.size > 0;
    },

    // Listen until `deaf`: turn by turn, or (`once`) until `commit`.
    async listen(once) {
      player ??= new AudioContext(); // within the click: later, browsers would keep it silent
      if (!navigator.mediaDevices) throw new Error("A browser gives its microphone only to pages of this machine, or with TLS.");
      const sound = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
      const stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
      const context = new AudioContext();
      microphone = { stream, context };
      await context.audioWorklet.addModule(`${here}microphone.js`);
      await order({ do: "listen", once });
      if (!microphone) return;
      const node = new AudioWorkletNode(context, "microphone");
      node.port.onmessage = ({ data }) => socket?.readyState === WebSocket.OPEN && socket.send(data);
      context.createMediaStreamSource(stream).connect(node);
    },

    commit() {
      order({ do: "commit" });
      close();
    },

    deaf() {
      if (microphone) order({ do: "deaf" });
      close();
    },

    async read(text) {
      player ??= new AudioContext();
      silence();
      [more, quiet] = [true, false];
      try {
        await order({ do: "read", text });
      } catch (error) {
        more = false;
        tell("trouble", { text: error.message });
        settle();
      }
    },

    hush() {
      if (socket?.readyState === WebSocket.OPEN) order({ do: "hush" });
      more = false;
      silence();
    },

    choose(name) {
      localStorage.setItem("ingle.voice", name);
      order({ do: "voice", name }).catch(() => {});
    },

    voices: connect, // they come as "hello"
  });
}
