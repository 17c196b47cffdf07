// The scrolling middle. A reader at the end stays there while an answer grows; a reader further up is not moved.

const NEAR = 48; // pixels that still count as being at the end

export default {
  props: { earlier: Boolean },
  emits: ["earlier"],
  template: `
    <div class="middle">
      <div class="scroll" ref="box" tabindex="-1" @scroll.passive="look">
        <div class="inner" ref="inner">
          <button v-if="earlier" class="quiet older" type="button" @click="more">Show earlier messages</button>
          <slot></slot>
        </div>
      </div>
      <button v-show="!near" class="down" type="button" aria-label="Go to the end" title="Go to the end" @click="end">
        <svg class="i" aria-hidden="true"><use href="#i-down"></use></svg>
      </button>
    </div>`,
  data: () => ({ near: true }),
  mounted() {
    this.last = 0;
    this.observer = new ResizeObserver(() => {
      const { box } = this.$refs;
      if (this.below) [box.scrollTop, this.below] = [box.scrollHeight - this.below, 0];
      else if (this.near) this.follow();
    });
    this.observer.observe(this.$refs.inner);
    this.observer.observe(this.$refs.box);
    this.follow();
  },
  unmounted() {
    this.observer.disconnect();
  },
  methods: {
    follow() {
      // The start and an explanation are read from their beginning.
      if (!this.$refs.inner.querySelector(".welcome, .turns > :last-child .why")) this.toEnd();
    },
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
    more() {
      const { scrollTop, scrollHeight } = this.$refs.box;
      [this.below, this.near] = [scrollHeight - scrollTop, false]; // what one reads now is to stay where it is
      this.$emit("earlier");
    },
    end() {
      this.near = true;
      this.toEnd();
    },
  },
};
