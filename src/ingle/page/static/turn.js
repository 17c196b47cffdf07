// One turn: a question, an answer, a pending answer, or the message in place of a missing one.

const STAGES = { opening: "Loading the model …", reading: "Reading …", writing: "Writing …" };

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Only pages of this machine, or with TLS, have a clipboard of their own.
    const box = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
}

let stepped = null; // which way one went from a version to the next, for a moment

export default {
  props: {
    role: { type: String, default: "assistant" },
    text: { type: String, default: "" },
    pictures: { type: Array, default: () => [] }, // data: URLs
    html: { type: String, default: "" },
    state: { type: String, default: "" }, // "" = it stands; opening, reading, writing, failed
    note: { type: String, default: "" },
    cures: { type: Array, default: () => [] },
    line: { type: String, default: "" },
    details: { type: Array, default: () => [] },
    explained: Boolean, // whether the view "Why" is open below
    acts: { type: Array, default: () => [] },
    correction: { type: Object, default: null }, // the user's answer in place of the model's, and its state
    seen: { type: Object, default: null }, // what the guards that judge meaning saw, and what they were taught since
    nearly: { type: String, default: "" }, // what was taught, does not act, and may be what is meant
    beside: { type: Array, default: () => [] },
    place: { type: Number, default: 0 },
  },
  emits: ["act", "edit", "correct", "step", "cure", "learning", "safety"],
  template: `
    <article class="turn" :class="[role, { set_right: correction && !editing }]" :aria-label="role === 'user' ? 'You' : 'Answer'" :aria-busy="live ? 'true' : null">
      <form v-if="editing" class="edit" @submit.prevent="save">
        <textarea ref="box" v-model="draft" rows="1" dir="auto" :aria-label="role === 'user' ? 'Your question' : 'The right answer'" @keydown="key"
                  @input="size"></textarea>
        <div class="buttons">
          <small v-if="role !== 'user'">Used from the next answer on.</small>
          <button type="button" @click="editing = false">Cancel</button>
          <button class="main" :disabled="!draft.trim() || (role !== 'user' && draft.trim() === text.trim())">{{ role === "user" ? "Ask again" : "Save" }}</button>
        </div>
      </form>
      <div v-else-if="role === 'user'" class="said" dir="auto"><img v-for="picture in pictures" :src="picture" alt="Picture that you sent">{{ text }}</div>
      <img v-if="role !== 'user'" v-for="picture in pictures" class="drawn" :src="picture" alt="Picture that the model drew">
      <div v-if="role !== 'user'" v-show="!editing" class="prose" @click="click"><div ref="done"></div><div ref="open"></div></div>
      <div v-if="correction && !editing" class="correction" role="group" aria-label="Your correction">
        <p dir="auto">{{ correction.text }}</p>
        <button class="quiet" type="button" aria-haspopup="dialog" title="Open Learning" @click="$emit('learning')">
          <span v-if="correction.state === 'learning'" class="glow"></span><span role="status">Corrected: {{ correction.said }}</span>
        </button>
        <p v-for="reason in correction.reasons" class="reason">{{ reason }}</p>
      </div>
      <div v-if="state === 'failed'" class="trouble">
        <p>{{ note }}</p>
        <button v-for="cure in cures" type="button" @click="$emit('cure', cure.id)">{{ cure.label }}</button>
      </div>
      <div v-if="seen && !editing" class="seen" role="group" aria-label="What the guards saw">
        <p v-for="said in seen.lines">{{ said }}</p>
        <p v-if="seen.taught" role="status">{{ seen.taught }}</p>
        <button v-for="act in judging" type="button" :data-act="act.id" title="Teaches the guards of this home, for everybody who asks here"
                @click="do_(act.id)">{{ act.pressed ? "Take it back" : act.label }}</button>
        <button type="button" class="way" aria-haspopup="dialog" title="What each guard does" @click="$emit('safety')">Settings → Safety</button>
      </div>
      <div v-if="nearly && !editing" class="seen" role="group" aria-label="What you taught">
        <p>You taught: “{{ nearly }}”. Is that what you mean?</p>
        <button v-for="act in acts.filter((act) => act.place === 'nearly')" type="button" :data-act="act.id" @click="do_(act.id)">{{ act.label }}</button>
      </div>
      <footer v-if="!editing">
        <div v-if="beside.length > 1" class="beside" role="group" aria-label="Other versions">
          <button class="quiet" type="button" aria-label="Previous version" :disabled="!place" @click="step(-1)">
            <svg class="i" aria-hidden="true"><use href="#i-left"></use></svg>
          </button>
          <span>{{ place + 1 }}/{{ beside.length }}</span>
          <button class="quiet" type="button" aria-label="Next version" :disabled="place + 1 >= beside.length" @click="step(1)">
            <svg class="i" aria-hidden="true"><use href="#i-right"></use></svg>
          </button>
        </div>
        <button v-for="act in row" class="quiet" type="button" :data-act="act.id" :aria-label="act.label" :title="named(act)"
                :aria-pressed="act.pressed === null ? null : act.pressed ? 'true' : 'false'"
                :aria-expanded="unfolds(act)" @click="do_(act.id)">
          <svg class="i" aria-hidden="true"><use :href="'#i-' + icon(act)"></use></svg>
        </button>
        <span v-if="live" class="line"><span class="glow"></span>{{ stage }}</span>
        <span v-else-if="line" class="line">{{ line }}</span>
      </footer>
      <dl v-if="detailed" class="details">
        <template v-for="[name, value] in details" :key="name"><dt>{{ name }}</dt><dd>{{ value }}</dd></template>
        <dd v-if="missed" class="missed">
          <button type="button" :data-act="missed.id" title="Teaches the guards of this home, for everybody who asks here" @click="do_(missed.id)">{{ missed.label }}</button>
        </dd>
      </dl>
      <slot></slot>
    </article>`,
  data: () => ({ editing: false, draft: "", detailed: false, copied: false, aloud: false, now: "" }),
  computed: {
    live() {
      return ["opening", "reading", "writing"].includes(this.state);
    },
    row() {
      return this.acts.filter((act) => !act.place);
    },
    judging() {
      const pressed = this.acts.filter((act) => ["seen", "details"].includes(act.place) && act.pressed);
      return pressed.length ? pressed : this.acts.filter((act) => act.place === "seen");
    },
    missed() {
      return this.acts.find((act) => act.place === "details" && !act.pressed);
    },
    stage() {
      return STAGES[this.now || this.state];
    },
  },
  watch: {
    html: "whole",
  },
  mounted() {
    this.rest = ""; // HTML of the block that is being written
    this.whole();
    if (stepped && this.beside.length > 1 && Date.now() < stepped.until) this.$nextTick(this.refocus);
  },
  methods: {
    whole() {
      // An answer that was written in this tab shows already.
      if (!this.grown && this.$refs.done) this.fill(this.$refs.done, this.html);
    },
    fill(box, html) {
      box.setHTML(html); // through DOMPurify, though the server lets nothing active out either
      for (const link of box.querySelectorAll("a")) Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
    },
    grow([stage, strokes]) {
      this.now = stage;
      const { done, open } = this.$refs;
      for (const [kind, keep, more] of strokes) {
        this.grown = true;
        if (kind === "done") {
          const box = document.createElement("div");
          this.fill(box, more);
          done.append(...box.childNodes);
          this.rest = "";
          open.replaceChildren();
        } else if (kind === "open") {
          this.rest = this.rest.slice(0, keep) + more;
          this.fill(open, this.rest);
        } else {
          open.querySelector("code").append(more);
        }
      }
    },
    click(event) {
      const button = event.target.closest("button[data-copy]");
      if (!button) return;
      copy(button.closest("figure").querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    },
    do_(act) {
      const own = { copy: this.copy, aloud: this.read, edit: this.edit, correct: this.edit, details: () => (this.detailed = !this.detailed) };
      if (own[act]) own[act]();
      else this.$emit("act", act);
    },
    copy() {
      copy(this.text);
      this.copied = true;
      setTimeout(() => (this.copied = false), 1500);
    },
    icon({ id, icon }) {
      if (id === "copy" && this.copied) return "done";
      return id === "aloud" && this.aloud ? "stop" : icon;
    },
    read() {
      if (this.aloud) return void window.ingleVoice.hush();
      window.ingleVoice.read(this.correction?.text ?? this.text);
      this.aloud = true;
      const over = ({ detail }) => {
        if (!["quiet", "trouble"].includes(detail.type)) return;
        removeEventListener("ingle-voice", over);
        this.aloud = false;
      };
      addEventListener("ingle-voice", over);
    },
    edit() {
      [this.editing, this.draft] = [true, this.correction?.text ?? this.text];
      this.$nextTick(() => {
        this.size();
        this.$refs.box.focus();
      });
    },
    key(event) {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Escape") {
        event.preventDefault();
        this.editing = false;
      } else if (event.key === "Enter" && !event.shiftKey && !matchMedia("(pointer: coarse)").matches) {
        event.preventDefault();
        this.save();
      }
    },
    size() {
      this.$refs.box.style.height = "auto";
      this.$refs.box.style.height = this.$refs.box.scrollHeight + 2 + "px";
    },
    save() {
      if (!this.draft.trim()) return;
      this.$emit(this.role === "user" ? "edit" : "correct", this.draft); // what was typed stays until it is stored
    },
    stored() {
      this.editing = false;
    },
    refocus() {
      // This is what stands in the place of a turn whose button was pressed.
      if (!stepped) return;
      const [back, on] = this.$el.querySelectorAll(".beside button");
      const button = stepped.by < 0 ? back : on;
      (button.disabled ? (button === back ? on : back) : button).focus({ preventScroll: true });
      stepped = null;
    },
    unfolds(act) {
      const open = { details: this.detailed, why: this.explained }[act.id];
      return open === undefined ? null : open ? "true" : "false";
    },
    named(act) {
      return act.pressed ? `${act.label} (press again to undo)` : act.label;
    },
    step(by) {
      stepped = { by, until: Date.now() + 5000 };
      this.$emit("step", this.beside[this.place + by]);
    },
  },
};
