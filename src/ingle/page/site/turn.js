// One turn: a question, an answer, an answer that is being written, or the message in place of a missing one.

import { copy, copyCode, fill } from "./markup.js";
import { Component, composing, focusNew, grow, html, icon } from "./parts.js";

const STAGES = { opening: "Loading the model …", reading: "Reading …", writing: "Writing …" };
// By name: label, symbol, and where it stands: "" = in the row under the turn.
const ACTS = {
  copy: ["Copy the answer", "copy", ""],
  edit: ["Edit and ask again", "pencil", ""],
  aloud: ["Read aloud", "aloud", ""],
  again: ["Answer again", "again", ""],
  good: ["Good answer", "good", ""],
  bad: ["Bad answer", "bad", ""],
  correct: ["Correct this answer", "pencil", ""],
  remember: ["Remember this", "remember", ""],
  why: ["Why it said that", "why", ""],
  details: ["Details of this answer", "info", ""],
  meant: ["Yes, that is what I mean", "", "nearly"],
  harmless: ["This was fine, don't flag it again", "", "seen"],
  harmful: ["This should have been stopped", "", "details"],
};
const GUARDS = "Teaches the guards of this home, for everybody who asks here";

let stepped = null; // which way one went from a version to the next, for a moment

export class Turn extends Component {
  state = { editing: false, draft: "", detailed: false, copied: false, aloud: false };
  rest = ""; // HTML of the block that is being written
  drawn = 0; // number of the last piece that is drawn

  componentDidMount() {
    const { beside, end } = this.props;
    if (end) this.begin(end);
    else this.whole();
    if (stepped && beside.length > 1 && Date.now() < stepped.until) this.refocus();
  }

  componentDidUpdate(before) {
    const { html: now, end } = this.props;
    if (end ? end !== before.end && end.number > this.drawn : now !== before.html || before.end) end ? this.begin(end) : this.whole();
  }

  // Draws a pending answer as far as it was.
  begin({ number, html: done, open }) {
    this.drawn = number;
    if (!this.done) return;
    fill(this.done, done);
    this.rest = open;
    fill(this.open, open);
  }

  // Draws one more piece of a pending answer. Returns whether it fits behind the last.
  grow({ number, strokes }) {
    if (number <= this.drawn) return true;
    if (number !== this.drawn + 1) return false;
    this.drawn = number;
    for (const [kind, keep, more] of strokes) {
      if (kind === "done") {
        const box = document.createElement("div");
        fill(box, more);
        this.done.append(...box.childNodes);
        this.rest = "";
        this.open.replaceChildren();
      } else if (kind === "open") {
        this.rest = this.rest.slice(0, keep) + more;
        fill(this.open, this.rest);
      } else {
        this.open.querySelector("code").append(more);
      }
    }
    return true;
  }

  whole() {
    if (!this.done) return;
    const box = document.createElement("div");
    fill(box, this.props.html ?? "");
    this.open.replaceChildren();
    if (box.innerHTML !== this.done.innerHTML) this.done.replaceChildren(...box.childNodes); // what was written here shows already
  }

  refocus() {
    // This is what stands in the place of a turn whose button was pressed.
    const [back, on] = this.base.querySelectorAll(".beside button");
    const button = stepped.by < 0 ? back : on;
    (button.disabled ? (button === back ? on : back) : button).focus({ preventScroll: true });
    stepped = null;
  }

  step(by) {
    stepped = { by, until: Date.now() + 5000 };
    this.props.step(this.props.beside[this.props.place + by]);
  }

  edit = () => {
    this.fresh = true;
    this.setState({ editing: true, draft: this.props.correction?.text ?? this.props.text });
  };

  save = async (event) => {
    event.preventDefault();
    if (!this.state.draft.trim()) return;
    // What was typed stays until it is stored.
    if (await this.props[this.props.role === "user" ? "edit" : "correct"](this.state.draft)) this.setState({ editing: false });
  };

  key = (event) => {
    if (composing(event)) return;
    if (event.key === "Escape") {
      event.preventDefault();
      this.setState({ editing: false });
    } else if (event.key === "Enter" && !event.shiftKey && !matchMedia("(pointer: coarse)").matches) this.save(event);
  };

  act(id) {
    const own = { copy: this.copy, aloud: this.aloud, edit: this.edit, correct: this.edit };
    if (id === "details") this.setState({ detailed: !this.state.detailed });
    else if (own[id]) own[id]();
    else this.props.act(id);
  }

  copy = () => {
    copy(this.props.text);
    this.setState({ copied: true });
    setTimeout(() => this.setState({ copied: false }), 1500);
  };

  aloud = () => {
    if (this.state.aloud) return void window.ingleVoice.hush();
    window.ingleVoice.read(this.props.correction?.text ?? this.props.text);
    this.setState({ aloud: true });
    const over = ({ detail }) => {
      if (!["quiet", "trouble"].includes(detail.type)) return;
      removeEventListener("ingle-voice", over);
      this.setState({ aloud: false });
    };
    addEventListener("ingle-voice", over);
  };

  button(id) {
    const [label, symbol] = id === "copy" && this.props.role === "user" ? ["Copy", "copy"] : ACTS[id];
    const made = this.props.acts[id];
    const shown = id === "copy" && this.state.copied ? "done" : id === "aloud" && this.state.aloud ? "stop" : symbol;
    const open = { details: this.state.detailed, why: this.props.explained }[id];
    return html`
      <button key=${id} class="quiet" type="button" data-act=${id} aria-label=${label} title=${made ? `${label} (press again to undo)` : label}
              aria-pressed=${made === null ? null : made ? "true" : "false"} aria-expanded=${open === undefined ? null : open ? "true" : "false"}
              onClick=${() => this.act(id)}>${icon(shown)}</button>`;
  }

