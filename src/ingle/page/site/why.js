// Why an answer says what it says: the causes that were proved by leaving them out, the prompt with them marked, and what is to be done.

import { ask } from "./api.js";
import { Component, html, icon } from "./parts.js";

const BUDGET_S = 60; // most seconds of an explanation
const CUT = "A guard changed what comes after this, so only the beginning is explained.";
const percent = (share) => `${100 * share}%`;
let count = 0;

export class Why extends Component {
  // state: "" = explained; working, failed
  state = { state: "working", note: "", shown: [], causes: [], part: null, at: 0, seconds: 0 };
  name = `why-${(count += 1)}`;

  componentDidMount() {
    this.explain(null, true);
  }

  getSnapshotBeforeUpdate() {
    return Boolean(document.activeElement?.closest(".words")) && this.base.contains(document.activeElement);
  }

  componentDidUpdate(before, { state }, onWord) {
    // What comes above the words moves them, and a button that moves loses the focus.
    const word = this.base.querySelectorAll(".words button")[this.state.at];
    if (onWord && document.activeElement === document.body) word?.focus({ preventScroll: true });
    if (before.news !== this.props.news && this.state.state === "") this.reshow();
    if (state !== this.state.state) {
      this.count();
      this.refocus();
    }
  }

  componentWillUnmount() {
    this.abort?.abort();
    clearInterval(this.timer);
  }

  // Shows the explanation that was kept, or makes one.
  async explain(part, kept) {
    const { turn, stream } = this.props;
    this.abort?.abort();
    const mine = (this.abort = new AbortController());
    this.setState({ state: "working", note: "", causes: [], shown: [], part, table: null });
    try {
      const asked = { completion_id: turn.completion_id, span: part, budget_s: BUDGET_S, shown: true };
      if (kept) {
        const found = await ask("POST", "/v1/explain/kept", asked);
        if (mine.signal.aborted) return;
        if (found.shown) return this.setState({ state: "", table: found });
      }
      for await (const table of stream("/v1/explain", { ...asked, stream: true }, mine.signal)) {
        if (table.object === "explanation") this.setState({ state: "", table });
        else this.setState({ causes: [...this.state.causes, table.shown] });
      }
    } catch (error) {
      if (!mine.signal.aborted) this.setState({ state: "failed", note: error.message });
    }
  }

  // What was taught has changed: its causes may be undone by now.
  async reshow() {
    const found = await ask("POST", "/v1/explain/kept", { completion_id: this.props.turn.completion_id, span: this.state.part, shown: true });
    if (found.shown && this.state.state === "") this.setState({ table: { ...found, ingle: this.state.table?.ingle } });
  }

  stop = () => {
    this.pressed = true;
    this.abort?.abort();
    this.setState({ state: "failed", note: "Stopped before it was explained." });
  };

  anew = () => {
    this.pressed = true;
    this.explain(this.state.part, false);
  };

  async teach(act, id) {
    try {
      await ask("POST", `/v1/learning/${act}`, { which: id });
      await this.reshow();
      this.props.changed();
    } catch (error) {
      this.setState({ note: error.message });
    }
  }

  count() {
    clearInterval(this.timer);
    this.setState({ seconds: 0 });
    if (this.state.state === "working") this.timer = setInterval(() => this.setState({ seconds: this.state.seconds + 1 }), 1000);
  }

  refocus() {
    // The button that was pressed is gone; here is what stands in its place.
    if (this.pressed) this.base.querySelector(".stop, .account button")?.focus({ preventScroll: true });
    this.pressed = false;
  }

  choose(words, i, event) {
    const other = event.shiftKey && this.begun !== undefined ? this.begun : i;
    if (!event.shiftKey) this.begun = i;
    this.explain([words[Math.min(i, other)].start, words[Math.max(i, other)].end], true);
  }

  whole = () => {
    this.base.querySelectorAll(".words button")[this.state.at]?.focus(); // this button goes
    this.explain(null, true);
  };

