// The start of a new conversation.

// smollm2 answered each of them rightly 8 times of 8, by the settings of the home.
const SAMPLES = [
  "What is the capital of France, and what is it known for?",
  "Write a Python function that reverses a string.",
  "Give me three tips for sleeping better.",
];

export default {
  props: { shown: Boolean, temporary: Boolean, offer: { type: Object, default: null }, question: { type: Object, default: null } },
  emits: ["sample", "models", "answer", "better"],
  data: () => ({ chosen: null, who: "quick", asked: "" }), // asked: the better model that was asked for here
  template: `
    <section v-if="shown" class="welcome">
      <svg class="mark" aria-hidden="true"><use href="#i-hearth"></use></svg>
      <h1>What would you like to talk about?</h1>
      <p v-if="temporary">This chat is temporary. It is gone when you leave it or close the tab.</p>
      <p v-else>The model runs on the machine that serves this page. What you write stays there.</p>
      <ul>
        <li v-for="sample in samples"><button type="button" @click="$emit('sample', sample)">{{ sample }}</button></li>
      </ul>
      <form v-if="offer && !(asked && asked === offer.name)" class="better" aria-labelledby="who-answers" @submit.prevent="get">
        <h2 id="who-answers">Who should answer?</h2>
        <label><input type="radio" name="who" value="quick" v-model="who"><span><b>Quick</b>
          <small>SmolLM2 135M is here. It answers at once, knows little, and errs often.</small></span></label>
        <label><input type="radio" name="who" value="better" v-model="who" :disabled="!offer.name"><span><b>Better</b>
          <small v-if="!offer.name" role="status">Looking which one fits: this machine's speed is being measured …</small>
          <small v-else>{{ offer.title }}: {{ size(offer.file_bytes) }} to get ({{ minutes(offer.file_bytes) }} at 50 Mbit/s), about {{ Math.round(offer.tokens_per_s) }}
            tokens a second here<template v-if="offer.guess"> (a guess: other programs are at work)</template>. The quick one answers meanwhile.</small></span></label>
        <div class="buttons"><button type="button" aria-haspopup="dialog" @click="$emit('models')">All models</button>
          <button v-if="who === 'better'" class="main">Get it</button></div>
      </form>
      <form v-if="question" class="question" aria-labelledby="asked-once" @submit.prevent="$emit('answer', chosen ?? question.usual)">
        <h2 id="asked-once">One question, asked once</h2>
        <div class="asked">What should happen when somebody here asks for harm, such as how to build a weapon?</div>
        <label v-for="one in question.choices"><input type="radio" name="asked-once" :value="one.word" :checked="one.word === (chosen ?? question.usual)"
               @change="chosen = one.word"><span><b>{{ one.label }}</b><small>{{ one.does }}</small></span></label>
        <small>The guard errs now and then, both ways. You can change this any time: Settings → Safety.</small>
        <div class="buttons"><button type="button" @click="$emit('answer', '')">Leave it as it is</button><button class="main">Save</button></div>
      </form>
    </section>`,
  created() {
    this.samples = SAMPLES;
  },
  methods: {
    get() {
      this.asked = this.offer.name;
      this.$emit("better", { name: this.offer.name, title: this.offer.title });
    },
    size: (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`),
    minutes: (bytes) => ((some) => (some < 1.5 ? "about a minute" : `about ${Math.round(some)} minutes`))(bytes / 6.25e6 / 60),
  },
};
