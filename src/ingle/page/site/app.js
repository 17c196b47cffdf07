// One open tab: what it shows, and what its user does. All that it knows comes from the API.

import { ApiError, ask, get, listen, stream } from "./api.js";
import { Bar } from "./bar.js";
import { Composer } from "./composer.js";
import { Learning } from "./learning.js";
import { closeDrawer, List } from "./list.js";
import { Models } from "./models.js";
import { Component, composing, doing, html } from "./parts.js";
import { Scroll } from "./scroll.js";
import { paint, Settings } from "./settings.js";
import { Turn } from "./turn.js";
import { render } from "./vendor/preact-htm.js";
import { Welcome } from "./welcome.js";
import { Why } from "./why.js";

const { version } = document.documentElement.dataset;
const CAN = { hear: "hear you", see: "see pictures", say: "read aloud" }; // abilities in words, where their name is none
const [PAGE, SPAN] = [50, 80]; // conversations and turns that are shown at first, and that "older" and "earlier" add
const SOON_MS = 60; // news that come together are looked at once
const COPIES = "Deleted. Another program is reading the database, so old copies of the words may stay in its file for a while.";
const SMALL = "smollm2"; // the model beside which a larger one is offered
const mac = /Mac|iPhone|iPad/.test(navigator.platform); // there Ctrl K deletes to the end of the line
const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");
const called = (id) => `/v1/conversations/${encodeURIComponent(id)}`;
const pathOf = (id) => `/${id ? "c/" + id : ""}`;
const placeIn = (path) => path.match(/^\/c\/(.+)/)?.[1] ?? "";
const NOTHING = { may: false, rows: [], note: "" };

class App extends Component {
  state = {
    visitor: null, rows: [], more: false, words: "", limit: PAGE,
    conversation: null, temporary: false, chosen: {}, last: SPAN, // conversation: as the API reads it; null = a new one
    note: "", offline: false, panel: "", section: "", trouble: "", safety: NOTHING, // panel: the one that is open
    why: null, lacks: {}, wanted: null, pull: { state: "none" }, offer: null, question: null,
  };
  turns = new Map(); // by key: the turns that are drawn
  sending = false;
  queue = Promise.resolve(); // settings, one after the other

  async componentDidMount() {
    addEventListener("keydown", this.key);
    addEventListener("click", ({ target }) => target.matches?.(".house") && closeDrawer());
    addEventListener("popstate", () => this.open(placeIn(location.pathname), false));
    addEventListener("pagehide", () => this.leaveTemporary(true));
    paint(localStorage.getItem("ingle.theme") || "system");
    listen(this.hear, this.connected);
    const wanted = placeIn(location.pathname);
    await this.deed(async () => {
      const [visitor] = await Promise.all([get("/v1/visitor"), this.list(), wanted && this.show(wanted)]);
      this.setState({ visitor });
    });
    if (wanted && !this.state.conversation) this.path("");
    this.looked();
  }

  // News

  connected = (open) => {
    window.ingle.connected = open;
    document.body.classList.toggle("cut", !open); // no action works now: see page.css
    clearTimeout(this.cut);
    if (open) this.setState({ offline: false });
    else this.cut = setTimeout(() => this.setState({ offline: true }), 700);
    if (!open) this.soon(() => fetch("/v1/visitor").then(({ status }) => status === 401 && location.reload(), () => {}), "visitor");
  };

  hear = (name, data) => {
    const { conversation } = this.state;
    const about = data.conversation ?? data.id;
    const here = conversation && about === conversation.id;
    if (!here && about && about === this.showing?.id) this.showing.news = true;
    if (name === "hello") {
      if (data.version !== version) return void location.reload(); // this page is older than its server; drafts outlive that
      if (this.boot && this.boot !== data.boot) this.anew();
      this.boot = data.boot;
    } else if (name === "reset") this.anew();
    else if (name === "answer.stage" && here) this.end(data, { state: data.stage });
    else if (name === "answer.delta") here && this.grow(data);
    else if (name === "conversation.changed") {
      this.refresh();
      if (here && data.version > conversation.version) this.reread();
    } else if (name === "conversation.deleted") {
      if (here) this.leave("This conversation was deleted.");
      this.refresh();
    } else if (name.startsWith("answer.")) {
      this.refresh();
      if (here) this.reread();
    } else if (name === "learning.changed") this.taught();
    else if (name === "guards.changed") {
      if (this.state.panel === "settings") this.readGuards();
      this.looked();
      this.reread();
    } else if (name === "pull.changed") this.pulled(data);
    else if (name === "visitor.changed") this.soon(() => get("/v1/visitor"), "visitor");
  };

