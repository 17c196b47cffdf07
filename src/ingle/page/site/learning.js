// The panel "Learning": what the user taught, its state, and held-out loss over the model's life.

import { ask, get } from "./api.js";
import { Chart, when } from "./chart.js";
import { Component, focusNew, html, icon, Panel, Sure } from "./parts.js";

const GROUPS = [
  { states: ["learning", "pending"], name: "Now", empty: "Nothing is waiting to be learned." },
  { states: ["learned"], name: "Learned", empty: "Nothing has been learned into the weights yet." },
  { states: ["refused"], name: "Refused", hint: "The quality check kept these out of the weights. Corrections are still remembered." },
  { states: ["kept"], name: "Remembered", hint: "Used when a question is about them." },
  { states: ["undone"], name: "Undone" },
  { states: ["superseded"], name: "Replaced" },
];
const NOW = { pending: "waiting", learning: "being learned", rating: "waiting for more ratings" };
const SPAN = 100; // examples that are shown at first, and that "Older" adds
const COPIES = "Another program is reading the database, so old copies of the words may stay in its file for a while.";
const stands = (row) => !["undone", "superseded"].includes(row.state);
const at = (row) => new Date(1000 * row.created_at).toISOString();

function named(row) {
  const words = row.question ? `${row.question} → ${row.answer}` : row.answer;
  return words.length > 120 ? words.slice(0, 119) + "…" : words;
}

// Where the words still are, and which examples count again or no more.
function account({ turns_left, system_prompts, back, leaning, scrubbed }) {
  const places = [[turns_left.length, "of your messages", ""], [system_prompts.length, "of your conversations", "the system prompt of "]];
  const where = places.filter(([count]) => count).map(([count, what, before]) => `${before}${count} ${what}`).join(" and in ");
  return [
    where && `Forgotten. Its words are still in ${where}. You can delete them there.`,
    back.length && "An earlier answer to its question counts again.",
    leaning.length && `${leaning.length} that built on it no longer count.`,
    !scrubbed && COPIES,
  ].filter(Boolean).join(" ");
}

export class Learning extends Component {
  state = { learn: true, counts: {}, data: [], waits: "", chart: null, note: "", limit: SPAN, editing: "", words: "", doomed: null, also: false };

  componentDidUpdate(before) {
    const { shown, news } = this.props;
    if (shown && (!before.shown || news !== before.news)) this.read(before.shown ? this.state.note : "");
  }

  async read(note) {
    try {
      const [told, chart] = await Promise.all([
        get(`/v1/learning?limit=${this.state.limit}`), get(`/v1/learning/chart?model=${encodeURIComponent(this.props.model)}`),
      ]);
      this.setState({ ...told, chart, note });
    } catch (error) {
      this.setState({ note: error.message });
    }
  }

  async deed(act) {
    let note = "";
    try {
      note = (await act()) ?? "";
    } catch (error) {
      note = error.message;
    }
    await this.read(note);
    this.props.changed();
  }

  save(event, row) {
    event.preventDefault();
    if (!this.state.words.trim()) return;
    this.deed(async () => {
      await ask("PATCH", `/v1/memory/${row.id}`, { answer: this.state.words });
      this.setState({ editing: "" }); // they stay until they are stored
    });
  }

  forget = () => {
    const { doomed, also } = this.state;
    this.deed(async () => account((await ask("DELETE", `/v1/memory/${doomed.id}${also ? "?turns=true" : ""}`)).ingle));
  };

