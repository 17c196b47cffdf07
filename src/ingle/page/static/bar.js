// What stands above a conversation.

export default {
  props: { title: { type: String, default: "" }, model: { type: String, default: "" }, passing: Boolean, begun: Boolean },
  emits: ["settings", "passing", "new"],
  template: `
    <header class="bar">
      <button class="quiet only-narrow" type="button" aria-label="Conversations" title="Conversations" @click="drawer">
        <svg class="i" aria-hidden="true"><use href="#i-menu"></use></svg>
      </button>
      <h2 :title="title">{{ title }}</h2>
      <button v-if="!begun" class="quiet pill" type="button" role="switch" :aria-checked="passing ? 'true' : 'false'"
              title="Talk without keeping anything" @click="$emit('passing', !passing)">
        <svg class="i" aria-hidden="true"><use href="#i-passing"></use></svg><span>{{ passing ? "Not kept" : "Don't keep" }}</span>
      </button>
      <span v-else-if="passing" class="pill said" title="Gone when you leave it or close the tab">
        <svg class="i" aria-hidden="true"><use href="#i-passing"></use></svg><span>Not kept</span>
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