  // Does something soon, once for all that ask for it meanwhile.
  soon(deed, name) {
    this.waiting ??= {};
    if (this.waiting[name]) return;
    this.waiting[name] = setTimeout(() => {
      delete this.waiting[name];
      deed().catch((error) => error instanceof ApiError || console.error(error));
    }, SOON_MS);
  }

  refresh = () => this.soon(() => this.list(), "list");

  reread = () => this.state.conversation && this.soon(() => this.show(this.state.conversation?.id), "conversation");

  anew() {
    this.refresh();
    this.reread();
    this.taught();
  }

  taught() {
    this.reread();
    this.setState({ news: (this.state.news ?? 0) + 1 }); // panels look again
  }

  end(data, change) {
    const { conversation } = this.state;
    if (conversation.end?.answer === data.answer) this.setState({ conversation: { ...conversation, end: { ...conversation.end, ...change } } });
  }

  grow(data) {
    const { end } = this.state.conversation;
    if (end?.answer !== data.answer) return;
    if (!this.turns.get(data.answer)?.grow(data)) this.reread();
  }

  // What there is

  async list() {
    const { words, limit } = this.state;
    const query = new URLSearchParams({ words, limit: Math.min(limit, 1000) });
    const { data, has_more } = await get(`/v1/conversations?${query}`);
    if (words === this.state.words) this.setState({ rows: data, more: has_more });
  }

  async show(id) {
    if (!id) return;
    const begun = (this.asked = (this.asked ?? 0) + 1);
    const showing = (this.showing = { id, news: false }); // news: what happened there since it was asked for
    try {
      const conversation = await get(`${called(id)}?shown=true&last=${Math.min(this.state.last, 1000)}`);
      if (begun !== this.asked) return;
      const was = this.state.conversation;
      const pushed = was?.id === id ? conversation.earlier - was.earlier : 0; // turns that showed, and wouldn't because others came
      if (pushed > 0 && this.state.last < 1000) {
        this.state.last += pushed;
        return void (await this.show(id));
      }
      this.take(conversation);
      if (showing.news) this.soon(() => this.show(this.state.conversation?.id), "conversation");
    } catch (error) {
      if (begun !== this.asked || !(error instanceof ApiError) || error.status !== 404) throw error;
      await this.leave(this.state.conversation ? "This conversation was deleted." : "There is no such conversation here.");
    }
  }

  take(conversation) {
    const was = this.state.conversation;
    const why = this.state.why && conversation.turns.some((turn) => turn.id === this.state.why) ? this.state.why : null;
    this.setState({ conversation, why, temporary: conversation.temporary, chosen: was?.id === conversation.id && this.unsettled ? this.state.chosen : conversation.settings });
    this.path(conversation.temporary ? "" : conversation.id);
    document.title = conversation.title ? `${conversation.title} – Ingle` : "Ingle";
  }

  path(id) {
    if (pathOf(id) !== location.pathname) history.pushState(null, "", pathOf(id));
    closeDrawer();
  }

  // What this home could do: asked when the model or a pull changed.
  looked = () =>
    this.soon(async () => {
      const { visitor, conversation } = this.state;
      const [abilities, guards] = await Promise.all([
        get(`/v1/abilities?model=${encodeURIComponent(this.model)}`), !conversation && visitor?.may.guards ? get("/v1/guards") : null,
      ]);
      this.setState({ lacks: Object.fromEntries(abilities.data.map((one) => [one.name, one.why])), abilities: abilities.data, question: guards?.question ?? null });
      if (conversation || !visitor?.may.pull || visitor.defaults.model !== SMALL || visitor.models.length > 1) return;
      const { offer } = await ask("POST", "/v1/catalogue/measure", { soon: true });
      this.setState({ offer });
    }, "looked");

  get model() {
    return this.state.chosen.model || this.state.visitor?.defaults.model || "";
  }

  // What is done

  // Does something; its error shows above the message box. Returns whether it went well.
  async deed(act) {
    this.setState({ note: "" });
    try {
      await act();
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.setState({ note: error.message });
      if (error.code === "Stale") this.reread();
      return false;
    }
  }