  row(row) {
    const { editing, words } = this.state;
    const first = (box) => box && box !== this.draft && ((this.draft = box), focusNew(box));
    const escape = (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      event.stopPropagation();
      this.setState({ editing: "" });
    };
    const now = NOW[row.kind === "rating" && row.state === "pending" ? "rating" : row.state];
    return html`
      <li key=${row.id} data-state=${row.state}>
        ${editing === row.id
          ? html`<form onSubmit=${(event) => this.save(event, row)}>
              <textarea ref=${first} rows="3" value=${words} aria-label="New words" onInput=${({ target }) => this.setState({ words: target.value })} onKeyDown=${escape}></textarea>
              <div class="buttons"><button type="button" onClick=${() => this.setState({ editing: "" })}>Cancel</button><button class="main" disabled=${!words.trim()}>Save</button></div>
            </form>`
          : html`
            ${row.question && html`<p class="asked">${row.question}</p>`}
            <p class="said">${row.kind === "rating" && html`<svg class="i" role="img" aria-label=${row.rating > 0 ? "Good answer" : "Bad answer"}><use href=${row.rating > 0 ? "#i-good" : "#i-bad"}></use></svg>`}${row.answer}</p>
            ${row.reasons.map((reason) => html`<p class="reason">${reason}</p>`)}
            <div class="foot">
              ${now ? html`<span role="status">${row.state === "learning" && html`<span class="glow"></span>`}${now}</span>` : html`<time datetime=${at(row)}>${when(at(row))}</time>`}
              ${stands(row) && html`<button class="quiet" type="button" aria-label=${"Undo: " + named(row)} onClick=${() => this.deed(() => this.teach("undo", row))}>${icon("back")}Undo</button>`}
              ${row.state === "undone" && html`<button class="quiet" type="button" aria-label=${"Count again: " + named(row)} onClick=${() => this.deed(() => this.teach("redo", row))}>${icon("again")}Count again</button>`}
              ${row.kind !== "rating" && stands(row) && html`<button class="quiet" type="button" aria-label=${"Edit: " + named(row)} title="Edit"
                                                                    onClick=${() => this.setState({ editing: row.id, words: row.answer })}>${icon("pencil")}</button>`}
              <button class="quiet" type="button" aria-label=${"Forget: " + named(row)} title="Forget" onClick=${() => this.setState({ doomed: row, also: false })}>${icon("trash")}</button>
            </div>`}
      </li>`;
  }

  teach = async (act, row) => void (await ask("POST", `/v1/learning/${act}`, { which: row.id }));

  render({ shown, close, model }, { learn, counts, data, waits, chart, note, doomed, also, limit }) {
    const total = Object.values(counts).reduce((sum, one) => sum + one, 0);
    const groups = GROUPS.map((group) => ({
      ...group, rows: data.filter((row) => group.states.includes(row.state)), count: group.states.reduce((sum, state) => sum + (counts[state] || 0), 0),
    }));
    const consent = ({ target }) => this.deed(async () => void (await ask("PATCH", "/v1/learning", { learn: target.checked })));
    return html`
      <${Panel} name="learning" title="Learning" shown=${shown} close=${() => (this.setState({ editing: "" }), close())}>
        <p class="trouble" role="alert">${note || waits}</p>
        <label class="consent"><input type="checkbox" role="switch" checked=${learn} onChange=${consent} />
          <span>Let the model learn from me<small>This applies to what you teach from now on. Corrections are remembered either way.</small></span></label>
        <section>
          <h3>Held-out loss</h3>
          ${chart?.points.length ? html`<${Chart} ...${chart} />` : html`<p class="empty">${model} has not been measured yet. Every lesson adds a point.</p>`}
        </section>
        ${groups.filter((group) => group.rows.length || group.empty).map((group) => html`
          <section key=${group.name} aria-label=${group.name}>
            <h3>${group.name}${group.count > 0 && html`<span>${group.count}</span>`}</h3>
            ${group.hint && html`<small>${group.hint}</small>`}
            ${!group.rows.length && html`<p class="empty">${group.empty}</p>`}
            <ul>${group.rows.map((row) => this.row(row))}</ul>
          </section>`)}
        ${total > data.length && html`<button class="quiet older" type="button" onClick=${() => this.setState({ limit: limit + SPAN }, () => this.read(""))}>Older</button>`}
        <${Sure} label="Forget something" verb="Forget" doomed=${doomed} close=${() => this.setState({ doomed: null })} act=${this.forget}>
          <h2>Forget this?</h2>
          <p>“${doomed && named(doomed)}” is deleted for good. The weights unlearn it too.</p>
          <label class="also"><input type="checkbox" checked=${also} onChange=${({ target }) => this.setState({ also: target.checked })} /><span>Also delete the messages with these words, and all that follow them</span></label>
        <//>
      <//>`;
  }
}
