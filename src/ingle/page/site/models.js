// The panel "Models": what can be pulled, what it needs, how fast it would be on this machine; the pull of one.

import { ask, get } from "./api.js";
import { Component, doing, html, Panel, size } from "./parts.js";

const PAUSE_MS = 1000;
const count = (number) => (number >= 1e9 ? `${(number / 1e9).toFixed(1)} billion` : `${Math.round(number / 1e6)} million`);
const speed = ({ tokens_per_s: some }) => (some < 10 ? some.toFixed(1) : Math.round(some));

export class Models extends Component {
  state = { data: [], measuring: false, note: "", lean: false };

  componentDidUpdate({ shown, pull }) {
    if (this.props.shown && !shown) this.begin();
    else if (this.props.shown && pull.state !== this.props.pull.state) this.read();
  }

  begin() {
    this.deed(() => ask("POST", "/v1/catalogue/measure", { soon: false }));
  }

  async read() {
    const { data, measuring, pull } = await get("/v1/catalogue");
    this.setState({ data, measuring });
    this.props.started(pull);
    clearTimeout(this.timer);
    if (measuring && this.props.shown) this.timer = setTimeout(() => this.read().catch(() => {}), PAUSE_MS);
  }

  async deed(act) {
    this.setState({ note: "" });
    try {
      await act();
      await this.read();
    } catch (error) {
      this.setState({ note: error.message });
    }
  }

  row(one) {
    const { current, pull, use } = this.props;
    const mine = pull.name === one.name;
    const start = () => ask("POST", "/v1/catalogue/pull", { name: one.name, lean: this.state.lean || null });
    return html`
      <li key=${one.name} data-model=${one.name} data-kept=${one.kept}>
        <h3>${one.title}</h3>
        <p>${count(one.parameters)} parameters · ${size(one.file_bytes)} · ${one.licence}</p>
        <p>About ${size(one.memory_bytes)} of memory${one.tokens_per_s && html`<span> · about ${speed(one)} tokens a second</span>`}</p>
        ${one.note && html`<p class="reason">${one.note}</p>`}
        ${!one.fits && html`<p class="reason">${one.why}.</p>`}
        ${mine && pull.state === "running"
          ? html`
            <progress max=${pull.total || 1} value=${pull.total ? pull.done : null} aria-label=${"Pulling " + one.title}></progress>
            <div class="foot"><span role="status">${doing(pull)}</span><button class="quiet" type="button" onClick=${() => this.deed(() => ask("DELETE", "/v1/catalogue/pull"))}>Stop</button></div>`
          : html`
            <div class="foot">
              ${mine && pull.note ? html`<span role="status">${pull.note}</span>` : html`<span></span>`}
              ${one.kept && one.kept === current
                ? html`<span class="here">In use</span>`
                : one.kept
                  ? html`<button class="quiet" type="button" aria-label=${"Use " + one.title} onClick=${() => use(one.kept)}>Use it here</button>`
                  : html`<button class="quiet" type="button" aria-label=${"Pull " + one.title} disabled=${pull.state === "running" || !one.fits} onClick=${() => this.deed(start)}>Pull</button>`}
            </div>`}
      </li>`;
  }

  render({ shown, close }, { data, measuring, note, lean }) {
    return html`
      <${Panel} name="models" title="Models" shown=${shown} close=${close}>
        <p class="trouble" role="alert">${note}</p>
        <small>Models are pulled from the Hugging Face hub to this machine. Sizes are about; speeds are predicted for this machine.</small>
        <label class="consent"><input type="checkbox" role="switch" checked=${lean} onChange=${({ target }) => this.setState({ lean: target.checked })} />
          <span>Save disk space<small>A model that you pull then takes half the room. It answers the same; teaching it starts later.</small></span></label>
        ${measuring && html`<p class="empty" role="status">Measuring this machine's speed …</p>`}
        <ul>${data.map((one) => this.row(one))}</ul>
      <//>`;
  }
}