  form() {
    const { role, text } = this.props;
    const { draft } = this.state;
    const begin = (box) => {
      if (!box || !this.fresh) return;
      this.fresh = false;
      focusNew(box, () => grow(box));
    };
    const typed = ({ target }) => (this.setState({ draft: target.value }), grow(target));
    return html`
      <form class="edit" onSubmit=${this.save}>
        <textarea ref=${begin} value=${draft} rows="1" dir="auto" aria-label=${role === "user" ? "Your question" : "The right answer"}
                  onKeyDown=${this.key} onInput=${typed}></textarea>
        <div class="buttons">
          ${role !== "user" && html`<small>Used from the next answer on.</small>`}
          <button type="button" onClick=${() => this.setState({ editing: false })}>Cancel</button>
          <button class="main" disabled=${!draft.trim() || (role !== "user" && draft.trim() === text.trim())}>${role === "user" ? "Ask again" : "Save"}</button>
        </div>
      </form>`;
  }

  corrected({ text, state, said, reasons }) {
    return html`
      <div class="correction" role="group" aria-label="Your correction">
        <p dir="auto">${text}</p>
        <button class="quiet" type="button" aria-haspopup="dialog" title="Open Learning" onClick=${this.props.learning}>
          ${state === "learning" && html`<span class="glow"></span>`}<span role="status">Corrected: ${said}</span>
        </button>
        ${reasons.map((reason) => html`<p class="reason">${reason}</p>`)}
      </div>`;
  }

  guarded() {
    const { seen, guards, acts, safety } = this.props;
    const sides = ["harmless", "harmful"].filter((id) => id in acts);
    const pressed = sides.filter((id) => acts[id]);
    const shown = pressed.length ? pressed : sides.filter((id) => id === "harmless");
    return html`
      <div class="seen" role="group" aria-label="What the guards saw">
        ${seen.map((said) => html`<p>${said}</p>`)}
        ${guards && html`<p role="status">${guards}</p>`}
        ${shown.map((id) => html`<button key=${id} type="button" data-act=${id} title=${GUARDS} onClick=${() => this.act(id)}>${acts[id] ? "Take it back" : ACTS[id][0]}</button>`)}
        <button type="button" class="way" aria-haspopup="dialog" title="What each guard does" onClick=${safety}>Settings → Safety</button>
      </div>`;
  }

  foot() {
    const { acts, beside, place, live, state, line } = this.props;
    return html`
      <footer>
        ${beside.length > 1 && html`
          <div class="beside" role="group" aria-label="Other versions">
            <button class="quiet" type="button" aria-label="Previous version" disabled=${!place} onClick=${() => this.step(-1)}>${icon("left")}</button>
            <span>${place + 1}/${beside.length}</span>
            <button class="quiet" type="button" aria-label="Next version" disabled=${place + 1 >= beside.length} onClick=${() => this.step(1)}>${icon("right")}</button>
          </div>`}
        ${Object.keys(ACTS).filter((id) => id in acts && !ACTS[id][2]).map((id) => this.button(id))}
        ${live ? html`<span class="line"><span class="glow"></span>${STAGES[state]}</span>` : line && html`<span class="line">${line}</span>`}
      </footer>`;
  }

  render({ role, text, pictures, live, state, note, cures, details, correction, seen, guards, nearly, acts, children }, { editing, detailed }) {
    const user = role === "user";
    const missed = acts.harmful === "" && "harmful";
    return html`
      <article class=${`turn ${role}${correction && !editing ? " set_right" : ""}`} aria-label=${user ? "You" : "Answer"} aria-busy=${live ? "true" : null}>
        ${editing ? this.form() : user && html`<div class="said" dir="auto">${pictures.map((one) => html`<img src=${one} alt="Picture that you sent" />`)}${text}</div>`}
        ${!user && pictures.map((one) => html`<img class="drawn" src=${one} alt="Picture that the model drew" />`)}
        ${!user && html`
          <div class="prose" style=${{ display: editing ? "none" : "" }} onClick=${copyCode}>
            <div ref=${(box) => (this.done = box ?? this.done)}></div><div ref=${(box) => (this.open = box ?? this.open)}></div>
          </div>`}
        ${correction && !editing && this.corrected(correction)}
        ${state === "failed" && html`
          <div class="trouble"><p>${note}</p>${cures.map((cure) => html`<button key=${cure.id} type="button" onClick=${() => this.props.cure(cure.id)}>${cure.label}</button>`)}</div>`}
        ${(seen.length > 0 || guards) && !editing && this.guarded()}
        ${nearly && !editing && html`
          <div class="seen" role="group" aria-label="What you taught">
            <p>You taught: “${nearly.text}”. Is that what you mean?</p>
            ${"meant" in acts && html`<button type="button" data-act="meant" onClick=${() => this.act("meant")}>${ACTS.meant[0]}</button>`}
          </div>`}
        ${!editing && this.foot()}
        ${detailed && html`
          <dl class="details">
            ${details.map(([name, value]) => html`<dt key=${name}>${name}</dt><dd key=${name + " is"}>${value}</dd>`)}
            ${missed && html`<dd class="missed"><button type="button" data-act=${missed} title=${GUARDS} onClick=${() => this.act(missed)}>${ACTS[missed][0]}</button></dd>`}
          </dl>`}
        ${children}
      </article>`;
  }
}