  send = ({ text, pictures = [], aloud }) => {
    if (this.sending || this.writing) return false;
    this.sending = true;
    return this.deed(async () => {
      const sees = !(pictures.length && (await this.lacking("see")));
      if (!sees) throw new ApiError(400, { message: "" });
      const before = this.state.conversation;
      await this.queue;
      const made = before ?? (await ask("POST", "/v1/conversations", { settings: this.state.chosen, temporary: this.state.temporary }));
      const key = crypto.randomUUID?.() ?? String(Math.random());
      try {
        const tab = aloud ? window.ingleVoice.tab : "";
        const version = before ? this.state.conversation.version : null;
        const { paints } = await ask("POST", `${called(made.id)}/answers`, { text, pictures, version, key, aloud: tab });
        if (paints) await this.lacking("draw");
      } catch (error) {
        if (!before) await ask("DELETE", called(made.id));
        throw error;
      }
      if (this.state.conversation === before || before) await this.show(made.id);
      this.scroll.end();
    }).finally(() => (this.sending = false));
  };

  sample = async (text) => {
    if (this.sending) return;
    this.composer.sampled();
    await this.send({ text });
  };

  get writing() {
    const end = this.state.conversation?.end;
    return Boolean(end && end.state !== "failed");
  }

  again = (question) =>
    this.deed(async () => {
      await this.queue;
      await ask("POST", `${called(this.state.conversation.id)}/answers`, { again: question });
      await this.show(this.state.conversation.id);
    });

  edit = (turn, text) =>
    this.deed(async () => {
      await this.queue;
      await ask("POST", `${called(this.state.conversation.id)}/answers`, { edits: turn.id, text });
      await this.show(this.state.conversation.id);
      this.scroll.end();
    });

  step = (turn, beside) =>
    this.deed(async () => {
      // "" = where another answer is being written
      const change = beside ? { leaf: beside } : { leaf: turn?.parent ?? this.state.conversation.leaf, exact: true };
      await ask("PATCH", called(this.state.conversation.id), change);
      await this.show(this.state.conversation.id);
    });

  stop = () => this.writing && this.deed(() => ask("DELETE", `${called(this.state.conversation.id)}/answers/${this.state.conversation.end.answer}`));

  act = (turn, id) => {
    const done = turn.shown.acts[id];
    const model = turn.facts?.model_name || this.model;
    const rate = (rating) => (done ? ask("DELETE", `/v1/memory/${done}`) : ask("POST", "/v1/feedback", { completion_id: turn.completion_id, rating, model }));
    const judge = async (harmful) => {
      if (done) {
        await ask("DELETE", `/v1/guards/taught/${done}`);
        return "Taken back. The guards are as they were before it.";
      }
      const { id: made } = await ask("POST", "/v1/guards/teach", { completion_id: turn.completion_id, harmful });
      if (made) return "";
      if (harmful) return "This counts as a request for harm already, so nothing changed. What happens to those: Settings → Safety.";
      return "The guards let this pass already, so nothing changed. Ask again to see.";
    };
    const acts = {
      again: () => this.again(turn.parent),
      good: () => rate(1),
      bad: () => rate(-1),
      remember: () => (done ? ask("DELETE", `/v1/memory/${done}`) : ask("POST", "/v1/memory", { text: turn.text, model })),
      harmless: () => judge(false),
      harmful: () => judge(true),
      why: () => this.setState({ why: this.state.why === turn.id ? null : turn.id }),
      meant: async () => (await this.correct(turn, turn.shown.nearly.answer)) && this.again(turn.parent),
    };
    return this.deed(async () => {
      const said = await acts[id]();
      if (typeof said === "string") this.setState({ note: said });
      if (!["again", "why", "meant"].includes(id)) await this.show(this.state.conversation.id);
    });
  };

  correct = (turn, correction) =>
    this.deed(async () => {
      await ask("POST", "/v1/feedback", { completion_id: turn.completion_id, correction, model: this.model });
      await this.show(this.state.conversation.id);
    });

  cure = (id) => {
    if (id === "again") this.again(this.state.conversation.leaf);
    else if (id === "settings") this.settings();
    else if (id === "safety") this.settings("safety");
    else this.leave();
  };

  // Conversations

