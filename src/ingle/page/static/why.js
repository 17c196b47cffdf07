// Why an answer says what it says: the causes that were proved by leaving them out, the prompt with them marked, and what is to be done.

export default {
  props: {
    state: { type: String, default: "" }, // "" = explained; working, failed
    note: { type: String, default: "" },
    says: { type: Array, default: () => [] },
    causes: { type: Array, default: () => [] },
    prompt: { type: Array, default: () => [] },
    words: { type: Array, default: () => [] }, // of the answer
    part: { type: Array, default: null }, // the start and end of what is explained; null = the whole answer
    chosen: { type: String, default: "" },
    legend: { type: Array, default: () => [] },
    sure: { type: Object, default: null }, // sentences, and the odds with the ends of their interval where they were measured
    line: { type: String, default: "" },
    kept: Boolean, // explained before
    cut: { type: String, default: "" },
  },
  emits: ["stop", "anew", "choose", "undo", "redo"],
  template: `
    <section class="why" role="region" aria-label="Why it said that" :aria-busy="working ? 'true' : null" @keydown.esc.stop="escape">
      <h3>{{ chosen ? "Why it said “" + chosen + "”" : "Why it said that" }}</h3>
      <p class="heard" role="status">{{ working ? stage : note ? "" : "Explained." }}</p>
      <p v-if="working" class="going" aria-hidden="true"><span class="glow"></span><span>{{ stage }}</span><span>{{ seconds }} s</span>
      </p>
      <button v-if="working" class="quiet stop" type="button" @click="press('stop')"><svg class="i" aria-hidden="true"><use href="#i-stop"></use></svg>Stop</button>
      <p v-if="note" class="trouble" role="alert">{{ note }}</p>
      <p v-if="cut && !working" class="note">{{ cut }}</p>
      <ul v-if="causes.length" class="causes" aria-label="Causes">
        <li v-for="cause in causes" :key="cause.key" :data-kind="cause.kind">
          <div class="head">
            <b>{{ cause.name }}</b>
            <span>{{ cause.strength ? cause.strength + " · " + cause.figure : "not needed" }}<template v-if="cause.chance"> · {{ cause.chance }}</template></span>
          </div>
          <p class="quote" dir="auto"><template v-for="(piece, i) in around(cause)" :key="i"><mark v-if="i === 1 && cause.strength" :class="cause.strength">{{ piece }}</mark><template v-else>{{ piece }}</template></template></p>
          <div class="foot">
            <button v-if="cause.without !== null && cause.without !== undefined" class="quiet" type="button" :aria-expanded="shown.includes(cause.key) ? 'true' : 'false'"
                    :aria-label="label(cause) + ': ' + cause.text" @click="flip(cause.key)">{{ label(cause) }}</button>
            <button v-if="cause.act" class="quiet" type="button" :data-do="cause.act" :aria-label="(cause.act === 'undo' ? 'Undo: ' : 'Count again: ') + cause.text"
                    @click="$emit(cause.act, cause.id)">
              <svg class="i" aria-hidden="true"><use :href="cause.act === 'undo' ? '#i-back' : '#i-again'"></use></svg>{{ cause.act === "undo" ? "Undo" : "Count again" }}
            </button>
            <span v-if="cause.since" role="status">{{ cause.since }}</span>
          </div>
          <blockquote v-if="shown.includes(cause.key)" class="without" dir="auto"><small>{{ cause.differs ? "Without it:" : "Without it, the same:" }}</small>{{ cause.without || "(nothing)" }}</blockquote>
        </li>
      </ul>
      <div v-if="says.length" class="says"><p v-for="(said, i) in says" :key="i" dir="auto">{{ said }}</p></div>
      <template v-if="sure && !working">
        <h4>How sure it is</h4>
        <p v-if="sure.odds" class="odds" aria-hidden="true"><span :style="{ left: percent(sure.odds[1]), right: percent(1 - sure.odds[2]) }"></span><b :style="{ left: percent(sure.odds[0]) }"></b></p>
        <p v-for="said in sure.says" :key="said" dir="auto">{{ said }}</p>
      </template>
      <template v-if="!working && prompt.length">
        <h4 :id="id('given')">What it was given</h4>
        <div class="given" role="group" tabindex="0" :aria-labelledby="id('given')">
          <div v-for="block in prompt" :key="block.message" class="block">
            <small>{{ block.who }}</small>
            <p dir="auto"><template v-for="(piece, i) in block.parts" :key="i"><mark v-if="piece.strength" :class="piece.strength">{{ piece.text.trimEnd()
              }}<span class="heard"> ({{ piece.strength }} cause, {{ piece.figure }}) </span></mark><span v-else :class="{ gap: piece.gap }">{{ piece.text }}</span>{{ piece.strength ? space(piece.text) : "" }}</template></p>
          </div>
        </div>
        <p v-if="marked" class="legend">Shaded by how much less likely the answer is without it: <span v-for="[name, says] in legend" :key="name"><mark :class="name">{{ name }}</mark> ({{ says }}) </span></p>
      </template>
      <template v-if="words.length">
        <h4 :id="id('words')">The answer, word by word</h4>
        <p class="hint">Choose a word to see what it alone rests on. Hold Shift to choose up to another one.</p>
        <p class="words" role="toolbar" :aria-labelledby="id('words')" dir="auto" @keydown="walk"><template v-for="(word, i) in words" :key="i"><button type="button"
          :tabindex="i === at ? 0 : -1" :aria-pressed="inside(word) ? 'true' : 'false'" @focus="at = i" @click="choose(i, $event)">{{ word.text }}</button>{{ word.space }}</template></p>
        <button v-if="part" class="quiet whole" type="button" @click="whole"><svg class="i" aria-hidden="true"><use href="#i-back"></use></svg>The whole answer</button>
      </template>
      <div v-if="!working" class="account">
        <span v-if="line">{{ kept ? "Explained before · " : "" }}{{ line }}</span>
        <button class="quiet" type="button" @click="press('anew')"><svg class="i" aria-hidden="true"><use href="#i-again"></use></svg>{{ note ? "Try again" : "Explain anew" }}</button>
      </div>
    </section>`,
  data: () => ({ shown: [], at: 0, seconds: 0 }),
  computed: {
    working() {
      return this.state === "working";
    },
    marked() {
      return this.prompt.some((block) => block.parts.some((piece) => piece.strength));
    },
    stage() {
      const count = this.causes.length;
      const so = count ? `${count} ${count > 1 ? "causes" : "cause"} so far. ` : "";
      return `${so}It answers again, with one thing left out at a time …`;
    },
  },
  watch: {
    state() {
      this.count();
      this.$nextTick(this.refocus);
    },
  },
  mounted() {
    this.count();
  },
  beforeUnmount() {
    clearInterval(this.timer);
  },
  methods: {
    id(name) {
      return `why-${this.$.uid}-${name}`;
    },
    count() {
      clearInterval(this.timer);
      this.seconds = 0;
      if (this.working) {
        this.shown = [];
        this.timer = setInterval(() => (this.seconds += 1), 1000);
      }
    },
    label(cause) {
      return this.shown.includes(cause.key) ? "Hide the answer without it" : "Show the answer without it";
    },
    flip(key) {
      this.shown = this.shown.includes(key) ? this.shown.filter((one) => one !== key) : [...this.shown, key];
    },
    around(cause) {
      // What is said of it, in three: before its words, its words, and after.
      const at = cause.says.indexOf(cause.text);
      return at < 0 ? ["", cause.text, cause.says && ": " + cause.says] : [cause.says.slice(0, at), cause.text, cause.says.slice(at + cause.text.length)];
    },
    percent(share) {
      return `${100 * share}%`;
    },
    space(text) {
      return text.slice(text.trimEnd().length);
    },
    inside(word) {
      return this.part !== null && word.start < this.part[1] && word.end > this.part[0];
    },
    choose(i, event) {
      const other = event.shiftKey && this.begun !== undefined ? this.begun : i;
      if (!event.shiftKey) this.begun = i;
      this.$emit("choose", [this.words[Math.min(i, other)].start, this.words[Math.max(i, other)].end]);
    },
    whole() {
      this.$el.querySelectorAll(".words button")[this.at]?.focus(); // this button goes
      this.$emit("choose", null);
    },
    press(what) {
      this.pressed = true;
      this.$emit(what);
    },
    refocus() {
      // The button that was pressed is gone; here is what stands in its place.
      if (this.pressed) this.$el.querySelector(".stop, .account button")?.focus({ preventScroll: true });
      this.pressed = false;
    },
    walk(event) {
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const buttons = this.$el.querySelectorAll(".words button");
      buttons[Math.max(0, Math.min(buttons.length - 1, this.at + step))].focus();
    },
    escape() {
      if (this.working) this.press("stop");
    },
  },
};
