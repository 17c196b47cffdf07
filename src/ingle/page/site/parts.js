// Small parts that others are made of.

import { Component, html } from "./vendor/preact-htm.js";

export { Component, html };

export const icon = (name) => html`<svg class="i" aria-hidden="true"><use href=${"#i-" + name}></use></svg>`;

export const size = (bytes) => (bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`);

export const composing = (event) => event.isComposing || event.keyCode === 229; // Safari ends the composition before it says which key did

export function grow(box) {
  if (!box) return;
  box.style.height = "auto";
  box.style.height = box.scrollHeight + 2 + "px";
}

// Focuses a box that is being made, when it stands in the page.
export function focusNew(box, then) {
  queueMicrotask(() => {
    box.focus();
    then?.();
  });
}

// How far a pull is, with the time left.
export function doing({ label, done, total, unit, seconds_left: left }) {
  const amount = !total ? "" : unit === "bytes" ? `: ${size(done)} of ${size(total)}` : `: ${done} of ${total}`;
  const time = left == null ? "" : left < 90 ? `, about ${Math.ceil(left)} s left` : `, about ${Math.round(left / 60)} minutes left`;
  return label + amount + time;
}

// A panel over the page. Its parent opens it by `shown`; it closes by itself, and says so.
export class Panel extends Component {
  componentDidMount() {
    this.follow();
  }

  componentDidUpdate() {
    this.follow();
  }

  follow() {
    if (this.props.shown && !this.box.open) {
      this.box.showModal();
      this.box.scrollTop = 0;
    } else if (!this.props.shown && this.box.open) this.box.close();
  }

  render({ name, title, shown, close, children }) {
    return html`
      <dialog ref=${(box) => (this.box = box)} class=${"panel " + name} aria-labelledby=${name + "-title"} onClose=${close}
              onClick=${({ target }) => target === this.box && this.box.close()}>
        <div class="sheet">
          <header>
            <h2 id=${name + "-title"}>${title}</h2>
            <button class="quiet" type="button" aria-label="Close" onClick=${() => this.box.close()}>${icon("close")}</button>
          </header>
          ${children}
        </div>
      </dialog>`;
  }
}

// A question before something that can't be taken back; it is `doomed`.
export class Sure extends Component {
  componentDidUpdate() {
    if (this.props.doomed && !this.box.open) this.box.showModal();
  }

  render({ label, verb, close, act, children }) {
    const ended = (event) => {
      event.stopPropagation();
      close();
    };
    return html`
      <dialog ref=${(box) => (this.box = box)} aria-label=${label} onClose=${ended} onClick=${(event) => event.stopPropagation()}>
        <form method="dialog">
          ${children}
          <div class="buttons"><button value="">Cancel</button><button class="main" value="yes" onClick=${act}>${verb}</button></div>
        </form>
      </dialog>`;
  }
}
