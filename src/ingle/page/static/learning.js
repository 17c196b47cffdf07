// The panel "Learning": what the user taught, its state, and held-out loss over the model's life.

const GROUPS = [
  { states: ["learning", "pending"], name: "Now", empty: "Nothing is waiting to be learned." },
  { states: ["learned"], name: "Learned", empty: "Nothing has been learned into the weights yet." },
  { states: ["refused"], name: "Refused", hint: "The quality check kept these out of the weights. Corrections are still remembered." },
  { states: ["kept"], name: "Remembered", hint: "Used when a question is about them." },
  { states: ["undone"], name: "Undone" },
  { states: ["superseded"], name: "Replaced" },
];
const NOW = { pending: "waiting", learning: "being learned", rating: "waiting for more ratings" };
const STATES = { accepted: "accepted", refused: "refused", undone: "undone since" };
const [WIDE, HIGH, LEFT, TOP, BOTTOM] = [352, 176, 44, 22, 34]; // of the chart, in pixels

export default {
  props: {
    learn: { type: Boolean, default: true },
    counts: { type: Object, default: () => ({}) },
    items: { type: Array, default: () => [] },
    older: { type: Number, default: 0 },
    chart: { type: Object, default: () => ({ model: "", points: [] }) },
    note: { type: String, default: "" },
  },
  emits: ["consent", "undo", "redo", "rewrite", "forget", "more", "shut"],
  template: `
    <dialog ref="box" class="panel learning" aria-labelledby="learning-title" @click="outside" @close="closed">
      <div class="sheet">
        <header>
          <h2 id="learning-title">Learning</h2>
          <button class="quiet" type="button" aria-label="Close" @click="$refs.box.close()">
            <svg class="i" aria-hidden="true"><use href="#i-close"></use></svg>
          </button>
        </header>
        <p class="trouble" role="alert">{{ note }}</p>
        <label class="consent"><input type="checkbox" role="switch" :checked="learn" @change="$emit('consent', $event.target.checked)">
          <span>Let the model learn from me<small>This applies to what you teach from now on. Corrections are remembered either way.</small></span>
        </label>
        <section>
          <h3>Held-out loss</h3>
          <figure v-if="plot" class="loss">
            <svg :viewBox="plot.box" role="img" :aria-label="plot.said">
              <text class="axis" :x="plot.left" y="11">bits per byte of text that nobody taught; lower is better</text>
              <g v-for="tick in plot.ticks" :key="tick.y">
                <line class="grid" :x1="plot.left" :x2="plot.right" :y1="tick.y" :y2="tick.y"></line>
                <text class="axis end" :x="plot.left - 6" :y="tick.y + 4">{{ tick.text }}</text>
              </g>
              <polyline class="life" :points="plot.line"></polyline>
              <g v-for="dot in plot.dots" :key="dot.key">
                <line class="stem" :x1="dot.x" :x2="dot.x" :y1="dot.from" :y2="dot.y"></line>
                <circle :class="dot.state" :cx="dot.x" :cy="dot.y" r="4"><title>{{ dot.said }}</title></circle>
              </g>
              <text class="axis" :x="plot.left" :y="plot.foot">{{ plot.first }}</text>
              <text class="axis end" :x="plot.right" :y="plot.foot">{{ plot.last }}</text>
            </svg>
            <figcaption><span class="key begin">the model</span><span class="key accepted">accepted</span><span class="key refused">refused</span><span class="key undone">undone</span>
                <small>Each is measured on every text. A lesson acts only on questions near it.</small></figcaption>
          </figure>
          <p v-else class="empty">{{ chart.model }} has not been measured yet. Every lesson adds a point.</p>
        </section>
        <section v-for="group in groups" :key="group.name" :aria-label="group.name">
          <h3>{{ group.name }}<span v-if="group.count">{{ group.count }}</span></h3>
          <small v-if="group.hint">{{ group.hint }}</small>
          <p v-if="!group.rows.length" class="empty">{{ group.empty }}</p>
          <ul>
            <li v-for="row in group.rows" :key="row.id" :data-state="row.state">
              <form v-if="editing === row.id" @submit.prevent="save(row)">
                <textarea ref="draft" rows="3" v-model="words" aria-label="New words" @keydown.esc.prevent.stop="editing = ''"></textarea>
                <div class="buttons"><button type="button" @click="editing = ''">Cancel</button><button class="main" :disabled="!words.trim()">Save</button></div>
              </form>
              <template v-else>
                <p v-if="row.question" class="asked">{{ row.question }}</p>
                <p class="said"><svg v-if="row.kind === 'rating'" class="i" role="img" :aria-label="row.rating > 0 ? 'Good answer' : 'Bad answer'"><use :href="row.rating > 0 ? '#i-good' : '#i-bad'"></use></svg>{{ row.answer }}</p>
                <p v-for="reason in row.reasons" class="reason">{{ reason }}</p>
                <div class="foot">
                  <span v-if="now[row.state]" role="status"><span v-if="row.state === 'learning'" class="glow"></span>{{ now[row.kind === "rating" && row.state === "pending" ? "rating" : row.state] }}</span>
                  <time v-else :datetime="row.at">{{ when(row.at) }}</time>
                  <button v-if="stands(row)" class="quiet" type="button" :aria-label="'Undo: ' + named(row)" @click="$emit('undo', row.id)">
                    <svg class="i" aria-hidden="true"><use href="#i-back"></use></svg>Undo
                  </button>
                  <button v-if="row.state === 'undone'" class="quiet" type="button" :aria-label="'Count again: ' + named(row)" @click="$emit('redo', row.id)">
                    <svg class="i" aria-hidden="true"><use href="#i-again"></use></svg>Count again
                  </button>
                  <button v-if="editable(row)" class="quiet" type="button" :aria-label="'Edit: ' + named(row)" title="Edit" @click="edit(row)">
                    <svg class="i" aria-hidden="true"><use href="#i-pencil"></use></svg>
                  </button>
                  <button class="quiet" type="button" :aria-label="'Forget: ' + named(row)" title="Forget" @click="ask(row)">
                    <svg class="i" aria-hidden="true"><use href="#i-trash"></use></svg>
                  </button>
                </div>
              </template>
            </li>
          </ul>
        </section>
        <button v-if="older > 0" class="quiet older" type="button" @click="$emit('more')">Older</button>
      </div>
      <dialog ref="sure" aria-label="Forget something" @close.stop @click.stop>
        <form method="dialog">
          <h2>Forget this?</h2>
          <p>“{{ doomed && named(doomed) }}” is deleted for good. The weights unlearn it too.</p>
          <label class="also"><input type="checkbox" v-model="also"><span>Also delete the messages with these words, and all that follow them</span></label>
          <div class="buttons"><button value="">Cancel</button><button class="main" value="yes" @click="$emit('forget', [doomed.id, also])">Forget</button></div>
        </form>
      </dialog>
    </dialog>`,
  data: () => ({ editing: "", words: "", doomed: null, also: false }),
  computed: {
    groups() {
      const groups = GROUPS.map((group) => ({
        ...group,
        rows: this.items.filter((row) => group.states.includes(row.state)),
        count: group.states.reduce((sum, state) => sum + (this.counts[state] || 0), 0),
      }));
      return groups.filter((group) => group.rows.length || group.empty);
    },
    plot() {
      const { points } = this.chart;
      if (!points.length) return null;
      const begin = points[0].before ?? points[0].bits;
      const alone = points.map((point) => point.before ?? begin); // the model itself, without what was measured
      const every = [...alone, ...points.map((point) => point.bits)];
      const least = begin * 0.01; // else the last digit would look like a disaster
      let [low, high] = [Math.min(...every), Math.max(...every)];
      const room = Math.max(least, (high - low) * 0.12);
      [low, high] = [low - room, high + room];
      const right = WIDE - 8;
      const x = (i) => LEFT + 10 + (points.length ? (i * (right - LEFT - 20)) / points.length : 0);
      const y = (bits) => TOP + ((high - bits) * (HIGH - TOP - BOTTOM)) / (high - low);
      const dots = points.map((point, i) => ({
        key: point.at, state: point.state, x: x(i + 1), y: y(point.bits), from: y(alone[i]),
        said: `${point.what}, ${STATES[point.state]}: ${point.bits.toFixed(4)} bits per byte (${this.signed(point.rise)} %), ${this.when(point.at)}`,
      }));
      const stands = dots.filter((dot) => dot.state === "accepted");
      const digits = high - low < 0.08 ? 3 : 2;
      const ticks = [0, 1, 2, 3].map((i) => low + ((i + 0.5) * (high - low)) / 4).map((bits) => ({ y: y(bits), text: bits.toFixed(digits) }));
      const newest = stands.length ? `, the newest with ${points[dots.indexOf(stands.at(-1))].bits.toFixed(3)} bits per byte` : "";
      return {
        box: `0 0 ${WIDE} ${HIGH}`, left: LEFT, right, foot: HIGH - 6, ticks, dots,
        line: [`${x(0)},${y(begin)}`, ...dots.map((dot) => `${dot.x},${dot.from}`)].join(" "),
        first: this.day(points[0].at), last: points.length > 1 ? `${points.length} candidates, ${this.day(points.at(-1).at)}` : "1 candidate",
        said: `Held-out loss of ${this.chart.model}: ${alone.at(-1).toFixed(3)} bits per byte; ${points.length} measured beside it, ${stands.length} of them at work${newest}.`,
      };
    },
  },
  created() {
    this.now = NOW;
  },
  methods: {
    open() {
      if (this.$refs.box.open) return;
      this.$refs.box.showModal();
      this.$refs.box.scrollTop = 0;
    },
    closed() {
      this.editing = "";
      this.$emit("shut");
    },
    outside(event) {
      if (event.target === this.$refs.box) this.$refs.box.close();
    },
    named(row) {
      const words = row.question ? `${row.question} → ${row.answer}` : row.answer;
      return words.length > 120 ? words.slice(0, 119) + "…" : words;
    },
    stands(row) {
      return !["undone", "superseded"].includes(row.state);
    },
    editable(row) {
      return row.kind !== "rating" && this.stands(row);
    },
    edit(row) {
      [this.editing, this.words] = [row.id, row.answer];
      this.$nextTick(() => this.$el.querySelector("li textarea").focus());
    },
    save(row) {
      if (!this.words.trim()) return;
      this.$emit("rewrite", [row.id, this.words]); // they stay until they are stored
    },
    rewritten() {
      this.editing = "";
    },
    ask(row) {
      [this.doomed, this.also] = [row, false];
      this.$refs.sure.showModal();
    },
    day(at) {
      return new Date(at).toLocaleDateString(undefined, { day: "numeric", month: "short" });
    },
    when(at) {
      return new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    },
    signed(number) {
      return number == null ? "?" : (number >= 0 ? "+" : "−") + Math.abs(number).toFixed(2);
    },
  },
};
