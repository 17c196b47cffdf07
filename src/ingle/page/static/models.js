// The panel "Models": what can be pulled, what it needs, how fast it would be on this machine; the pull of one.

const size = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`);
const count = (number) => (number >= 1e9 ? `${(number / 1e9).toFixed(1)} billion` : `${Math.round(number / 1e6)} million`);

export default {
  props: {
    models: { type: Array, default: () => [] },
    current: { type: String, default: "" },
    pull: { type: Object, default: () => ({ state: "none" }) },
    measuring: Boolean,
    note: { type: String, default: "" },
  },
  emits: ["pull", "stop", "use", "shut"],
  data: () => ({ lean: false }),
  template: `
    <dialog ref="box" class="panel models" aria-labelledby="models-title" @click="outside" @close="$emit('shut')">
      <div class="sheet">
        <header>
          <h2 id="models-title">Models</h2>
          <button class="quiet" type="button" aria-label="Close" @click="$refs.box.close()">
            <svg class="i" aria-hidden="true"><use href="#i-close"></use></svg>
          </button>
        </header>
        <p class="trouble" role="alert">{{ note }}</p>
        <small>Models are pulled from the Hugging Face hub to this machine. Sizes are about; speeds are predicted for this machine.</small>
        <label class="consent"><input type="checkbox" role="switch" v-model="lean">
          <span>Save disk space<small>A model that you pull then takes half the room. It answers the same; teaching it starts later.</small></span>
        </label>
        <p v-if="measuring" class="empty" role="status">Measuring this machine's speed …</p>
        <ul>
          <li v-for="one in models" :key="one.name" :data-model="one.name" :data-kept="one.kept">
            <h3>{{ one.title }}</h3>
            <p>{{ count(one.parameters) }} parameters · {{ size(one.file_bytes) }} · {{ one.licence }}</p>
            <p>About {{ size(one.memory_bytes) }} of memory<span v-if="one.tokens_per_s"> · about {{ speed(one) }} tokens a second</span></p>
            <p v-if="one.note" class="reason">{{ one.note }}</p>
            <p v-if="!one.fits" class="reason">{{ one.why }}.</p>
            <template v-if="pull.name === one.name && pull.state === 'running'">
              <progress :max="pull.total || 1" :value="pull.total ? pull.done : null" :aria-label="'Pulling ' + one.title"></progress>
              <div class="foot"><span role="status">{{ doing }}</span><button class="quiet" type="button" @click="$emit('stop')">Stop</button></div>
            </template>
            <div v-else class="foot">
              <span v-if="pull.name === one.name && pull.note" role="status">{{ pull.note }}</span><span v-else></span>
              <span v-if="one.kept && one.kept === current" class="here">In use</span>
              <button v-else-if="one.kept" class="quiet" type="button" :aria-label="'Use ' + one.title" @click="$emit('use', one.kept)">Use it here</button>
              <button v-else class="quiet" type="button" :aria-label="'Pull ' + one.title" :disabled="pull.state === 'running' || !one.fits"
                      @click="$emit('pull', { name: one.name, lean: lean || null })">Pull</button>
            </div>
          </li>
        </ul>
      </div>
    </dialog>`,
  computed: {
    doing() {
      const { label, done, total, unit, seconds_left: left } = this.pull;
      const amount = !total ? "" : unit === "bytes" ? `: ${size(done)} of ${size(total)}` : `: ${done} of ${total}`;
      const time = left === null || left === undefined ? "" : left < 90 ? `, about ${Math.ceil(left)} s left` : `, about ${Math.round(left / 60)} minutes left`;
      return label + amount + time;
    },
  },
  created() {
    this.size = size;
    this.count = count;
  },
  methods: {
    open() {
      if (!this.$refs.box.open) this.$refs.box.showModal();
    },
    outside(event) {
      if (event.target === this.$refs.box) this.$refs.box.close();
    },
    speed(one) {
      return one.tokens_per_s < 10 ? one.tokens_per_s.toFixed(1) : Math.round(one.tokens_per_s);
    },
  },
};