  walk = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const buttons = this.base.querySelectorAll(".words button");
    buttons[Math.max(0, Math.min(buttons.length - 1, this.state.at + step))].focus();
  };

  escape = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    if (this.state.state === "working") this.stop();
  };

  cause(cause) {
    const { shown } = this.state;
    const open = shown.includes(cause.key);
    const label = open ? "Hide the answer without it" : "Show the answer without it";
    const at = cause.says.indexOf(cause.text);
    // What is said of it, in three: before its words, its words, and after.
    const around = at < 0 ? ["", cause.text, cause.says && ": " + cause.says] : [cause.says.slice(0, at), cause.text, cause.says.slice(at + cause.text.length)];
    return html`
      <li key=${cause.key} data-kind=${cause.kind}>
        <div class="head">
          <b>${cause.name}</b>
          <span>${cause.strength ? cause.strength + " · " + cause.figure : "not needed"}${cause.chance && " · " + cause.chance}</span>
        </div>
        <p class="quote" dir="auto">${around[0]}${cause.strength ? html`<mark class=${cause.strength}>${around[1]}</mark>` : around[1]}${around[2]}</p>
        <div class="foot">
          ${cause.without !== null && cause.without !== undefined && html`
            <button class="quiet" type="button" aria-expanded=${open ? "true" : "false"} aria-label=${label + ": " + cause.text}
                    onClick=${() => this.setState({ shown: open ? shown.filter((one) => one !== cause.key) : [...shown, cause.key] })}>${label}</button>`}
          ${cause.act && html`
            <button class="quiet" type="button" data-do=${cause.act} aria-label=${(cause.act === "undo" ? "Undo: " : "Count again: ") + cause.text}
                    onClick=${() => this.teach(cause.act, cause.id)}>${icon(cause.act === "undo" ? "back" : "again")}${cause.act === "undo" ? "Undo" : "Count again"}</button>`}
          ${cause.since && html`<span role="status">${cause.since}</span>`}
        </div>
        ${open && html`<blockquote class="without" dir="auto"><small>${cause.differs ? "Without it:" : "Without it, the same:"}</small>${cause.without || "(nothing)"}</blockquote>`}
      </li>`;
  }

  sure(sure) {
    const [p, low, high] = sure.odds ?? [];
    return html`
      <h4>How sure it is</h4>
      ${sure.odds && html`<p class="odds" aria-hidden="true"><span style=${{ left: percent(low), right: percent(1 - high) }}></span><b style=${{ left: percent(p) }}></b></p>`}
      ${sure.says.map((said) => html`<p dir="auto">${said}</p>`)}`;
  }

  given(prompt, legend) {
    const piece = (one) => {
      const text = one.text.trimEnd();
      if (!one.strength) return html`<span class=${one.gap ? "gap" : ""}>${one.text}</span>`;
      return html`<mark class=${one.strength}>${text}<span class="heard"> (${one.strength} cause, ${one.figure}) </span></mark>${one.text.slice(text.length)}`;
    };
    const marked = prompt.some((block) => block.parts.some((one) => one.strength));
    return html`
      <h4 id=${this.name + "-given"}>What it was given</h4>
      <div class="given" role="group" tabindex="0" aria-labelledby=${this.name + "-given"}>
        ${prompt.map((block) => html`<div key=${block.message} class="block"><small>${block.who}</small><p dir="auto">${block.parts.map(piece)}</p></div>`)}
      </div>
      ${marked && html`<p class="legend">Shaded by how much less likely the answer is without it: ${legend.map(([name, says]) => html`<span key=${name}><mark class=${name}>${name}</mark> (${says}) </span>`)}</p>`}`;
  }

  words(words, part) {
    const { at } = this.state;
    const inside = (word) => part !== null && word.start < part[1] && word.end > part[0];
    return html`
      <h4 id=${this.name + "-words"}>The answer, word by word</h4>
      <p class="hint">Choose a word to see what it alone rests on. Hold Shift to choose up to another one.</p>
      <p class="words" role="toolbar" aria-labelledby=${this.name + "-words"} dir="auto" onKeyDown=${this.walk}>${words.map((word, i) => html`<button key=${i} type="button"
        tabindex=${i === at ? 0 : -1} aria-pressed=${inside(word) ? "true" : "false"} onFocus=${() => this.setState({ at: i })} onClick=${(event) => this.choose(words, i, event)}>${word.text}</button>${word.space}`)}</p>
      ${part && html`<button class="quiet whole" type="button" onClick=${this.whole}>${icon("back")}The whole answer</button>`}`;
  }

  render({ turn }, { state, note, table, seconds, part }) {
    const working = state === "working";
    const told = table?.shown ?? { causes: [], says: [], prompt: [], words: [], legend: [], sure: null, chosen: "", line: "" };
    this.last = table?.shown ?? this.last;
    const causes = working ? this.state.causes : told.causes;
    const so = causes.length ? `${causes.length} ${causes.length > 1 ? "causes" : "cause"} so far. ` : "";
    const stage = `${so}It answers again, with one thing left out at a time …`;
    const words = (table ? told : this.last)?.words ?? [];
    const cut = !working && table && turn.text.trim() !== table.answer.trim();
    return html`
      <section class="why" role="region" aria-label="Why it said that" aria-busy=${working ? "true" : null} onKeyDown=${this.escape}>
        <h3>${told.chosen ? "Why it said “" + told.chosen + "”" : "Why it said that"}</h3>
        <p class="heard" role="status">${working ? stage : note ? "" : "Explained."}</p>
        ${working && html`<p class="going" aria-hidden="true"><span class="glow"></span><span>${stage}</span><span>${seconds} s</span></p>
          <button class="quiet stop" type="button" onClick=${this.stop}>${icon("stop")}Stop</button>`}
        ${note && html`<p class="trouble" role="alert">${note}</p>`}
        ${cut && html`<p class="note">${CUT}</p>`}
        ${causes.length > 0 && html`<ul class="causes" aria-label="Causes">${causes.map((cause) => this.cause(cause))}</ul>`}
        ${told.says.length > 0 && html`<div class="says">${told.says.map((said) => html`<p dir="auto">${said}</p>`)}</div>`}
        ${told.sure && !working && this.sure(told.sure)}
        ${!working && told.prompt.length > 0 && this.given(told.prompt, told.legend)}
        ${words.length > 0 && this.words(words, table ? told.part : part)}
        ${!working && html`
          <div class="account">
            ${told.line && html`<span>${table.ingle ? "" : "Explained before · "}${told.line}</span>`}
            <button class="quiet" type="button" onClick=${this.anew}>${icon("again")}${note ? "Try again" : "Explain anew"}</button>
          </div>`}
      </section>`;
  }
}
