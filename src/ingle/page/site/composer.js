// The message box. What was typed stays here until the server has stored it, and survives a reload. Pictures come by the button, by
// pasting and by dropping; they are made small here.

import { Component, composing, grow, html, icon } from "./parts.js";

const [MOST, SIDE, BYTES] = [4, 1024, 150_000]; // pictures of a message, pixels of a longer side, and bytes of each
const HOLD_MS = 300; // who presses the microphone for longer says one thing
const TEMPORARY = "ingle.temporary"; // set while this tab shows a temporary chat
const draftOf = (place) => (place === null ? null : `ingle.draft.${place}`);

// A picture as a data: URL of at most BYTES bytes, upright, on white.
async function small(file) {
  const whole = await createImageBitmap(file);
  for (let side = SIDE; ; side *= 0.75) {
    const scale = Math.min(1, side / Math.max(whole.width, whole.height));
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.max(1, Math.round(whole.width * scale)), height: Math.max(1, Math.round(whole.height * scale)),
    });
    const draw = canvas.getContext("2d");
    draw.fillStyle = "#fff";
    draw.fillRect(0, 0, canvas.width, canvas.height);
    draw.imageSmoothingQuality = "high";
    draw.drawImage(whole, 0, 0, canvas.width, canvas.height);
    for (const [type, quality] of [["image/png"], ["image/jpeg", 0.92], ["image/jpeg", 0.8]]) {
      const url = canvas.toDataURL(type, quality);
      if (url.length * 0.75 <= BYTES) return url;
    }
  }
}

export class Composer extends Component {
  // hears: "" = the microphone is off; free = turn by turn; once = while the button is held
  state = { text: "", pictures: [], over: false, trouble: "", busy: false, hears: "", partial: "" };
  spoken = "";

  componentDidMount() {
    this.load();
    // The page was reloaded during a temporary chat.
    if (sessionStorage.getItem(TEMPORARY) && this.props.place === "") this.props.lost();
    else this.mark();
    if (matchMedia("(pointer: fine)").matches) this.focus();
    addEventListener("ingle-voice", this.voice);
  }

  componentDidUpdate(before) {
    const { place, begun, writing } = this.props;
    if (place !== before.place) this.moved(place, before.place);
    if (begun !== before.begun) this.mark();
    if (before.writing && !writing) this.say();
    if (this.state.text !== this.sized) grow(this.box);
    this.sized = this.state.text;
  }

  // place: of the draft; null = a temporary chat, whose draft is not stored
  moved(now, before) {
    this.mark();
    if ((now === null && before === "") || (now === "" && before === null)) {
      // Only whether it is kept has changed: what was typed stays, and is stored where it may be.
      if (now === null) sessionStorage.removeItem("ingle.draft.");
      return void (this.state.text ? this.store(this.state.text) : this.load());
    }
    if (!this.beginning || before !== "") return void this.load();
    // The conversation that began here: what was typed since goes on in it.
    this.beginning = false;
    sessionStorage.removeItem("ingle.draft.");
    this.store(this.state.text);
  }

  load() {
    if (this.state.busy) return; // this very text is beginning the conversation
    const draft = draftOf(this.props.place);
    this.setState({ text: (draft && sessionStorage.getItem(draft)) || "" });
  }

  store(text) {
    const draft = draftOf(this.props.place);
    if (draft && text) sessionStorage.setItem(draft, text);
    else if (draft) sessionStorage.removeItem(draft);
  }

  typed = ({ target }) => {
    this.store(target.value);
    this.setState({ text: target.value, trouble: "" });
  };

  mark() {
    if (this.props.place === null && this.props.begun) sessionStorage.setItem(TEMPORARY, "1");
    else if (this.props.place !== null) sessionStorage.removeItem(TEMPORARY);
  }

