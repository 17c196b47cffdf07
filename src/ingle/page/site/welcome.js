// The start of a new conversation.

import { Component, html, size } from "./parts.js";

// smollm2 answered each of them rightly 8 times of 8, by the settings of the home.
const SAMPLES = [
  "What is the capital of France, and what is it known for?",
  "Write a Python function that reverses a string.",
  "Give me three tips for sleeping better.",
];

const minutes = (bytes) => ((some) => (some < 1.5 ? "about a minute" : `about ${Math.round(some)} minutes`))(bytes / 6.25e6 / 60);

export class Welcome extends Component {
  state = { chosen: null, who: "quick", asked: "" }; // asked: the better model that was asked for here

  better(offer) {
    const { who } = this.state;
    const choose = ({ target }) => this.setState({ who: target.value });
    const get = (event) => {
      event.preventDefault();
      this.setState({ asked: offer.name });
      this.props.better(offer);
    };
    return html`
      <form class="better" aria-labelledby="who-answers" onSubmit=${get}>
        <h2 id="who-answers">Who should answer?</h2>
        <label><input type="radio" name="who" value="quick" checked=${who === "quick"} onChange=${choose} /><span><b>Quick</b>
          <small>SmolLM2 135M is here. It answers at once, knows little, and errs often.</small></span></label>
        <label><input type="radio" name="who" value="better" checked=${who === "better"} disabled=${!offer.name} onChange=${choose} /><span><b>Better</b>
          ${offer.name
            ? html`<small>${offer.title}: ${size(offer.file_bytes)} to get (${minutes(offer.file_bytes)} at 50 Mbit/s), about ${Math.round(offer.tokens_per_s)}${" "}
                tokens a second here${offer.guess && " (a guess: other programs are at work)"}. The quick one answers meanwhile.</small>`
            : html`<small role="status">Looking which one fits: this machine's speed is being measured …</small>`}</span></label>
        <div class="buttons"><button type="button" aria-haspopup="dialog" onClick=${this.props.models}>All models</button>
          ${who === "better" && html`<button class="main">Get it</button>`}</div>
      </form>`;
  }

  question(question) {
    const chosen = this.state.chosen ?? question.usual;
    const save = (event) => (event.preventDefault(), this.props.answer(chosen));
    return html`
      <form class="question" aria-labelledby="asked-once" onSubmit=${save}>
        <h2 id="asked-once">One question, asked once</h2>
        <div class="asked">What should happen when somebody here asks for harm, such as how to build a weapon?</div>
        ${question.choices.map((one) => html`
          <label><input type="radio" name="asked-once" value=${one.word} checked=${one.word === chosen}
                 onChange=${() => this.setState({ chosen: one.word })} /><span><b>${one.label}</b><small>${one.does}</small></span></label>`)}
        <small>The guard errs now and then, both ways. You can change this any time: Settings → Safety.</small>
        <div class="buttons"><button type="button" onClick=${() => this.props.answer("")}>Leave it as it is</button><button class="main">Save</button></div>
      </form>`;
  }

  render({ temporary, offer, question, sample }, { asked }) {
    return html`
      <section class="welcome">
        <svg class="mark" aria-hidden="true"><use href="#i-hearth"></use></svg>
        <h1>What would you like to talk about?</h1>
        <p>${temporary
          ? "This chat is temporary. It is gone when you leave it or close the tab."
          : "The model runs on the machine that serves this page. What you write stays there."}</p>
        <ul>${SAMPLES.map((one) => html`<li><button type="button" onClick=${() => sample(one)}>${one}</button></li>`)}</ul>
        ${offer && !(asked && asked === offer.name) && this.better(offer)}
        ${question && this.question(question)}
      </section>`;
  }
}
