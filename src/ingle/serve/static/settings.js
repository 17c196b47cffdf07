// What this conversation asks of the model. Empty = as the home has it.

const THEMES = { system: "As the system", light: "Light", dark: "Dark" };

export default {
  props: {
    models: { type: Array, default: () => [] },
    home: { type: Object, default: () => ({}) },
    chosen: { type: Object, default: () => ({}) },
    note: { type: String, default: "" },
  },
  emits: ["change", "reset"],
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
          <label>System prompt
            <textarea rows="4" maxlength="20000" :value="chosen.system" placeholder="What the model is told before everything else"
                      @change="set('system', $event.target.value)"></textarea>
          </label>
          <label class="range"><span>Temperature <b>{{ now('temperature') }}</b></span>
            <input type="range" min="0" max="2" step="0.05" :value="now('temperature')" @change="set('temperature', +$event.target.value)">
            <small>0 says the likeliest every time; more is more varied.</small>
          </label>
          <label class="range"><span>Top p <b>{{ now('top_p') }}</b></span>
            <input type="range" min="0.05" max="1" step="0.05" :value="now('top_p')" @change="set('top_p', +$event.target.value)">
            <small>Leaves out what is unlikely: 0.9 keeps the likeliest nine tenths.</small>
          </label>
          <div class="two">
            <label>Most tokens
              <input type="number" min="1" step="1" :value="chosen.max_tokens" :placeholder="home.max_tokens"
                     @change="set('max_tokens', number($event))">
            </label>
            <label>Seed
              <input type="number" min="0" step="1" :value="chosen.seed" :placeholder="home.seed ?? 'new each time'"
                     @change="set('seed', number($event))">
            </label>
          </div>
          <button v-if="changed" type="button" class="quiet" @click="$emit('reset')">Back to this home's settings</button>
        </section>
        <section>
          <h3>This browser</h3>
          <div class="choice" role="radiogroup" aria-label="Light or dark">
            <label v-for="(label, name) in themes"><input type="radio" name="theme" :value="name" :checked="theme === name" @change="paint(name)"><span>{{ label }}</span></label>
          </div>
        </section>
      </div>
    </dialog>`,
  data: () => ({ theme: localStorage.getItem("ingle.theme") || "system" }),
  computed: {
    changed() {
      return Object.values(this.chosen).some((value) => value !== null && value !== "");
    },
    offered() {
      const asked = this.chosen.model;
      return !asked || this.models.includes(asked) ? this.models : [asked, ...this.models];
    },
  },
  created() {
    this.themes = THEMES;
  },
  methods: {
    open() {
      this.$refs.box.showModal();
    },
    outside(event) {
      if (event.target === this.$refs.box) this.$refs.box.close();
    },
    now(name) {
      return this.chosen[name] ?? this.home[name];
    },
    number(event) {
      return event.target.value === "" ? null : +event.target.value;
    },
    set(name, value) {
      this.$emit("change", [name, value]);
    },
    paint(name) {
      this.theme = name;
      dispatchEvent(new CustomEvent("ingle-theme", { detail: name }));
    },
  },
};