  open = async (id, push = true) => {
    if (!id) return this.leave();
    if (id === this.state.conversation?.id) return;
    await this.leaveTemporary();
    this.setState({ last: SPAN, why: null });
    await this.deed(() => this.show(id));
    this.scroll.end();
  };

  // Goes to a new conversation, and shows a note.
  leave = async (note = "") => {
    await this.leaveTemporary();
    this.asked = (this.asked ?? 0) + 1;
    this.setState({ conversation: null, temporary: false, chosen: {}, last: SPAN, why: null, note, offer: null });
    this.path("");
    document.title = "Ingle";
    this.composer?.focus(); // not there yet where a page began with a conversation that is none
    this.looked();
  };

  begin = (byKey) => {
    if (byKey === true && this.state.temporary && this.state.conversation) {
      this.setState({ note: "Shortcuts don't end a temporary chat. Press “New conversation” to leave it." });
    } else this.leave();
  };

  async leaveTemporary(goes = false) {
    const { temporary, conversation } = this.state;
    if (!temporary || !conversation) return;
    if (!goes) this.composer.drop();
    const gone = fetch(called(conversation.id), { method: "DELETE", keepalive: true });
    if (!goes) await gone.catch(() => {});
  }

  lost = () => this.setState({ temporary: true, note: "Your temporary chat is gone. This is a new temporary chat." });

  change = (id, table) =>
    this.deed(async () => {
      await ask("PATCH", called(id), table);
      await this.list();
      if (id === this.state.conversation?.id) await this.show(id);
    });

  remove = (id) =>
    this.deed(async () => {
      const { scrubbed } = await ask("DELETE", called(id));
      this.setState({ rows: this.state.rows.filter((row) => row.id !== id) });
      if (id === this.state.conversation?.id) await this.leave();
      if (!scrubbed) this.setState({ note: COPIES });
      await this.list();
    });

  // Settings

  settings = (section) => {
    this.setState({ panel: "settings", section: typeof section === "string" ? section : "", trouble: "" });
    this.soon(async () => this.setState({ visitor: await get("/v1/visitor") }), "visitor");
    this.readGuards();
  };

  readGuards = async (note = "") => {
    const { may } = this.state.visitor;
    try {
      const { data } = await get("/v1/guards");
      const shown = data.filter((one) => one.title && !one.idle);
      const usual = (one) => one.modes[0] !== "off"; // those that usually look come first
      this.setState({ safety: { may: may.guards, rows: [...shown.filter(usual), ...shown.filter((one) => !usual(one))], note } });
    } catch (error) {
      this.setState({ safety: { may: may.guards, rows: [], note: note || error.message } });
    }
  };

  guard = async (name, mode) => {
    let note = "";
    await ask("PUT", `/v1/guards/${name}`, { mode }).catch((error) => (note = error.message));
    await this.readGuards(note);
  };

  answerQuestion = (mode) =>
    this.deed(async () => {
      await ask("POST", "/v1/guards/question", { mode });
      this.setState({ question: null, note: mode ? "Kept. You can change it any time: Settings → Safety." : "" });
    });

  choose = (name, value) => {
    const { [name]: _, ...rest } = this.state.chosen;
    const empty = value === null || value === "";
    return this.settle(empty ? rest : { ...rest, [name]: value }, ({ [name]: __, ...stored }) => (empty ? stored : { ...stored, [name]: value }));
  };

  // chosen: what shows from now on; change: what becomes of the settings that are stored, which another tab may have changed.
  settle = (chosen, change = () => chosen) => {
    const before = this.state.chosen;
    this.unsettled = (this.unsettled ?? 0) + 1;
    this.setState({ chosen, trouble: "" });
    this.state.chosen = chosen; // at once: the next change builds on it
    return (this.queue = this.queue.then(async () => {
      const { conversation } = this.state;
      try {
        if (conversation) {
          const { settings, version: now } = await this.stored(conversation, change);
          this.setState({ conversation: { ...this.state.conversation, settings, version: now } });
          if (this.state.chosen === chosen) this.setState({ chosen: (this.state.chosen = settings) });
        } else this.check(chosen);
      } catch (error) {
        if (this.state.chosen === chosen) this.setState({ chosen: (this.state.chosen = before) });
        this.setState({ trouble: error.message });
      }
      this.unsettled -= 1;
      if (this.model !== this.lookedFor) this.looked((this.lookedFor = this.model));
    }));
  };

