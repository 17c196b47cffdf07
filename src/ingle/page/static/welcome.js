// The first thing that one sees.

// smollm2 answered each of them rightly 8 times of 8, by the settings of the home.
const SAMPLES = [
  "What is the capital of France, and what is it known for?",
  "Write a Python function that reverses a string.",
  "Give me three tips for sleeping better.",
];

export default {
  props: { shown: Boolean, passing: Boolean },
  emits: ["sample"],
  template: `
    <section v-if="shown" class="welcome">
      <svg class="mark" aria-hidden="true"><use href="#i-hearth"></use></svg>
      <h1>What shall we talk about?</h1>
      <p v-if="passing">This conversation is kept nowhere. It is gone when you leave it or close the tab.</p>
      <p v-else>The model runs on the machine that serves this page, and what you write stays there, in this home.</p>
      <ul>
        <li v-for="sample in samples"><button type="button" @click="$emit('sample', sample)">{{ sample }}</button></li>
      </ul>
    </section>`,
  created() {
    this.samples = SAMPLES;
  },
};
