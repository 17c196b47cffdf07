// The settings of this conversation (empty = the home's default), of the guards, and of this browser.

const THEMES = { system: "System", light: "Light", dark: "Dark" };

export default {
  props: {
    models: { type: Array, default: () => [] },
    home: { type: Object, default: () => ({}) },
    chosen: { type: Object, default: () => ({}) },
    note: { type: String, default: "" },
    more: Boolean,
    safety: { type: Object, default: () => ({ may: false, guards: [], note: "", failures: 0 }) },
  },
  emits: ["change", "reset", "models", "guard"],
  template: `
    <dialog ref="box" class="panel settings" aria-labelledby="settings-title" @click="outside">
      <div class="sheet">
        <header>
          <h2 id="settings-title">Settings</h2>
          <button class="quiet" type="button" aria-label="Close" @click="$refs.box.close()">
            <svg class="i" aria-hidden="true"><use href="#i-close"></use></svg>
          </button>
        </header>
        <p class="trouble" role="alert">{{ note }}</p>
        <section>
          <h3>This conversation</h3>
          <label>Model
            <select :value="chosen.model || home.model" @change="set('model', $event.target.value)">
              <option v-for="name in offered" :value="name">{{ name }}</option>
            </select>
          </label>
          <button v-if="more" type="button" class="quiet more-models" aria-haspopup="dialog" @click="$refs.box.close(), $emit('models')">More models</button>
          <label>System prompt
            <textarea rows="4" maxlength="20000" :value="shown('system')" placeholder="Instructions that the model reads before everything else"
                      @input="type('system', $event.target.value)" @change="set('system', $event.target.value)"></textarea>
          </label>
          <label class="range"><span>Temperature <b>{{ now('temperature') }}</b></span>
            <input type="range" min="0" max="2" step="0.05" :value="now('temperature')"
                   @input="type('temperature', +$event.target.value)" @change="set('temperature', +$event.target.value)">
            <small>0 always picks the likeliest word. Higher values vary more.</small>
          </label>
          <label class="range"><span>Top p <b>{{ now('top_p') }}</b></span>
            <input type="range" min="0.05" max="1" step="0.05" :value="now('top_p')"
                   @input="type('top_p', +$event.target.value)" @change="set('top_p', +$event.target.value)">
            <small>Lower values keep only likely words.</small>
          </label>
          <div class="two">
            <label>Longest answer, in tokens
              <input type="number" min="1" step="1" :value="shown('max_tokens')" :placeholder="home.max_tokens"
                     @input="type('max_tokens', $event.target.value)" @change="set('max_tokens', number($event))">
            </label>
            <label>Seed
              <input type="number" min="0" step="1" :value="shown('seed')" :placeholder="home.seed ?? 'new each time'"
                     @input="type('seed', $event.target.value)" @change="set('seed', number($event))">
            </label>
          </div>
          <button v-if="changed" type="button" class="quiet" @click="reset">Reset to defaults</button>
        </section>
        <section ref="safety" class="guards" aria-labelledby="safety-title">
          <h3 id="safety-title">Safety</h3>
          <p class="wrong" role="alert">{{ safety.note }}</p>
          <small v-if="safety.may">What you choose holds for everybody who asks here, from the next message on.</small>
          <small v-else>Only whoever keeps this house can change this.</small>
          <fieldset v-for="one in safety.guards" :key="one.name + safety.failures" :data-guard="one.name">
            <legend>{{ one.title }}</legend>
            <small>{{ one.about }}</small>
            <div v-if="safety.may" class="choice">
              <label v-for="way in one.choices"><input type="radio" :name="'guard-' + one.name" :value="way.word" :checked="way.word === one.word"
                     @change="$emit('guard', [one.name, way.word])"><span>{{ way.label }}</span></label>
            </div>
            <small><b v-if="!safety.may">{{ one.label }}. </b>{{ one.does }}</small>
            <small v-for="other in one.others">{{ other }}</small>
          </fieldset>
          <small v-if="safety.may">Words and topics of your own: policy.toml, under [guards.output] and [guards.topics].</small>
        </section>
        <section>
          <h3>This browser</h3>
          <label v-if="voices.length">Voice
            <select :value="voice" @change="speak($event.target.value)">
              <option value="auto">The fastest</option>
              <option v-for="name in voices" :value="name">{{ name }}</option>
            </select>
          </label>
          <div class="choice" role="radiogroup" aria-label="Light or dark">
            <label v-for="(label, name) in themes"><input type="radio" name="theme" :value="name" :checked="theme === name" @change="paint(name)"><span>{{ label }}</span></label>
          </div>
        </section>
      </div>
    </dialog>`,
  // typed: by name, the value of a field that the server has not confirmed. News of other fields must not wipe it out.
  data: () => ({ theme: localStorage.getItem("ingle.theme") || "system", voice: localStorage.getItem("ingle.voice") || "auto", voices: [], typed: {} }),
  computed: {
    changed() {
      return Object.values(this.chosen).some((value) => value !== null && value !== "");
    },
    offered() {
      const model = this.chosen.model;
      return !model || this.models.includes(model) ? this.models : [model, ...this.models];
    },
  },
  watch: {
    chosen() {
      for (const name of this.sent) delete this.typed[name];
      this.sent.clear();
    },
  },
  created() {
    this.themes = THEMES;
    this.sent = new Set();
    addEventListener("ingle-voice", ({ detail }) => detail.type === "hello" && (this.voices = detail.voices));
  },
  methods: {
    open(section) {
      this.typed = {};
      window.ingleVoice.voices().catch(() => {}); // they come when they come
      if (!this.$refs.box.open) this.$refs.box.showModal();
      if (section) this.$nextTick(() => this.$refs[section].scrollIntoView());
    },
    outside(event) {
      if (event.target === this.$refs.box) this.$refs.box.close();
    },
    shown(name) {
      return this.typed[name] ?? this.chosen[name];
    },
    now(name) {
      return this.shown(name) ?? this.home[name];
    },
    number(event) {
      return event.target.value === "" ? null : +event.target.value;
    },
    type(name, value) {
      this.sent.delete(name);
      this.typed[name] = value;
    },
    set(name, value) {
      this.sent.add(name);
      this.$emit("change", [name, value]);
    },
    reset() {
      this.typed = {};
      this.$emit("reset");
    },
    speak(name) {
      this.voice = name;
      window.ingleVoice.choose(name);
    },
    paint(name) {
      this.theme = name;
      dispatchEvent(new CustomEvent("ingle-theme", { detail: name }));
    },
  },
};
