// The start of a new conversation.

// smollm2 answered each of them rightly 8 times of 8, by the settings of the home.
const SAMPLES = [
  "What is the capital of France, and what is it known for?",
  "Write a Python function that reverses a string.",
  "Give me three tips for sleeping better.",
];

export default {
  props: { shown: Boolean, temporary: Boolean, offer: { type: Object, default: null }, question: { type: Object, default: null } },
  emits: ["sample", "models", "answer"],
  data: () => ({ chosen: null }),
  template: `
    <section v-if="shown" class="welcome">
      <svg class="mark" aria-hidden="true"><use href="#i-hearth"></use></svg>
      <h1>What would you like to talk about?</h1>
      <p v-if="temporary">This chat is temporary. It is gone when you leave it or close the tab.</p>
      <p v-else>The model runs on the machine that serves this page. What you write stays there.</p>
      <ul>
        <li v-for="sample in samples"><button type="button" @click="$emit('sample', sample)">{{ sample }}</button></li>
      </ul>
      <form v-if="question" class="question" aria-labelledby="asked-once" @submit.prevent="$emit('answer', chosen ?? question.usual)">
        <h2 id="asked-once">One question, asked once</h2>
        <div class="asked">What should happen when somebody here asks for harm, such as how to build a weapon?</div>
        <label v-for="one in question.choices"><input type="radio" name="asked-once" :value="one.word" :checked="one.word === (chosen ?? question.usual)"
               @change="chosen = one.word"><span><b>{{ one.label }}</b><small>{{ one.does }}</small></span></label>
        <small>The guard errs now and then, both ways. You can change this any time: Settings → Safety.</small>
        <div class="buttons"><button type="button" @click="$emit('answer', '')">Leave it as it is</button><button class="main">Save</button></div>
      </form>
      <div v-if="offer" class="offer">A larger model fits this machine: {{ offer.title }}, about {{ Math.round(offer.tokens_per_s) }} tokens a second.
        <button type="button" aria-haspopup="dialog" @click="$emit('models')">Look at models</button></div>
    </section>`,
  created() {
    this.samples = SAMPLES;
  },
};
