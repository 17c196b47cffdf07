// The settings of this conversation (empty = the home's default), of the guards, and of this browser.

import { Component, html, Panel } from "./parts.js";

const THEMES = { system: "System", light: "Light", dark: "Dark" };
const number = ({ target }) => (target.value === "" ? null : +target.value);

export function paint(name) {
  localStorage.setItem("ingle.theme", name);
  document.documentElement.dataset.theme = name;
}

export class Settings extends Component {
  // typed: by name, the value of a field that the server has not confirmed. News of other fields must not wipe it out.
  state = { typed: {}, theme: localStorage.getItem("ingle.theme") || "system", voice: localStorage.getItem("ingle.voice") || "auto", voices: [] };

  componentDidMount() {
    addEventListener("ingle-voice", ({ detail }) => detail.type === "hello" && this.setState({ voices: detail.voices }));
  }

  componentDidUpdate(before) {
    const { shown, section } = this.props;
    if (!shown || before.shown) return;
    this.setState({ typed: {} });
    window.ingleVoice.voices().catch(() => {}); // they come when they come
    if (section) this.safety.scrollIntoView();
  }

  value(name) {
    return this.state.typed[name] ?? this.props.chosen[name];
  }

  now(name) {
    return this.value(name) ?? this.props.defaults[name];
  }

  type(name, value) {
    this.setState({ typed: { ...this.state.typed, [name]: value } });
  }

  set(name, value) {
    return this.confirmed(name, value, this.props.change(name, value));
  }

  async confirmed(name, value, change) {
    this.type(name, value);
    await change;
    if (this.state.typed[name] !== value) return; // typed on meanwhile
    const { [name]: _, ...typed } = this.state.typed;
    this.setState({ typed });
  }

  text(name, label, rest) {
    return html`<label>${label}
      <input type="number" step="1" value=${this.value(name) ?? ""} onInput=${({ target }) => this.type(name, target.value)}
             onChange=${(event) => this.set(name, number(event))} ...${rest} /></label>`;
  }

  range(name, label, rest, hint) {
    return html`<label class="range"><span>${label} <b>${this.now(name)}</b></span>
      <input type="range" step="0.05" value=${this.now(name)} onInput=${({ target }) => this.type(name, +target.value)}
             onChange=${({ target }) => this.set(name, +target.value)} ...${rest} /><small>${hint}</small></label>`;
  }

  guards({ may, rows, note }) {
    return html`
      <section ref=${(box) => (this.safety = box)} class="guards" aria-labelledby="safety-title">
        <h3 id="safety-title">Safety</h3>
        <p class="wrong" role="alert">${note}</p>
        <small>${may ? "What you choose holds for everybody who asks here, from the next message on." : "Only whoever keeps this house can change this."}</small>
        ${rows.map((one) => html`
          <fieldset key=${one.guard} data-guard=${one.guard}>
            <legend>${one.title}</legend>
            <small>${one.about}</small>
            ${may && html`<div class="choice">${one.choices.map((way) => html`
              <label><input type="radio" name=${"guard-" + one.guard} value=${way.word} checked=${way.word === (this.state.typed[`guard ${one.guard}`] ?? one.word)}
                     onChange=${() => this.confirmed(`guard ${one.guard}`, way.word, this.props.guard(one.guard, way.word))} /><span>${way.label}</span></label>`)}</div>`}
            <small>${!may && html`<b>${one.label}. </b>`}${one.does}</small>
            ${one.said_of_others.map((other) => html`<small>${other}</small>`)}
          </fieldset>`)}
        ${may && html`<small>Words and topics of your own: policy.toml, under [guards.output] and [guards.topics].</small>`}
      </section>`;
  }

  render({ shown, close, note, chosen, defaults, models, more, showModels, reset, safety }, { theme, voice, voices }) {
    const offered = !chosen.model || models.includes(chosen.model) ? models : [chosen.model, ...models];
    const changed = Object.values(chosen).some((value) => value !== null && value !== "");
    return html`
      <${Panel} name="settings" title="Settings" shown=${shown} close=${close}>
        <p class="trouble" role="alert">${note}</p>
        <section>
          <h3>This conversation</h3>
          <label>Model
            <select value=${chosen.model || defaults.model} onChange=${({ target }) => this.set("model", target.value)}>
              ${offered.map((name) => html`<option key=${name} value=${name} selected=${name === (chosen.model || defaults.model)}>${name}</option>`)}
            </select>
          </label>
          ${more && html`<button type="button" class="quiet more-models" aria-haspopup="dialog" onClick=${showModels}>More models</button>`}
          <label>System prompt
            <textarea rows="4" maxlength="20000" value=${this.value("system") ?? ""} placeholder="Instructions that the model reads before everything else"
                      onInput=${({ target }) => this.type("system", target.value)} onChange=${({ target }) => this.set("system", target.value)}></textarea>
          </label>
          ${this.range("temperature", "Temperature", { min: 0, max: 2 }, "0 always picks the likeliest word. Higher values vary more.")}
          ${this.range("top_p", "Top p", { min: 0.05, max: 1 }, "Lower values keep only likely words.")}
          <div class="two">
            ${this.text("max_tokens", "Longest answer, in tokens", { min: 1, placeholder: defaults.max_tokens })}
            ${this.text("seed", "Seed", { min: 0, placeholder: defaults.seed ?? "new each time" })}
          </div>
          ${changed && html`<button type="button" class="quiet" onClick=${() => (this.setState({ typed: {} }), reset())}>Reset to defaults</button>`}
        </section>
        ${this.guards(safety)}
        <section>
          <h3>This browser</h3>
          ${voices.length > 0 && html`<label>Voice
            <select value=${voice} onChange=${({ target }) => (this.setState({ voice: target.value }), window.ingleVoice.choose(target.value))}>
              <option value="auto">The fastest</option>${voices.map((name) => html`<option value=${name}>${name}</option>`)}
            </select></label>`}
          <div class="choice" role="radiogroup" aria-label="Light or dark">
            ${Object.entries(THEMES).map(([name, label]) => html`
              <label><input type="radio" name="theme" value=${name} checked=${theme === name} onChange=${() => (paint(name), this.setState({ theme: name }))} /><span>${label}</span></label>`)}
          </div>
        </section>
      <//>`;
  }
}
