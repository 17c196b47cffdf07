// The bar above a conversation.

export default {
  props: { title: { type: String, default: "" }, model: { type: String, default: "" }, temporary: Boolean, begun: Boolean },
  emits: ["settings", "temporary", "new"],
  template: `
    <header class="bar">
      <button class="quiet only-narrow" type="button" aria-label="Conversations" title="Conversations" @click="drawer">
        <svg class="i" aria-hidden="true"><use href="#i-menu"></use></svg>
      </button>
      <h2 :title="title">{{ title }}</h2>
      <button v-if="!begun" class="quiet pill" type="button" role="switch" :aria-checked="temporary ? 'true' : 'false'"
              title="Nothing of a temporary chat is saved" @click="$emit('temporary', !temporary)">
        <svg class="i" aria-hidden="true"><use href="#i-temporary"></use></svg><span>Temporary chat</span>
      </button>
      <span v-else-if="temporary" class="pill said" title="Gone when you leave it or close the tab">
        <svg class="i" aria-hidden="true"><use href="#i-temporary"></use></svg><span>Temporary chat</span>
      </span>
      <button class="quiet pill" type="button" aria-haspopup="dialog" title="Model and settings" @click="$emit('settings')">
        <span class="model">{{ model }}</span><svg class="i" aria-hidden="true"><use href="#i-settings"></use></svg>
      </button>
      <button class="quiet only-narrow" type="button" aria-label="New conversation" title="New conversation" @click="$emit('new')">
        <svg class="i" aria-hidden="true"><use href="#i-new"></use></svg>
      </button>
    </header>`,
  methods: {
    drawer() {
      document.body.classList.add("drawer");
      document.querySelector(".side .new").focus();
    },
  },
};