  key = (event) => {
    if (composing(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !matchMedia("(pointer: coarse)").matches) {
      event.preventDefault();
      this.send();
    } else if (event.key === "ArrowUp" && !this.state.text) {
      event.preventDefault();
      this.props.last();
    }
  };

  send = async () => {
    const { text, pictures, busy } = this.state;
    if (!(text.trim() || pictures.length) || this.props.writing || busy) return;
    if (!window.ingle.connected) return void this.setState({ trouble: "Ingle can't be reached right now. Your message stays here." });
    const from = this.props.place;
    this.setState({ busy: true });
    this.state.busy = true; // at once: a conversation that begins now moves this box before the next drawing
    this.beginning = from === "";
    const taken = await this.props.send({ text, pictures, aloud: this.answered });
    this.state.busy = false;
    if (taken) {
      if (from !== null) sessionStorage.removeItem(draftOf(from));
      const rest = this.state.text.startsWith(text) ? this.state.text.slice(text.length) : "";
      this.store(rest);
      this.setState({ busy: false, text: rest, pictures: [] });
    } else this.setState({ busy: false });
  };

  // A sample was asked: what is half typed stays, and goes on in its conversation.
  sampled() {
    this.beginning = this.props.place === "";
  }

  drop() {
    this.setState({ text: "", pictures: [] });
    this.state.text = "";
  }

  edit(text) {
    this.setState({ text });
  }

  focus() {
    this.box.focus();
  }

  // Talking: a click begins and ends it; who holds the button says one thing.
  press = () => {
    if (!this.state.hears && this.props.lacks.hear === undefined) this.held = setTimeout(() => ((this.held = null), this.listen(true)), HOLD_MS);
  };

  release = ({ type }) => {
    clearTimeout(this.held);
    if (this.state.hears !== "once") return;
    window.ingleVoice.commit();
    this.released = type === "pointerup"; // the click that follows is none
  };

  talk = () => {
    if (this.props.lacks.hear !== undefined) return void this.props.want("hear");
    if (this.released) return void (this.released = false);
    if (this.state.hears) window.ingleVoice.deaf();
    else this.listen(false);
  };

  async listen(once) {
    this.setState({ trouble: "", hears: once ? "once" : "free" });
    try {
      await window.ingleVoice.listen(once);
    } catch (error) {
      window.ingleVoice.deaf();
      this.setState({ trouble: error.name === "NotAllowedError" ? "This browser was not allowed to use the microphone." : error.message });
    }
  }

  voice = ({ detail: { type, text, wants } }) => {
    if (type === "deaf") this.setState({ hears: "", partial: "" });
    if (type === "began") this.setState({ partial: "…" });
    if (type === "partial") this.setState({ partial: text });
    if (type === "trouble") {
      if (wants) this.props.want(wants);
      else this.setState({ trouble: text });
      window.ingleVoice.deaf();
    }
    if (type !== "said") return;
    this.setState({ partial: "" });
    this.spoken = text ? `${this.spoken} ${text}`.trim() : this.spoken;
    this.say();
  };

  say() {
    // What was said waits until the answer before it has ended.
    if (!this.spoken || this.props.writing || this.state.busy) return;
    this.state.text = `${this.state.text} ${this.spoken}`.trim();
    [this.spoken, this.answered] = ["", true];
    this.send();
    this.answered = false;
  }

  choose = () => {
    if (this.props.lacks.see !== undefined) this.props.want("see");
    else this.file.click();
  };

  paste = (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (!files.length) return;
    event.preventDefault();
    this.add(files);
  };

  dropped = (event) => {
    event.preventDefault();
    this.setState({ over: false });
    this.add([...event.dataTransfer.files]);
  };

  async add(files) {
    this.setState({ trouble: "" });
    for (const file of files) {
      if (this.state.pictures.length >= MOST) return void this.setState({ trouble: `A message takes ${MOST} pictures at most.` });
      try {
        const picture = await small(file);
        this.setState(({ pictures }) => ({ pictures: [...pictures, picture] }));
      } catch {
        this.setState({ trouble: `“${file.name}” is no picture that this browser can read.` });
      }
    }
    this.focus();
  }

  offer({ text, state, done, total }) {
    const { bring, goOn, halt, leave } = this.props;
    return html`
      <div class="get" role="group" aria-label="What Ingle could get">
        <p role="status" aria-live="polite">${text}</p>
        ${state === "running" && html`<progress max=${total || 1} value=${total ? done : null} aria-label="How far it is"></progress>`}
        ${state === "offered" && html`<button class="main" type="button" onClick=${bring}>Get it</button>`}
        ${state === "came" && html`<button class="main" type="button" onClick=${goOn}>Use it here</button>`}
        ${state === "running"
          ? html`<button type="button" onClick=${halt}>Stop</button>`
          : html`<button type="button" onClick=${leave}>${state === "offered" ? "Not now" : "Close"}</button>`}
      </div>`;
  }

  render({ writing, note, lacks, offer, stop }, { text, pictures, over, trouble, busy, hears, partial }) {
    const hint = partial || (hears ? "Listening …" : "Ask anything …");
    const picked = ({ target }) => (this.add([...target.files]), (target.value = ""));
    return html`
      <div class="composer">
        <p class="note" role="status" aria-live="polite">${trouble || note}</p>
        ${offer && this.offer(offer)}
        ${pictures.length > 0 && html`
          <ul class="pictures" aria-label="Pictures to send">
            ${pictures.map((picture, at) => html`
              <li key=${picture}>
                <img src=${picture} alt=${`Picture ${at + 1}`} />
                <button type="button" aria-label=${`Remove picture ${at + 1}`} onClick=${() => this.setState({ pictures: pictures.filter((_, i) => i !== at) })}>${icon("close")}</button>
              </li>`)}
          </ul>`}
        <form class=${over ? "over" : ""} onSubmit=${(event) => (event.preventDefault(), this.send())} onPaste=${this.paste}
              onClick=${({ target, currentTarget }) => target === currentTarget && this.focus()}
              onDragOver=${(event) => (event.preventDefault(), this.setState({ over: true }))} onDragLeave=${() => this.setState({ over: false })} onDrop=${this.dropped}>
          <input ref=${(file) => (this.file = file)} type="file" accept="image/*" multiple hidden aria-label="Pictures" onChange=${picked} />
          <button class=${`quiet add${lacks.see ? " missing" : ""}`} type="button" aria-label="Add a picture" title=${lacks.see || "Add a picture"} onClick=${this.choose}>${icon("picture")}</button>
          <textarea ref=${(box) => (this.box = box)} value=${text} rows="1" aria-label="Your message" dir="auto" placeholder=${hint} enterkeyhint="enter"
                    autocomplete="off" onKeyDown=${this.key} onInput=${this.typed}></textarea>
          <button class=${`quiet mic${hears ? " on" : ""}${lacks.hear ? " missing" : ""}`} type="button" aria-pressed=${hears ? "true" : "false"} aria-label="Talk"
                  title=${lacks.hear || "Talk (hold to say one thing)"} onPointerDown=${this.press} onPointerUp=${this.release} onPointerLeave=${this.release}
                  onContextMenu=${(event) => event.preventDefault()} onClick=${this.talk}>${icon("microphone")}</button>
          ${writing
            ? html`<button key="stop" class="round" type="button" aria-label="Stop" title="Stop (Esc)" onClick=${stop}>${icon("stop")}</button>`
            : html`<button key="send" class="round" aria-label="Send" title="Send (Enter)" disabled=${!(text.trim() || pictures.length) || busy}>${icon("send")}</button>`}
        </form>
      </div>`;
  }
}
