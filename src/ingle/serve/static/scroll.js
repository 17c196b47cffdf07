// What scrolls. Whoever is at the end stays there while an answer grows; whoever reads further up is left in peace.

const NEAR = 48; // pixels that still count as being at the end

export default {
  template: `
    <div class="middle">
      <div class="scroll" ref="box" tabindex="-1" @scroll.passive="look">
        <div class="inner" ref="inner"><slot></slot></div>
      </div>
      <button v-show="!near" class="down" type="button" aria-label="To the end" title="To the end" @click="end">
        <svg class="i" aria-hidden="true"><use href="#i-down"></use></svg>
      </button>
    </div>`,
  data: () => ({ near: true }),
  mounted() {
    this.last = 0;
    this.observer = new ResizeObserver(() => this.near && this.toEnd());
    this.observer.observe(this.$refs.inner);
    this.observer.observe(this.$refs.box);
    this.toEnd();
  },
  unmounted() {
    this.observer.disconnect();
  },
  methods: {
    toEnd() {
      this.$refs.box.scrollTop = this.$refs.box.scrollHeight;
    },
    look() {
      const { scrollTop, scrollHeight, clientHeight } = this.$refs.box;
      const atEnd = scrollHeight - scrollTop - clientHeight < NEAR;
      // Growing text leaves the end behind without anybody having scrolled: only going up means it.
      if (atEnd) this.near = true;
      else if (scrollTop < this.last) this.near = false;
      this.last = scrollTop;
    },
    end() {
      this.near = true;
      this.toEnd();
    },
  },
};