  // Changes the stored settings of a conversation; anew, where another tab was faster.
  async stored({ id, settings, version: seen }, change) {
    try {
      return await ask("PATCH", called(id), { settings: change(settings), version: seen });
    } catch (error) {
      if (error.code !== "Stale") throw error;
      return this.stored(await get(`${called(id)}?last=1`), change);
    }
  }

  // A new conversation's settings reach the server with its first question.
  check(chosen) {
    for (const [name, [low, high]] of Object.entries(this.state.visitor.bounds)) {
      const value = chosen[name];
      if (value !== undefined && !(value >= low && value <= high)) {
        throw new ApiError(400, { message: `${name} must be a number from ${low} to ${high} (got ${value})` });
      }
    }
  }

  // What this home could get

  async lacking(name) {
    await this.readAbilities();
    const lack = this.state.abilities.find((one) => one.name === name);
    if (!lack) return false;
    const why = this.missing(name, lack.why);
    if (why) this.setState({ wanted: { name: "", text: why, state: "none" } });
    else this.setState({ wanted: { name: lack.wants, text: lack.offer, came: lack.came, state: "offered" } });
    this.pulled(this.state.pull);
    return true;
  }

  async readAbilities() {
    const { data } = await get(`/v1/abilities?model=${encodeURIComponent(this.model)}`);
    this.setState({ lacks: Object.fromEntries(data.map((one) => [one.name, one.why])) });
    this.state.abilities = data;
  }

  pulled = (pull) => {
    this.setState({ pull });
    const { wanted } = this.state;
    const ended = pull.state !== "running";
    if (wanted && wanted.name && pull.name === wanted.name) {
      const shown = {
        running: { text: doing(pull), state: "running", done: pull.done, total: pull.total },
        done: { text: wanted.came, state: wanted.model ? "came" : "done" },
        failed: { text: pull.note, state: "offered" },
        stopped: { text: pull.note, state: "offered" },
      }[pull.state];
      if (shown) this.setState({ wanted: { ...wanted, ...shown, kept: pull.kept } });
    }
    if (ended) this.looked();
  };

  bring = () => this.deed(async () => this.pulled(await ask("POST", "/v1/catalogue/pull", { name: this.state.wanted.name })));

  better = ({ name, title }) => {
    this.state.wanted = { name, text: `${title} answers better.`, came: `${title} is here.`, state: "offered", model: true };
    this.setState({});
    return this.bring();
  };

  goOn = () =>
    this.deed(async () => {
      const { kept } = this.state.wanted;
      await ask("PUT", "/v1/models/default", { model: kept });
      await this.choose("model", null);
      this.setState({ wanted: null, visitor: await get("/v1/visitor"), note: `${kept} answers from now on. What you taught holds for it, too.` });
    });

  // Keys

  key = (event) => {
    if (document.querySelector("dialog[open]") || composing(event)) return;
    const command = mac ? event.metaKey : event.ctrlKey;
    const fresh = command ? event.key === "k" : event.key === "n" && !event.altKey && !typing(event.target);
    if (fresh) {
      event.preventDefault();
      this.begin(true);
    } else if (event.key === "Escape" && !event.defaultPrevented) {
      if (document.body.classList.contains("drawer")) closeDrawer();
      else this.stop();
    }
  };

  editLast = () => {
    const last = this.state.conversation?.turns.findLast((turn) => turn.role === "user");
    if (last) this.turns.get(last.id)?.edit();
  };

  // Drawing

  turn(turn) {
    const key = turn.completion_id ?? turn.id;
    const { shown } = turn;
    const explained = this.state.why === turn.id;
    return html`
      <${Turn} key=${key} ref=${(part) => this.keep(key, part)} ...${shown} role=${turn.role} text=${turn.text} pictures=${turn.pictures} state="" note=""
               cures=${[]} beside=${turn.beside} place=${turn.beside.indexOf(turn.id)} explained=${explained}
               act=${(id) => this.act(turn, id)} edit=${(text) => this.edit(turn, text)} correct=${(text) => this.correct(turn, text)}
               step=${(beside) => this.step(turn, beside)} learning=${this.learning} safety=${() => this.settings("safety")}>
        ${explained && html`<${Why} turn=${turn} stream=${stream} news=${this.state.news} changed=${this.reread} />`}
      <//>`;
  }

  keep(key, part) {
    if (part) this.turns.set(key, part);
    else this.turns.delete(key);
  }

  ending({ end, beside }) {
    const key = end.answer || "end";
    const live = end.state !== "failed";
    return html`
      <${Turn} key=${key} ref=${(part) => this.keep(key, part)} end=${live ? end : null} live=${live} role="assistant" text="" pictures=${[]} html="" state=${end.state}
               note=${end.note} cures=${end.cures} line="" details=${[]} seen=${[]} acts=${{}} beside=${[...beside, ""]} place=${beside.length}
               cure=${this.cure} step=${(to) => this.step(null, to)} />`;
  }

  learning = () => this.setState({ panel: "learning" });

  models = () => this.setState({ panel: "models" });

  // A dialog says late that it closed: another may be open by then.
  shut = (name) => this.state.panel === name && this.setState({ panel: "" });

  // Why an ability is missing; "" = whoever asks may get it.
  missing = (name, why) => why || (this.state.visitor.may.pull ? "" : `Ingle can't ${CAN[name] ?? name} here yet. Whoever keeps this house can bring that.`);

  render(_, state) {
    const { visitor, conversation, temporary, panel, wanted, lacks } = state;
    if (!visitor) return html`<div class="house"><aside class="side"></aside><main class="room"></main></div>`;
    const begun = conversation !== null;
    const place = temporary ? null : conversation?.id ?? "";
    const missing = Object.fromEntries(Object.entries(lacks).map(([name, why]) => [name, this.missing(name, why)]));
    return html`
      <div class="offline" role="status" aria-live="polite">${state.offline && html`<span>No connection to Ingle. Trying again …</span>`}</div>
      <div class="house">
        <${List} rows=${state.rows} more=${state.more} words=${state.words} who=${visitor.name} current=${place ?? ""} href=${pathOf}
                 begin=${this.begin} open=${this.open} learning=${this.learning} remove=${this.remove}
                 rename=${(id, title) => this.change(id, { title })} pin=${(id, pinned) => this.change(id, { pinned })}
                 search=${(words) => (this.setState({ words, limit: PAGE }, this.refresh))} older=${() => this.setState({ limit: state.limit + PAGE }, this.refresh)} />
        <main class="room">
          <${Bar} title=${conversation && !temporary ? conversation.title : ""} model=${this.model} temporary=${temporary} begun=${begun} settings=${this.settings}
                  setTemporary=${(on) => this.setState({ temporary: on })} begin=${this.begin} />
          <${Scroll} ref=${(part) => (this.scroll = part)} earlier=${conversation?.earlier > 0} more=${() => this.setState({ last: state.last + SPAN }, this.reread)}>
            ${!begun && html`<${Welcome} temporary=${temporary} offer=${state.offer} question=${state.question} sample=${this.sample} models=${this.models}
                                         answer=${this.answerQuestion} better=${this.better} />`}
            <div class="turns" role="log" aria-label="Conversation">
              ${conversation?.turns.map((turn) => this.turn(turn))}
              ${conversation?.end && this.ending(conversation)}
            </div>
          <//>
          <${Composer} ref=${(part) => (this.composer = part)} writing=${this.writing} note=${state.note} place=${place} begun=${begun} lacks=${missing} offer=${wanted}
                       send=${this.send} stop=${this.stop} last=${this.editLast} lost=${this.lost} want=${(name) => this.deed(() => this.lacking(name))}
                       bring=${this.bring} halt=${() => this.deed(() => ask("DELETE", "/v1/catalogue/pull"))} goOn=${this.goOn} leave=${() => this.setState({ wanted: null })} />
        </main>
      </div>
      <${Settings} shown=${panel === "settings"} section=${state.section} close=${() => this.shut("settings")} note=${state.trouble} chosen=${state.chosen} defaults=${visitor.defaults}
                   models=${visitor.models} more=${visitor.may.pull} showModels=${this.models} change=${this.choose} reset=${() => this.settle({})}
                   safety=${state.safety} guard=${this.guard} />
      <${Learning} shown=${panel === "learning"} close=${() => this.shut("learning")} model=${this.model} news=${state.news} changed=${this.reread} />
      <${Models} shown=${panel === "models"} close=${() => this.shut("models")} pull=${state.pull} current=${this.model} started=${this.pulled}
                 use=${(name) => this.choose("model", name)} />`;
  }
}

window.ingle = { connected: false };
render(html`<${App} />`, document.getElementById("page"));
